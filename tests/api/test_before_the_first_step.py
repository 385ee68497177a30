"""What cannot come to anything is found before the first step, and nothing is made."""

import json

import pytest

from clozeworks import api
from clozeworks.core.errors import UserError
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
    with pytest.raises(
        UserError, match=rf"keep_best '{wish}' is not known .*choices: accuracy, macro_f1\)"
    ):
        api.finetune(
            api.FinetuneRecipe.model_validate({**given, "out": tmp_path / "run", "train": train})
        )
    assert not (tmp_path / "run").exists()


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
