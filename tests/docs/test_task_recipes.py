"""Every task has a recipe and example rows in both languages, and they run as they are."""

import json
import re
from pathlib import Path

import pytest

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.config import read_toml
from clozeworks.interop.huggingface import write_bundle
from clozeworks.tasks import TASKS
from tiny import TOKENIZER, make_model, make_task

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "tasks"
LEARNED = [name for name in TASKS.names() if not TASKS.get(name).from_shards]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A pretrained model of a few thousand numbers."""
    task = make_task("mlm+nsp")
    card = Card(task=task.name, settings=task.settings)
    return write_bundle(
        tmp_path_factory.mktemp("model") / "bert", make_model(task), TOKENIZER, card
    )


def rows_of(name):
    return [
        json.loads(line) for line in (RECIPES / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]


def test_every_task_has_one():
    assert {path.stem for path in RECIPES.glob("*.toml")} == {*LEARNED, "fill-mask"}
    assert {path.stem for path in RECIPES.glob("*.jsonl")} == {*LEARNED, "fill-mask"}


@pytest.mark.parametrize("name", [*LEARNED, "fill-mask"])
def test_its_rows_are_english_and_chinese(name):
    told = [json.dumps(row, ensure_ascii=False) for row in rows_of(name)]
    chinese = sum(re.search("[\u4e00-\u9fff]", row) is not None for row in told)
    assert chinese >= 3 and (name == "seq2seq" or chinese <= len(told) - 3)


@pytest.mark.parametrize("name", LEARNED)
def test_it_runs(name, bert, tmp_path, monkeypatch):
    """As it is, but for a small model and a step of training."""
    monkeypatch.chdir(ROOT)
    values = read_toml(RECIPES / f"{name}.toml")
    data = Path(values["data"])
    values |= {"model": bert, "out": tmp_path / "run"}
    values["train"] |= {"duration": "1 steps"}
    recipe = api.FinetuneRecipe.model_validate(values)
    assert recipe.task == name and recipe.settings
    made = api.finetune(recipe)
    api.evaluate(api.EvaluateRecipe(model=made.bundle, data=data, out=tmp_path / "report"))
    out = tmp_path / "predicted.jsonl"
    api.predict(api.PredictRecipe(model=made.bundle, data=data, out=out))
    assert len(out.read_text("utf-8").splitlines()) == len(rows_of(name))


def test_blanks_are_filled(bert, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = read_toml(RECIPES / "fill-mask.toml")
    out = tmp_path / "filled.jsonl"
    api.predict(api.PredictRecipe.model_validate({**values, "model": bert, "out": out}))
    filled = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    blank = ["[MASK]" in row["text"] for row in rows_of("fill-mask")]
    assert [bool(row["prediction"]["fillings"]) for row in filled] == blank
