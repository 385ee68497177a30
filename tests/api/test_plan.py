"""The plan of a run: what it writes can be trained from, and nothing of the run is begun."""

from importlib import import_module

import pytest
import tomli_w

from clozeworks import api
from clozeworks.core.config import read_toml
from clozeworks.core.errors import UserError
from clozeworks.train import plan as planning

SMALL = {"hidden_size": 32, "num_heads": 4, "inner_size": 64, "num_layers": 2}


@pytest.fixture
def recipe(desk, tmp_path, monkeypatch):
    """A recipe on the desk's shards, of which small sizes are tried."""
    for module in (planning, import_module("clozeworks.api.plan")):
        monkeypatch.setattr(module, "SIZES", (256, 512))
    values = {
        "task": "mlm",
        "data": str(desk / "shards"),
        "out": str(tmp_path / "run"),
        "max_length": 48,
        "encoder": SMALL,
        "train": {"seed": 3, "optimizer": "muon"},
    }
    (tmp_path / "run.toml").write_text(tomli_w.dumps(values), "utf-8")
    return tmp_path / "run.toml"


def test_what_is_proposed_can_be_trained_and_says_how_near_it_was(recipe, tmp_path, monkeypatch):
    out = tmp_path / "planned.toml"
    made = api.plan(api.PlanRecipe(run=recipe, minutes=0.02, out=out))
    assert not (tmp_path / "run").exists()
    assert made.lr == 2e-3 and made.batch == 256 and made.passes == 1
    before, after = read_toml(recipe), read_toml(out)
    assert after.pop("planned_tokens") == made.tokens == made.steps * made.batch
    proposed = {"duration", "micro_tokens", "batch", "unit", "lr"}
    assert {k: v for k, v in after["train"].items() if k not in proposed} == before["train"]
    assert {**after, "train": before["train"]} == before
    lines = []
    monkeypatch.setattr(import_module("clozeworks.api.pretrain"), "say", lines.append)
    api.pretrain(api.PretrainRecipe.model_validate(read_toml(out)))
    assert any(line.startswith(f"planned: {made.tokens:,} tokens; read: ") for line in lines)


def test_a_plan_is_only_told_where_no_file_is_named(recipe, tmp_path):
    api.plan(api.PlanRecipe(run=recipe, minutes=0.02))
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_what_cannot_be_planned_is_refused(recipe, tmp_path):
    with pytest.raises(UserError, match="already exists"):
        api.plan(api.PlanRecipe(run=recipe, out=recipe))
    with pytest.raises(UserError, match=r"none\.toml"):
        api.plan(api.PlanRecipe(run=tmp_path / "none.toml"))
    strange = tmp_path / "strange.toml"
    strange.write_text(recipe.read_text("utf-8").replace("max_length", "max_lenght"), "utf-8")
    with pytest.raises(UserError, match=r"strange.toml.*max_lenght.*max_length"):
        api.plan(api.PlanRecipe(run=strange))
    strange.write_text(recipe.read_text("utf-8") + '\nkeep_best = "nonsense"\n', "utf-8")
    with pytest.raises(UserError, match="keep_best"):
        api.plan(api.PlanRecipe(run=strange))
