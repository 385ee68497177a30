"""Every objective through the verb: what is written, taken up again, fine-tuned, and refused."""

import json
from importlib import import_module

import pytest
import transformers
from safetensors.torch import load_file

from clozeworks import api
from clozeworks.core.bundle import GENERATOR, open_bundle
from clozeworks.core.errors import UserError

SMALL = {"hidden_size": 32, "num_heads": 4, "inner_size": 64, "num_layers": 2}
STEPS = api.PretrainSettings(duration="2 steps", batch=512, lr=1e-3)


def pretrained(desk, out, **given):
    recipe = {"data": desk / "shards", "out": out, "train": STEPS, "max_length": 48, **given}
    if "model" not in given:
        recipe["encoder"] = SMALL
    return api.pretrain(api.PretrainRecipe(**recipe))


def said_while(monkeypatch, work):
    """The result of something, and what is said of the model it takes up."""
    lines = []
    monkeypatch.setattr("clozeworks.api.model.say", lines.append)
    return work(), lines


@pytest.mark.parametrize(
    ("task", "family", "kind", "accuracies"),
    [
        ("mlm+nsp", "bert", "BertForPreTraining", {"mlm", "nsp"}),
        ("mlm+sop", "albert", "AlbertForPreTraining", {"mlm", "sop"}),
        ("rtd", "electra", "ElectraForPreTraining", {"rtd"}),
    ],
)
def test_what_is_made_opens_there_and_is_judged(desk, tmp_path, task, family, kind, accuracies):
    made = pretrained(desk, tmp_path / "run", task=task, family=family)
    _, told = getattr(transformers, kind).from_pretrained(made.bundle, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    shares = {f"{name}_accuracy" for name in accuracies}
    assert shares == {name for name in made.held_out if name.endswith("_accuracy")}
    assert all(0 <= made.held_out[name] <= 1 for name in shares)
    assert (made.label_share is None) == (task == "rtd")
    assert open_bundle(made.bundle).card.task == task


def test_replaced_tokens_go_on_with_their_generator(desk, tmp_path, monkeypatch):
    first = pretrained(desk, tmp_path / "first", task="rtd", family="electra")
    again, lines = said_while(
        monkeypatch,
        lambda: pretrained(desk, tmp_path / "again", task="rtd", model=first.bundle, max_length=64),
    )
    assert not [line for line in lines if "new in the model" in line]
    inputs = json.loads((tmp_path / "again" / "run.json").read_text("utf-8"))["inputs"]
    assert f"{GENERATOR}/model.safetensors" in inputs
    assert api.info(api.InfoRecipe(path=again.bundle))["generator"].endswith(GENERATOR)
    tuned = api.finetune(
        api.FinetuneRecipe(
            task="classify",
            data=desk / "rows.jsonl",
            model=again.bundle,
            out=tmp_path / "tuned",
            train={"duration": "1 steps"},
        )
    )
    assert open_bundle(tuned.bundle).generator is None
    leaving = []
    monkeypatch.setattr(import_module("clozeworks.api.convert"), "say", leaving.append)
    api.convert(api.ConvertRecipe(source=again.bundle, out=tmp_path / "converted"))
    assert any(line.endswith(f"for it, convert {again.bundle / GENERATOR}") for line in leaving)
    inner = api.ConvertRecipe(source=again.bundle / GENERATOR, out=tmp_path / "inner")
    assert api.convert(inner).heads == ["mlm"]


def test_an_extended_model_goes_on_with_its_generator(desk, tmp_path, monkeypatch):
    first = pretrained(desk, tmp_path / "first", task="rtd", family="electra")
    files = [desk / "corpus.txt"]
    recipe = {"model": first.bundle, "files": files, "pieces": 3, "positions": 600}
    made = api.extend(api.ExtendRecipe(**recipe, out=tmp_path / "more"))
    assert made.pieces
    both = [open_bundle(made.out), open_bundle(made.out).generator]
    for bundle in both:
        assert bundle.config["vocab_size"] == made.vocab_size
        assert bundle.config["max_position_embeddings"] == 600
    inner, outer = (load_file(b.path / "model.safetensors") for b in both)
    shared = [n for n in inner if "embeddings." in n and "project" not in n]
    assert shared and all(inner[name].equal(outer[name]) for name in shared)
    shards = {"tokenizer": made.out, "out": tmp_path / "shards"}
    api.prepare(api.PrepareRecipe(files=files, **shards))
    again = {"task": "rtd", "model": made.out, "data": tmp_path / "shards"}
    _, lines = said_while(monkeypatch, lambda: pretrained(desk, tmp_path / "again", **again))
    assert not [line for line in lines if "new in the model" in line]


def test_a_judge_from_elsewhere_gets_a_generator_of_its_own(desk, tmp_path, monkeypatch):
    first = pretrained(desk, tmp_path / "first", task="rtd", family="electra")
    (first.bundle / GENERATOR).rename(tmp_path / "thrown away")
    _, lines = said_while(
        monkeypatch, lambda: pretrained(desk, tmp_path / "again", task="rtd", model=first.bundle)
    )
    assert "new in the model, to be learned: generator" in lines


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"task": "rtd"}, r"no bert model has heads for rtd .*a family that has them: electra"),
        ({"task": "mlm+sop"}, r"choices: mlm, mlm\+nsp, nsp.*has them: albert"),
        ({"task": "nsp+sop"}, "nsp and sop need different pairs of segments"),
        ({"weights": {"npt": 2.0}}, "weight of 'npt' is not known; did you mean 'nsp'"),
        ({"weights": {"mlm": -1.0}}, "weight of mlm = -1 must be 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(desk, tmp_path, given, why):
    with pytest.raises(UserError, match=why):
        pretrained(desk, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_model_of_a_family_without_the_head_is_refused_before_it_is_trained(desk, tmp_path):
    made = pretrained(desk, tmp_path / "bert")
    with pytest.raises(UserError, match="no bert model has heads for rtd"):
        pretrained(desk, tmp_path / "run", task="rtd", model=made.bundle)
    assert not (tmp_path / "run").exists()


def test_documents_of_one_sentence_have_no_order_to_learn(desk, tmp_path):
    sentences = (desk / "corpus.txt").read_text("utf-8").replace("\n\n", "\n").split("\n")
    (tmp_path / "corpus.txt").write_text("\n\n".join(sentences[:300]), "utf-8")
    recipe = {"tokenizer": desk / "tokenizer", "out": tmp_path / "shards"}
    api.prepare(api.PrepareRecipe(files=[tmp_path / "corpus.txt"], **recipe))
    given = {"task": "mlm+sop", "family": "albert", "data": tmp_path / "shards"}
    with pytest.raises(UserError, match="no pair of sentences to learn from"):
        pretrained(desk, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
