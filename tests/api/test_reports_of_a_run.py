"""Laws of where reports lie and what they call a model: each its own, and nothing in vain."""

import json
from importlib import import_module
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


def test_models_beside_the_first_are_judged_as_alone_and_told_apart_from_it(
    run, tmp_path, monkeypatch
):
    data = run.parent / "test.jsonl"
    alone = evaluated(run / "best", data, out=tmp_path / "alone").evaluation
    lines = []
    monkeypatch.setattr(import_module("clozeworks.api.evaluate"), "say", lines.append)
    made = evaluated(run / "bundle", data, out=tmp_path / "both", beside=[run / "best"])
    said = "\n".join(lines)
    assert made.beside == [alone] and made.evaluation.name == "kb"
    written = json.loads((tmp_path / "both" / "beside-1.json").read_text("utf-8"))
    assert written == json.loads(alone.model_dump_json(exclude_none=True))
    assert "kb/best" in made.report.read_text("utf-8")
    gain = 100 * (made.evaluation.metrics.accuracy - alone.metrics.accuracy)
    assert f"{gain:+.2f} points of rows are right with kb more than with kb/best" in said
    assert "kb: accuracy" in said and "kb/best: accuracy" in said


def test_a_baseline_learns_from_its_rows_and_stands_beside_the_model(run, tmp_path):
    data = run.parent / "test.jsonl"
    rows = [
        {"text": f"{'early' if i % 2 else 'late'} {i}", "label": "ab"[i % 2]} for i in range(40)
    ]
    (run.parent / "told.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    rows = [
        {"text": f"so {'early' if i % 3 else 'late'}", "label": "ba"[i % 3 == 0]} for i in range(9)
    ]
    (run.parent / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    asked = run.parent / "asked.jsonl"
    made = evaluated(
        run / "bundle", asked, out=tmp_path / "out", baseline=run.parent / "told.jsonl"
    )
    (plain,) = made.beside
    assert plain.name == "TF-IDF + logistic regression" and plain.metrics.accuracy == 1.0
    assert plain.name in made.report.read_text("utf-8")
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        evaluated(run / "bundle", data, baseline=tmp_path / "absent.jsonl")


def test_models_called_alike_are_told_apart_by_the_folders_above(run, tmp_path):
    data = run.parent / "test.jsonl"
    other = copytree(run / "bundle", tmp_path / "deep" / "kb" / "bundle")
    made = evaluated(run / "bundle", data, out=tmp_path / "out", beside=[other])
    names = [made.evaluation.name, made.beside[0].name]
    assert names == [f"{run.parent.name}/kb", "deep/kb"]


def test_a_model_that_answers_another_question_is_refused_before_any_row_is_read(run, tmp_path):
    recipe = {
        "task": "classify",
        "data": run.parent / "numbers.jsonl",
        "dev": run.parent / "numbers.jsonl",
        "model": run.parent / "bert",
        "out": run.parent / "stars",
        "settings": {"max_length": 16, "kind": "regression"},
        "train": {"duration": "1 steps", "batch": 4},
        "device": "cpu",
    }
    rows = [{"text": f"late order {i}", "label": i} for i in range(8)]
    (run.parent / "numbers.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    api.finetune(api.FinetuneRecipe.model_validate(recipe))
    message = "stars/bundle was trained for 'classify' of kind 'regression' and .*kind 'single'"
    with pytest.raises(UserError, match=message):
        evaluated(run / "bundle", tmp_path / "absent.jsonl", beside=[run.parent / "stars/bundle"])
    with pytest.raises(
        UserError, match="one class, and this model was trained for 'classify' of k"
    ):
        numbers = run.parent / "numbers.jsonl"
        evaluated(run.parent / "stars/bundle", numbers, baseline=numbers)
