"""Laws of the verbs' own: that what is tested part by part is what they really do."""

import json
import shutil
from importlib import import_module

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clozeworks import api
from clozeworks.api import model as models
from clozeworks.api.pretrain import Material
from clozeworks.core.bundle import Calibration, Card, Fold, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.core.log import silence
from clozeworks.core.run import alone_in
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import Layer
from clozeworks.model.noise import Dropout, Noise
from clozeworks.tasks.classify import Classify
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.train.parallel import learner_for
from tiny import PIECES, TOKENIZER, WORDS, make_model, make_task

finetuning = import_module("clozeworks.api.finetune")
TRAIN = {"duration": "6 steps", "batch": 8, "lr": 1e-2, "precision": "fp32"}


@pytest.fixture
def rows(tmp_path):
    """Sixty rows of two classes, which a word tells apart."""
    path = tmp_path / "rows.jsonl"
    chance = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as out:
        for i in range(60):
            words = [*chance.choice(WORDS[4:], 5), WORDS[i % 2]]
            print(json.dumps({"text": f"{' '.join(words)} {i}", "label": "ab"[i % 2]}), file=out)
    return path


@pytest.fixture
def parent(tmp_path):
    """A tiny BERT's folder."""
    card = Card(task="mlm", tokenizer=TOKENIZER.hash)
    return write_bundle(tmp_path / "bert", make_model(make_task("mlm")), TOKENIZER, card)


def finetuned(parent, rows, out, **given):
    train = {**TRAIN, **given.pop("train", {})}
    recipe = {"task": "classify", "data": rows, "model": parent, "out": out, "device": "cpu"}
    settings = {"max_length": 24, **given.pop("settings", {})}
    made = {**recipe, "settings": settings, "train": train, **given}
    return api.finetune(api.FinetuneRecipe.model_validate(made))


def pretraining(desk, out, **given):
    train = {"duration": "2 steps", "batch": 256, "precision": "fp32", **given.pop("train", {})}
    recipe = {"task": "mlm+nsp", "data": desk / "shards", "out": out, "size": "tiny"}
    return api.PretrainRecipe.model_validate({**recipe, "max_length": 32, "train": train, **given})


# === What a model is judged by, and learns from ===


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_finished_classifier_keeps_the_calibration_that_dev_gave(
    kind, parent, rows, tmp_path, monkeypatch
):
    found = []
    calibrate = Classify.calibrate

    def spy(self, examples, parts):
        found.append(calibrate(self, examples, parts))
        return found[-1]

    monkeypatch.setattr(Classify, "calibrate", spy)
    made = finetuned(parent, rows, tmp_path / "run", settings={"kind": kind})
    card = open_bundle(made.bundle).card
    assert card.calibration == found[-1] != Calibration()
    assert kind == "single" or len(card.calibration.thresholds) == 2


def test_a_row_is_learned_from_or_judged_on_never_both(parent, rows, tmp_path, monkeypatch):
    learned = []
    groups = finetuning._groups

    def spy(task, examples, tokenizer):
        learned.extend(example.text for example in examples)
        return groups(task, examples, tokenizer)

    judged = set()
    metrics = Classify.metrics

    def look(self, predictions, examples):
        judged.update(example.text for example in examples)
        return metrics(self, predictions, examples)

    monkeypatch.setattr(finetuning, "_groups", spy)
    monkeypatch.setattr(Classify, "metrics", look)
    finetuned(parent, rows, tmp_path / "run")
    texts = {json.loads(line)["text"] for line in rows.read_text("utf-8").splitlines()}
    assert judged and not judged & set(learned) and judged | set(learned) == texts


def documents_of(stream, shards):
    """Which documents an epoch of a stream begins its windows in."""
    starts = shards.sentences[shards.documents]
    return set((np.searchsorted(starts, stream.plan(0).first[:, 0], side="right") - 1).tolist())


def test_a_document_is_learned_from_or_judged_on_never_both(desk, tmp_path):
    recipe = pretraining(desk, tmp_path / "run")
    has = Material.of(recipe)
    learned, judged = has.stream(recipe), has.texts(recipe)[""]
    assert not documents_of(learned, has.shards) & documents_of(judged, has.shards)
    other = pretraining(desk, tmp_path / "run", train={"seed": 5, "batch": 512})
    again = Material.of(other).texts(other)[""]
    assert np.array_equal(again.plan(0).first, judged.plan(0).first)


