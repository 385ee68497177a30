"""Every objective through the verb: what is written, taken up again, fine-tuned, and refused."""

import json
from importlib import import_module

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file

from clozeworks import api
from clozeworks.api.pairing import check_pairs
from clozeworks.core.bundle import GENERATOR, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.pairs import Plan

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


def shards_of(desk, folder, documents):
    """Shards of documents, each a list of lines."""
    (folder / "corpus.txt").write_text("\n\n".join(map("\n".join, documents)), "utf-8")
    recipe = {"tokenizer": desk / "tokenizer", "out": folder / "shards"}
    api.prepare(api.PrepareRecipe(files=[folder / "corpus.txt"], **recipe))
    return folder / "shards"


def sentences_of(desk):
    return (desk / "corpus.txt").read_text("utf-8").replace("\n\n", "\n").split("\n")


@pytest.mark.parametrize(
    ("task", "family", "error"),
    [
        ("mlm+sop", "albert", "no pair of sentences to learn from"),
        ("mlm+nsp", "bert", "every second segment is from elsewhere.*of several sentences"),
    ],
)
def test_documents_of_one_sentence_give_nothing_to_tell(desk, tmp_path, task, family, error):
    data = shards_of(desk, tmp_path, [[sentence] for sentence in sentences_of(desk)[:300]])
    with pytest.raises(UserError, match=error):
        pretrained(desk, tmp_path / "run", task=task, family=family, data=data)
    assert not (tmp_path / "run").exists()


def test_pairs_of_which_nearly_all_are_alike_are_said_to_be(desk, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("clozeworks.api.pairing.say", said.append)
    pretrained(desk, tmp_path / "even")
    assert not said
    sentences = sentences_of(desk)
    few = [[sentence] for sentence in sentences[:300]] + [sentences[300:400]]
    pretrained(desk, tmp_path / "uneven", data=shards_of(desk, tmp_path, few))
    assert len(said) == 1 and "second segments are from elsewhere" in said[0]


def test_much_trimming_is_said(monkeypatch):
    said = []
    monkeypatch.setattr("clozeworks.api.pairing.say", said.append)
    cut = np.array([[0, 9], [9, 20]])
    for trimmed in (0, 100):
        check_pairs(Plan(cut, cut + 100, np.array([0, 1]), trimmed), "order")
    assert len(said) == 1 and "longer --max-length" in said[0]


def test_one_document_cannot_be_divided(desk, tmp_path):
    data = shards_of(desk, tmp_path, [sentences_of(desk)])
    with pytest.raises(UserError, match=r"one document, which cannot be divided.*at least two"):
        pretrained(desk, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_two_documents_leave_one_to_learn_from_and_no_pairs(desk, tmp_path):
    sentences = sentences_of(desk)
    data = shards_of(desk, tmp_path, [sentences[:50], sentences[50:100]])
    with pytest.raises(UserError, match="no second segment is from elsewhere"):
        pretrained(desk, tmp_path / "run", data=data)
    pretrained(desk, tmp_path / "run", data=data, task="mlm")
