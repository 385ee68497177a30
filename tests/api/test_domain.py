"""Laws of going on from a model on a field's text, and of what such a run is watched with."""

import json
import random
import warnings

import pytest
import torch

from clozeworks import api, cli
from clozeworks.api import watch as watch_module
from clozeworks.api.pretrain import _judged_on, _split
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.shards import Shards
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.model.families import FAMILIES, sized
from clozeworks.model.heads import encoder_of
from clozeworks.tasks import create
from clozeworks.text.load import load_tokenizer
from clozeworks.train.fit import Interrupted
from clozeworks.train.loop import held_out_losses
from tiny import CLOCKED, TOKENIZER, VOCABULARY, WORDS

SMALL = {"hidden_size": 32, "num_heads": 4, "inner_size": 64, "pad_id": VOCABULARY.pad}
CLASSES = {name: FAMILIES.get(name).architectures for name in FAMILIES.names()}
MASKED = [name for name, held in CLASSES.items() if not held or frozenset({"mlm"}) in held]
SHORT = api.PretrainSettings(duration="30 steps", batch=256, lr=3e-3, precision="fp32")


def write_shards(folder, name, words, seed=0):
    """A prepared corpus in which words follow one another in a set order, from a random start."""
    chance = random.Random(seed)
    documents = []
    for number in range(80):
        start = chance.randrange(len(words))
        line = " ".join(words[(start + i) % len(words)] for i in range(20))
        documents.append(f"{line}.\n{line}, {number}.\n")
    (folder / f"{name}.txt").write_text("\n".join(documents), "utf-8")
    recipe = {"files": [folder / f"{name}.txt"], "tokenizer": folder / "tokenizer"}
    api.prepare(api.PrepareRecipe(**recipe, out=folder / name))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Two corpora: a field's, and general text; rows to probe on."""
    folder = tmp_path_factory.mktemp("desk")
    TOKENIZER.save(folder / "tokenizer")
    write_shards(folder, "field", WORDS[:6])
    write_shards(folder, "general", WORDS[5:], seed=1)
    chance = random.Random(0)
    rows = []
    for _ in range(150):
        label = chance.choice(["order", "late"])
        words = [*chance.choices(WORDS[3:], k=4), label]
        rows.append(json.dumps({"text": " ".join(words), "label": label}))
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    return folder


def loaded(folder, name="bert", task="mlm"):
    """The folder of a random model of a family."""
    size = next(iter(FAMILIES.get(name).sizes))
    layers = {} if name == "modernbert" else {"num_layers": 2}  # its local ones are named
    config = sized(name, size, VOCABULARY.size, **SMALL, **layers)
    made = create(task, {}, VOCABULARY)
    model = made.build(encoder_of(config))
    initialise(model, 0.02, seed=3)
    if "mlm" in model.heads:  # a head whose biases are 0 is taken for a fresh one
        torch.nn.init.normal_(model.heads["mlm"].bias, std=0.02)
    return write_bundle(folder / name, model, TOKENIZER, Card(task=task, tokenizer=TOKENIZER.hash))


def losses_of(bundle, shards_folder, task_name="mlm"):
    """The held-out losses of a folder's model, computed beside the run."""
    shards = Shards.open(shards_folder)
    task = create(task_name, {}, VOCABULARY)
    model = open_model(open_bundle(bundle), task).model
    recipe = api.PretrainRecipe(data=shards_folder, out="nowhere", task=task_name, max_length=32)
    stream = _judged_on(recipe, shards, _split(recipe, shards)[1], task)
    return held_out_losses(model, task, stream, 16_384)


def recipe_of(desk, model, out, **more):
    given = {"task": "mlm", "max_length": 32, "train": SHORT, **more}
    return api.PretrainRecipe(data=desk / "field", model=model, out=out, **given)


@pytest.mark.parametrize("name", MASKED)
def test_every_family_goes_on_from_where_it_was(name, desk, tmp_path):
    model = loaded(tmp_path, name)
    made = api.pretrain(
        recipe_of(desk, model, tmp_path / "run", judge_on={"general": desk / "general"})
    )
    begun = losses_of(model, desk / "field")["mlm"]
    assert made.before["mlm"] == pytest.approx(begun, abs=1e-6)
    assert made.before["general/mlm"] == pytest.approx(
        losses_of(model, desk / "general")["mlm"], abs=1e-6
    )
    assert made.held_out["mlm"] < begun - 0.3
    ended = losses_of(made.bundle, desk / "field")["mlm"]
    assert made.held_out["mlm"] == pytest.approx(ended, abs=1e-6)
    assert made.held_out["general/mlm"] == pytest.approx(
        losses_of(made.bundle, desk / "general")["mlm"], abs=1e-6
    )