def test_judgements_on_the_way_know_no_calibration(parent, rows, tmp_path):
    told = {}
    for name, by in (("with", "macro_f1"), ("without", None)):
        run = tmp_path / name
        train = {"keep_best": by, "duration": "20 steps"}
        finetuned(parent, rows, run, settings={"kind": "multi"}, train=train)
        lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
        told[name] = [line["held_out"] for line in lines if "held_out" in line]
    assert len(told["with"]) > 3 and told["with"] == told["without"]


# === What a run begins with ===


def test_a_model_is_not_trained_on_ids_of_another_tokenizer(desk, parent, rows, tmp_path):
    pieces = list(PIECES)
    pieces[-1], pieces[-2] = pieces[-2], pieces[-1]
    Tokenizer.of(pieces).save(parent)
    with pytest.raises(UserError, match="is not the one the model was trained with"):
        finetuned(parent, rows, tmp_path / "run")
    assert not (tmp_path / "run" / "bundle").exists()
    shards = tmp_path / "shards"
    (tmp_path / "c.txt").write_text("\n\n".join(f"{w} is late.\nIt is {w}." for w in WORDS * 9))
    with silence():
        files = [tmp_path / "c.txt"]
        api.prepare(api.PrepareRecipe(files=files, tokenizer=parent, out=shards))
    more = pretraining(desk, tmp_path / "more", data=shards, model=parent)
    with pytest.raises(UserError, match="is not the one the model was trained with"):
        api.pretrain(more)
    TOKENIZER.save(parent)  # now it is the shards that are wrong
    with pytest.raises(UserError, match="was prepared with another tokenizer"):
        api.pretrain(more)


def test_from_chance_is_from_chance_in_the_verb(parent, rows, tmp_path):
    theirs = load_file(parent / "model.safetensors")
    for scratch in (True, False):
        run = tmp_path / str(scratch)
        made = finetuned(
            parent, rows, run, scratch=scratch, train={"duration": "1 steps", "lr": 1e-9}
        )
        ours = load_file(made.bundle / "model.safetensors")
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        assert torch.allclose(ours[name], theirs[name], atol=1e-5) != scratch


def test_a_fresh_run_begins_at_the_loss_of_guessing_by_frequency(desk, tmp_path):
    recipe = pretraining(desk, tmp_path / "run", task="mlm", train={"lr": 1e-9})
    made = api.pretrain(recipe)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    assert first["mlm"] < made.unigram + 0.3


