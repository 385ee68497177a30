"""Laws of where reports lie and what they call a model: each its own, and nothing in vain."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.heads import Model, encoder_of
from tiny import CONFIG, TOKENIZER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that kept its best model, and the rows of it."""
    folder = tmp_path_factory.mktemp("work")
    rows = [{"text": f"late order {i}", "label": "ab"[i % 2]} for i in range(12)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    model = Model(encoder_of(CONFIG), None, {})
    recipe = {
        "task": "classify",
        "data": folder / "test.jsonl",
        "dev": folder / "test.jsonl",
        "model": write_bundle(folder / "bert", model, TOKENIZER, Card()),
        "out": folder / "kb",
        "settings": {"max_length": 16},
        "train": {"duration": "2 steps", "batch": 4, "keep_best": "accuracy"},
        "device": "cpu",
    }
    api.finetune(api.FinetuneRecipe.model_validate(recipe))
    return folder / "kb"


def evaluated(model, data, **given):
    return api.evaluate(api.EvaluateRecipe(model=model, data=data, device="cpu", **given))


def test_two_models_of_a_run_have_a_report_each_under_a_name_each(run):
    data = run.parent / "test.jsonl"
    finished, best = evaluated(run / "bundle", data), evaluated(run / "best", data)
    assert finished.report == run / "evaluation-test" / "report.html"
    assert best.report == run / "best-evaluation-test" / "report.html"
    assert (finished.evaluation.name, best.evaluation.name) == ("kb", "kb/best")
    for made, name in ((finished, "kb"), (best, "kb/best")):
        assert f"<title>{name} · test.jsonl</title>" in made.report.read_text("utf-8")


def test_models_of_no_run_are_called_as_their_folders(run, tmp_path):
    data = run.parent / "test.jsonl"
    for name in ("one", "other"):
        made = evaluated(copytree(run / "bundle", tmp_path / name), data)
        assert made.report == tmp_path / f"{name}-evaluation-test" / "report.html"
        assert made.evaluation.name == name
    moved = evaluated(copytree(run / "bundle", tmp_path / "stars" / "bundle"), data)
    assert moved.evaluation.name == "stars"


def test_a_model_is_named_from_within_its_folder_too(run, monkeypatch):
    data = run.parent / "test.jsonl"
    monkeypatch.chdir(run / "best")
    assert evaluated(Path(), data).report == run / "best-evaluation-test" / "report.html"
    monkeypatch.chdir(run / "checkpoints")
    assert evaluated(Path("../best"), data).evaluation.name == "kb/best"


@pytest.mark.parametrize("inside", ["", "deeper/report"])
def test_a_file_in_the_way_of_the_report_is_told_before_anything_is_read(inside, run):
    data = run.parent / "test.jsonl"
    with pytest.raises(UserError, match=r"test.jsonl is a file, and the report needs a folder"):
        evaluated(run / "no-model", data, out=data / inside)
