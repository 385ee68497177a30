"""Laws of `info` on model folders: what it says of one is what the model that is opened has."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from clozeworks import api
from clozeworks.api.convert import with_heads
from clozeworks.core.bundle import Card, Provenance, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.families import FAMILIES, sized
from clozeworks.model.heads import encoder_of
from tiny import LABELS, TOKENIZER, make_model, make_task

SMALL = {"hidden_size": 16, "num_heads": 2, "inner_size": 24}
THEIRS = BertConfig(
    vocab_size=len(TOKENIZER.pieces),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    id2label={0: "no", 1: "yes", 2: "perhaps"},
)


def info(path):
    return api.info(api.InfoRecipe(path=path))


def count(lines):
    return int(lines["parameters"].split()[0].replace(",", ""))


def family_models():
    for name in FAMILIES.names():
        for heads in FAMILIES.get(name).architectures or [frozenset(), frozenset({"mlm", "nsp"})]:
            yield pytest.param(name, heads, id=f"{name}-{'+'.join(sorted(heads))}")


@pytest.mark.parametrize(("name", "heads"), family_models())
def test_parameters_and_heads_are_those_of_the_model(name, heads, tmp_path):
    config = sized(name, "mini", len(TOKENIZER.pieces), **SMALL)
    model = with_heads(encoder_of(config), heads, LABELS)
    write_bundle(tmp_path / "model", model, TOKENIZER, Card(task="+".join(sorted(heads)) or None))
    lines = info(tmp_path / "model")
    assert count(lines) == sum(p.numel() for p in model.parameters())
    found = [] if lines["heads"].startswith("none") else lines["heads"].split(", ")
    assert [head for head in found if "pooler" not in head] == sorted(heads)
    assert lines["heads"].endswith("pooler") == (model.pooler is not None)
    assert lines["family"] == FAMILIES.get(name).model_type and "unknown" not in lines


def test_sizes_and_origin_are_said(tmp_path):
    task = make_task("classify")
    known = Provenance(
        parent="bert", data={"train.csv": "ab" * 32}, versions={"torch": "2.13.0"}, seed=7
    )
    card = Card(task="classify", labels=LABELS, tokenizer=TOKENIZER.hash, provenance=known)
    lines = info(write_bundle(tmp_path / "model", make_model(task), TOKENIZER, card))
    assert lines["encoder"] == "3 layers, width 32, 4 heads, feed-forward 48, 160 positions"
    assert lines["tokenizer"] == f"WordPiece, {len(TOKENIZER.pieces)} pieces, lower case"
    assert lines["labels"] == ", ".join(LABELS)
    assert lines["parent"] == "bert" and lines["seed"] == "7"
    assert lines["data"] == "train.csv (abababababab)" and lines["made with"] == "torch 2.13.0"


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_folders_from_elsewhere(form, tmp_path):
    """Copies of tied weights and buffers are not counted twice."""
    model = BertForMaskedLM(THEIRS)
    model.save_pretrained(tmp_path)
    if form.endswith(".bin"):
        (tmp_path / "model.safetensors").unlink()
        more = {"bert.embeddings.position_ids": torch.arange(512)[None]}
        torch.save({**model.state_dict(), **more}, tmp_path / form)
    lines = info(tmp_path)
    assert count(lines) == model.num_parameters() and "unknown" not in lines
    assert lines["heads"] == "mlm" and "labels" not in lines and "parent" not in lines
    assert lines["tokenizer"].startswith("none that can be used: ")


def test_labels_from_elsewhere(tmp_path):
    BertForSequenceClassification(THEIRS).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    lines = info(tmp_path)
    assert lines["labels"] == "no, yes, perhaps"
    assert lines["heads"] == "classify, and a pooler"
    assert lines["tokenizer"].startswith("WordPiece")


def test_what_is_too_much_and_what_is_missing(tmp_path):
    BertForMaskedLM(THEIRS).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: t for name, t in state.items() if not name.startswith("cls.")}
    save_file({**kept, "bert.extra.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    lines = info(tmp_path)
    assert lines["heads"] == "mlm (no weights)"
    assert lines["unknown"] == "extra.weight"


def test_a_tensorflow_checkpoint_is_described_before_its_vocabulary(public_weights, tmp_path):
    source = public_weights / "tf-bert-tiny-test"
    made = api.convert(api.ConvertRecipe(source=source, out=tmp_path / "out"))
    lines, after = info(source), info(made.out)
    assert "clozeworks convert" in lines["form"]
    same = ("family", "encoder", "vocabulary", "parameters", "heads", "tokenizer")
    assert [lines[name] for name in same] == [after[name] for name in same]
    assert info(source / "bert_model.ckpt") == lines


def test_models_by_name_and_a_hint_inside_a_cache(tmp_path, monkeypatch):
    home = tmp_path / "hub" / "models--ada--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("ab" * 20)
    model = make_model(make_task("mlm"))
    folder = write_bundle(home / "snapshots" / ("ab" * 20), model, TOKENIZER, Card())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert info("hub:ada/tiny")["heads"].startswith("mlm")
    for refused in (info, open_bundle):
        with pytest.raises(UserError, match="did you mean") as refusal:
            refused(home)
        assert str(refusal.value).endswith(f"{folder}?")


def test_a_file_cut_short_is_named(tmp_path):
    write_bundle(tmp_path / "model", make_model(make_task("mlm")), TOKENIZER, Card())
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or cut short"):
        info(tmp_path / "model")


def test_a_tokenizer_of_another_model_is_told(tmp_path):
    card = Card(task="mlm", tokenizer="0" * 64)
    folder = write_bundle(tmp_path / "model", make_model(make_task("mlm")), TOKENIZER, card)
    assert "not the one the model was trained with" in info(folder)["tokenizer"]
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(TOKENIZER.pieces)


def test_the_margin_of_answers_is_told_where_there_is_one(tmp_path):
    for name, margin in (("with", 1.25), ("without", None)):
        task = make_task("qa")
        task.calibration = task.calibration.model_copy(update={"margin": margin})
        card = Card(task="qa", settings=task.settings, calibration=task.calibration)
        write_bundle(tmp_path / name, make_model(task), TOKENIZER, card)
    assert info(tmp_path / "with")["margin"] == "1.250"
    assert "margin" not in info(tmp_path / "without")