def test_damaged_shards_are_not_learned_from(desk, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(desk / "shards", shards)
    ids = next(shards.glob("shards/*/ids.npy"))
    whole = bytearray(ids.read_bytes())
    whole[-1] ^= 1
    ids.write_bytes(whole)
    for change in ({"data": shards}, {"judge_on": {"other": shards}}):
        with pytest.raises(UserError, match=r"ids\.npy"):
            api.pretrain(pretraining(desk, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_a_run_is_of_the_model_it_began_with(parent, rows, tmp_path):
    finetuned(parent, rows, tmp_path / "run")
    weights = load_file(parent / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, parent / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        finetuned(parent, rows, tmp_path / "run")


def test_folding_goes_where_the_model_goes(rows, tmp_path):
    folding = Tokenizer.of(PIECES, fold=Fold(width=True))
    card = Card(task="mlm", tokenizer=folding.hash, fold=folding.fold)
    parent = write_bundle(tmp_path / "wide", make_model(make_task("mlm")), folding, card)
    made = finetuned(parent, rows, tmp_path / "run")
    (tmp_path / "pieces.txt").write_text("zz\n")
    recipe = api.ExtendRecipe(
        model=made.bundle, out=tmp_path / "x", from_file=tmp_path / "pieces.txt"
    )
    for folder in (made.bundle, api.extend(recipe).out):
        found = load_tokenizer(folder)
        assert found.tokenize(["ＬＡＴＥ"])[0].tolist() == found.tokenize(["late"])[0].tolist()
        data = tmp_path / "q.jsonl"
        data.write_text('{"text": "late"}\n{"text": "ＬＡＴＥ"}\n', "utf-8")
        out = tmp_path / "o.jsonl"
        api.predict(api.PredictRecipe(model=folder, data=data, out=out, device="cpu"))
        one, other = map(json.loads, out.read_text("utf-8").splitlines())
        assert one["prediction"] == other["prediction"]


def test_a_table_goes_back_to_the_spreadsheet_it_is_from(parent, rows, tmp_path):
    made = finetuned(parent, rows, tmp_path / "run")
    text, mark = "text\nthe lamp\n很晚\n", "\ufeff"
    for encoding, wanted in (("utf-8", ""), ("utf-8-sig", mark), ("gb18030", mark)):
        (tmp_path / "given.csv").write_text(text, encoding)
        for suffix, begins in ((".csv", wanted), (".jsonl", ""), (".tsv", "")):
            given = {"encoding": encoding.removesuffix("-sig"), "out": tmp_path / f"out{suffix}"}
            recipe = {"model": made.bundle, "data": tmp_path / "given.csv", "device": "cpu"}
            api.predict(api.PredictRecipe.model_validate({**recipe, **given}))
            written = given["out"].read_text("utf-8")
            assert written.startswith(mark) == bool(begins) and "很晚" in written
    wrong = {**recipe, "out": tmp_path / "out.csv", "encoding": "gb1803"}
    with pytest.raises(UserError, match="gb1803"):
        api.predict(api.PredictRecipe.model_validate(wrong))


# === How a model is trained ===


def settings_of(**given):
    return api.TrainSettings.model_validate({"precision": "fp32", **given})


@pytest.mark.parametrize("name", ["mlm", "rtd", "seq2seq"])
def test_every_dropout_is_the_one_that_was_asked_for(name):
    task = make_task(name)
    learner = learner_for(make_model(task), task, settings_of(dropout=0.3))
    parts = list(learner.model.modules())
    assert {p.share for p in parts if isinstance(p, Dropout)} == {0.3}
    assert {p.attention_dropout for p in parts if isinstance(p, Layer)} == {0.3}


def test_every_setting_reaches_the_optimizer():
    task = make_task("mlm")
    given = {"decay": 0.03, "beta2": 0.9, "eps": 1e-4, "clip": 0.5, "optimizer": "muon"}
    optimizer = learner_for(make_model(task), task, settings_of(**given)).optimizer
    assert (optimizer.betas, optimizer.eps, optimizer.clip) == ((0.9, 0.9), 1e-4, 0.5)
    assert set(optimizer.decays) == {0.0, 0.03} and any(optimizer.parts)
    plain = learner_for(make_model(task), task, settings_of()).optimizer
    assert not any(plain.parts)


def test_every_pass_of_every_step_has_noise_of_its_own(parent, rows, tmp_path, monkeypatch):
    keys = []
    reseed = Noise.reseed

    def spy(self, *key):
        keys.append(key)
        reseed(self, *key)

    monkeypatch.setattr(Noise, "reseed", spy)
    train = {"duration": "3 steps", "batch": 16, "micro_tokens": 100, "seed": 4}
    finetuned(parent, rows, tmp_path / "run", train=train)
    steps = sorted({step for _, step, _, _ in keys})
    assert steps == [0, 1, 2] and len(set(keys)) == len(keys)
    assert all(seed == 4 and rank == 0 for seed, _, _, rank in keys)
    assert {number for _, step, number, _ in keys if step == 1} >= {0, 1}


def test_the_models_of_a_verb_are_written_through_their_masters(desk, tmp_path):
    made = api.pretrain(pretraining(desk, tmp_path / "run", train={"precision": "bf16"}))
    last = max((tmp_path / "run" / "checkpoints").iterdir())
    master = load_file(last / "state.safetensors")["master.encoder.embeddings.tokens.weight"]
    weights = load_file(made.bundle / "model.safetensors")
    table = weights["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(table, master) and not torch.equal(table, table.bfloat16().float())


def test_one_process_at_a_time_works_on_a_run(parent, rows, tmp_path):
    finetuned(parent, rows, tmp_path / "run")
    with alone_in(tmp_path / "run"), pytest.raises(UserError, match="worked on by another process"):
        finetuned(parent, rows, tmp_path / "run")


def test_only_the_head_is_new_in_what_is_adopted(parent, rows, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(models, "say", said.append)
    finetuned(parent, rows, tmp_path / "run")
    new = next(line for line in said if line.startswith("new in the model"))
    assert "classify" in new and "encoder" not in new
