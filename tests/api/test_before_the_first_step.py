"""What cannot come to anything is found before the first step, and nothing is made."""

import json

import numpy as np
import pytest

from clozeworks import api
from clozeworks.api import sentences
from clozeworks.api.sentences import check_pairs
from clozeworks.core.errors import UserError
from clozeworks.data.pairs import Plan
from clozeworks.train.best import merit
from tiny import make_task

SMALL = {"hidden_size": 32, "num_heads": 4, "inner_size": 64, "num_layers": 2}
STEPS = {"duration": "2 steps", "batch": 512}


def recipe_of(desk, out, train=STEPS, **given):
    fixed = {"data": desk / "shards", "out": out, "max_length": 48, "encoder": SMALL}
    return api.PretrainRecipe.model_validate({**fixed, "train": train, **given})


@pytest.mark.parametrize(
    ("task", "family"), [("mlm+nsp", "bert"), ("mlm+sop", "albert"), ("rtd", "electra")]
)
def test_every_number_that_is_judged_may_be_named_and_no_other(desk, tmp_path, task, family):
    more = {
        "judge_on": {"same": desk / "shards"},
        "probe": {"data": desk / "rows.jsonl", "times": 1},
    }
    given = {"task": task, "family": family, **more}
    with pytest.raises(UserError, match=r"keep_best 'perplexity' is not known") as refusal:
        train = {**STEPS, "keep_best": "perplexity"}
        api.pretrain(recipe_of(desk, tmp_path / "run", train, **given))
    assert not (tmp_path / "run").exists()
    named = str(refusal.value).split("choices: ")[1].rstrip(")").split(", ")
    judged = api.pretrain(recipe_of(desk, tmp_path / "run", **given)).held_out
    assert set(named) == {"total", *judged} - {"probe_majority"}
    for name in named:
        assert merit(judged, make_task(task).weights, name) is not None


@pytest.mark.parametrize(
    ("wish", "nearest"),
    [("probe_accuracy", ""), ("nsp_acuracy", "did you mean 'nsp_accuracy'"), ("general/mlm", "")],
)
def test_a_number_that_this_run_does_not_judge_is_none(wish, nearest, desk, tmp_path):
    with pytest.raises(UserError, match=rf"keep_best '{wish}' is not known.*{nearest}"):
        api.pretrain(recipe_of(desk, tmp_path / "run", {**STEPS, "keep_best": wish}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wish", ["total", "f1"])
def test_fine_tuning_knows_its_numbers_too(wish, desk, tmp_path):
    train = {"duration": "2 steps", "keep_best": wish}
    model = api.pretrain(recipe_of(desk, tmp_path / "model")).bundle
    given = {"task": "classify", "data": desk / "rows.jsonl", "model": model}
    with pytest.raises(UserError, match=rf"keep_best '{wish}' is not known .*choices: accuracy\)"):
        api.finetune(
            api.FinetuneRecipe.model_validate({**given, "out": tmp_path / "run", "train": train})
        )
    assert not (tmp_path / "run").exists()


# === Pairs that teach nothing ===


def prepared(desk, folder, documents):
    """Shards of some documents, each a list of sentences."""
    (folder / "corpus.txt").write_text("\n\n".join(map("\n".join, documents)), "utf-8")
    recipe = {"tokenizer": desk / "tokenizer", "out": folder / "shards"}
    api.prepare(api.PrepareRecipe(files=[folder / "corpus.txt"], **recipe))
    return folder / "shards"


SENTENCES = [f"the {a} {b} lamp late {c}." for a in "abcd" for b in "efgh" for c in "ijkl"]


@pytest.mark.parametrize(
    ("documents", "fault"),
    [
        ([[sentence] for sentence in SENTENCES], "are from elsewhere in pairs of 48 tokens"),
        ([SENTENCES[:30], SENTENCES[30:]], "are in their place in pairs of 48 tokens"),
    ],
)
def test_pairs_of_a_single_label_are_refused(documents, fault, desk, tmp_path):
    shards = prepared(desk, tmp_path, documents)
    with pytest.raises(UserError, match=rf"all second segments {fault}.*learn without pairs"):
        api.pretrain(recipe_of(desk, tmp_path / "run", data=shards))
    assert not (tmp_path / "run").exists()
    assert api.pretrain(recipe_of(desk, tmp_path / "run", data=shards, task="mlm")).held_out


@pytest.mark.parametrize(
    ("ones", "trimmed", "words"),
    [
        (50, 0, []),
        (70, 400, []),
        (71, 0, ["71% of second segments are from elsewhere"]),
        (29, 0, ["29% of second segments are from elsewhere"]),
        (50, 700, ["41% of the text is trimmed away"]),
        (99, 5000, ["99% of second segments", "83% of the text"]),
    ],
)
def test_uneven_and_much_trimmed_pairs_are_told(ones, trimmed, words, monkeypatch):
    said = []
    monkeypatch.setattr(sentences, "say", said.append)
    first, second = np.tile([[0, 4]], (100, 1)), np.tile([[4, 7]], (100, 1))
    check_pairs(Plan(first, second, (np.arange(100) < ones).astype(np.int64), trimmed), "next", 10)
    assert len(said) == len(words)
    for line, word in zip(said, words, strict=True):
        assert word in line and "longer --max-length" in line


# === Divergence ===


def test_a_run_that_diverges_leaves_a_diagnosis_and_what_it_knew(desk, tmp_path):
    train = {"duration": "30 steps", "batch": 512, "lr": 1e6, "checkpoint_minutes": 1e-9}
    recipe = recipe_of(desk, tmp_path / "run", {**train, "clip": 0.0, "precision": "fp32"})
    with pytest.raises(UserError, match=r"the gradient became (nan|inf) at step") as end:
        api.pretrain(recipe)
    assert f"is in {tmp_path / 'run' / 'rescued'}: --model takes it up" in str(end.value)
    found = told_of(tmp_path / "run")
    assert found[-1]["name"] == "diverged" and "Lower --train.lr (1e+06)" in found[-1]["said"]
    assert (tmp_path / "run" / "rescued" / "model.safetensors").exists()
    with pytest.raises(UserError, match=r"is in .*rescued"):
        api.pretrain(recipe)
    assert told_of(tmp_path / "run") == found


def told_of(run):
    return json.loads((run / "diagnosis.json").read_text("utf-8"))["found"]