def test_what_training_did_to_both_texts_is_said(desk, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(watch_module, "say", said.append)
    general = {"general": desk / "general"}
    made = api.pretrain(recipe_of(desk, loaded(tmp_path), tmp_path / "run", judge_on=general))
    for name, key in (("this text", "mlm"), ("general", "general/mlm")):
        then, now = made.before[key], made.held_out[key]
        told = f"{name}: mlm {then:.4f} → {now:.4f} ({now - then:+.4f})"
        assert any(line.startswith(told) for line in said)


def test_a_recipe_file_names_other_texts(desk, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'data = "{desk}/field"\nout = "x"\n[judge_on]\ngeneral = "{desk}/general"\n'
        f'[probe]\ndata = "{desk}/rows.jsonl"\nsteps = [1, 2]\n',
        "utf-8",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cli._recipe(
            "pretrain", cli.VERBS["pretrain"], api.PretrainRecipe, ["--recipe", str(path)]
        )
    assert found.judge_on == {"general": desk / "general"}
    assert (found.probe.data, found.probe.steps) == (desk / "rows.jsonl", [1, 2])


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]


def judgements(run):
    return {line["step"]: line["held_out"] for line in metrics(run) if "held_out" in line}


def weights(run):
    return (run / "bundle" / "model.safetensors").read_bytes()


def test_a_probe_and_another_text_change_no_weight(desk, tmp_path):
    model = loaded(tmp_path, task="mlm+nsp")
    more = {"judge_on": {"general": desk / "general"}, "probe": {"data": desk / "rows.jsonl"}}
    train = SHORT.model_copy(update={"dropout": 0.1})
    plain = recipe_of(desk, model, tmp_path / "plain", task="mlm+nsp", train=train)
    api.pretrain(plain)
    api.pretrain(recipe_of(desk, model, tmp_path / "watched", task="mlm+nsp", train=train, **more))
    assert weights(tmp_path / "plain") == weights(tmp_path / "watched")
    steps = [
        [s for s in metrics(tmp_path / n) if "held_out" not in s] for n in ("plain", "watched")
    ]
    assert steps[0] == steps[1]


def test_the_probe_is_made_as_often_as_asked(desk, tmp_path):
    data = {"data": desk / "rows.jsonl"}
    for name, more, due in (
        ("evenly", {"times": 3}, [12, 21, 30]),
        ("chosen", {"steps": [1, 7, 8, 30]}, [3, 9, 30]),
    ):
        run = tmp_path / name
        api.pretrain(recipe_of(desk, None, run, size="tiny", probe={**data, **more}))
        judged = judgements(run)
        assert sorted(judged) == list(range(3, 31, 3))
        assert [step for step, numbers in judged.items() if "probe_accuracy" in numbers] == due
        assert [step for step, n in judged.items() if "probe_majority" in n] == due[:1]
        assert 0 <= judged[30]["probe_accuracy_first"] <= 1
        assert json.loads((run / "probe.json").read_text())["rows"] == 150


def test_a_stopped_run_is_watched_as_if_it_had_not_stopped(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(watch_module, "diagnose", lambda history, facts: dict(amiss(history)))
    model = loaded(tmp_path)
    more = {
        "judge_on": {"general": desk / "general"},
        "probe": {"data": desk / "rows.jsonl", "times": 4},
        "train": SHORT.model_copy(update={"checkpoint_minutes": 1e-6}),
    }
    whole = api.pretrain(recipe_of(desk, model, tmp_path / "whole", **more))
    out = tmp_path / "stopped"
    for stop_at in (7, 16, 24):
        with monkeypatch.context() as patch:
            saw = watch_module.Watch.saw

            def stopping(self, event, saw=saw, stop_at=stop_at):
                saw(self, event)
                if event.step == stop_at:
                    raise Interrupted("enough")

            patch.setattr(watch_module.Watch, "saw", stopping)
            with pytest.raises(Interrupted):
                api.pretrain(recipe_of(desk, model, out, **more))
    again = api.pretrain(recipe_of(desk, model, out, **more))
    assert metrics(out) == metrics(tmp_path / "whole")
    for name in ("diagnosis.json", "before.json", "probe.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert (again.before, again.held_out) == (whole.before, whole.held_out)
    finished = api.pretrain(recipe_of(desk, model, out, **more))
    assert finished.before == whole.before
    assert finished.held_out.keys() >= whole.held_out.keys()


def amiss(history):
    """A diagnosis that depends on all of the history, and finds something new now and then."""
    for judged in history.judged:
        if judged.step % 9 == 0:
            total = sum(s.loss * s.steps for s in history.stretches if s.last <= judged.step)
            yield f"after-{judged.step}", f"{total:.6f} over {judged.tokens} tokens"


def test_a_diagnosis_is_said_once_and_kept(desk, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(watch_module, "say", said.append)
    monkeypatch.setattr(watch_module, "diagnose", lambda history, facts: {"plateau": "It stands."})
    api.pretrain(recipe_of(desk, None, tmp_path / "run", size="tiny"))
    assert said.count("diagnosis: It stands.") == 1
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text("utf-8"))["found"]
    assert found == [{"name": "plateau", "step": 3, "said": "It stands."}]


def test_a_run_with_nothing_amiss_says_so_too(desk, tmp_path):
    api.pretrain(recipe_of(desk, None, tmp_path / "run", size="tiny"))
    assert json.loads((tmp_path / "run" / "diagnosis.json").read_text("utf-8")) == {"found": []}


def test_text_of_another_tokenizer_is_refused(desk, tmp_path):
    tokenizer = load_tokenizer(desk / "tokenizer").with_pieces(["parcels"])
    tokenizer.save(tmp_path / "tokenizer")
    recipe = {"files": [desk / "general.txt"], "tokenizer": tmp_path / "tokenizer"}
    api.prepare(api.PrepareRecipe(**recipe, out=tmp_path / "other"))
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        api.pretrain(
            recipe_of(desk, None, tmp_path / "run", size="tiny", judge_on={"g": tmp_path / "other"})
        )
    with pytest.raises(UserError, match="a text's name is a word without /"):
        api.pretrain(
            recipe_of(desk, None, tmp_path / "run", size="tiny", judge_on={"a/b": desk / "general"})
        )
    assert not (tmp_path / "run").exists()


def test_text_of_another_tokenizer_than_the_models_is_refused(desk, tmp_path):
    folder = loaded(tmp_path)
    card = json.loads((folder / "clozeworks.json").read_text("utf-8"))
    load_tokenizer(folder).with_pieces(["parcels"]).save(tmp_path / "tokenizer")
    recipe = {"files": [desk / "general.txt"], "tokenizer": tmp_path / "tokenizer"}
    api.prepare(api.PrepareRecipe(**recipe, out=tmp_path / "other"))
    for known in (card["tokenizer"], None):  # by its hash, or where none is known by its size
        (folder / "clozeworks.json").write_text(json.dumps({**card, "tokenizer": known}), "utf-8")
        with pytest.raises(UserError, match="prepared with another tokenizer than that of") as told:
            api.pretrain(
                api.PretrainRecipe(data=tmp_path / "other", model=folder, out=tmp_path / "run")
            )
        assert str(told.value).endswith(f"clozeworks prepare … --tokenizer {folder}")
    assert not (tmp_path / "run").exists()


def test_an_extended_model_learns_its_new_pieces(desk, tmp_path):
    """Extend, prepare, go on: held-out loss falls, and the new rows move."""
    lines = [f"{i} refundable parcels are refundable. lost parcels are not!" for i in range(60)]
    (tmp_path / "field.txt").write_text("\n\n".join(lines), "utf-8")
    made = api.extend(
        api.ExtendRecipe(
            model=loaded(tmp_path), files=[tmp_path / "field.txt"], out=tmp_path / "more", pieces=4
        )
    )
    assert made.pieces == ["refundable", "are", "not", "parcels"]
    recipe = {"files": [tmp_path / "field.txt"], "tokenizer": made.out}
    api.prepare(api.PrepareRecipe(**recipe, out=tmp_path / "shards"))
    given = {"task": "mlm", "max_length": 32, "train": SHORT}
    after = api.pretrain(
        api.PretrainRecipe(data=tmp_path / "shards", model=made.out, out=tmp_path / "run", **given)
    )
    assert after.held_out["mlm"] < after.before["mlm"] - 0.5
    task = create("mlm", {}, load_tokenizer(made.out).vocabulary)
    tables = [
        open_model(open_bundle(f), task).model.encoder.embeddings.tokens.weight.detach()
        for f in (made.out, after.bundle)
    ]
    moved = (tables[1] - tables[0]).norm(dim=1)
    assert (moved[-4:] > 0.1).all() and torch.isfinite(tables[1]).all()
