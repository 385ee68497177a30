"""Laws of what stands beside a model in its report: the same rows, the same question."""

import json
from importlib import import_module

import pytest

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from tiny import TOKENIZER, make_examples, make_model, make_task


def written(folder, name, labels=None, seed=0):
    """A model of a kind of task, as it begins."""
    task = make_task(name, labels)
    card = Card(
        task=task.name, settings=task.settings, labels=task.labels, tokenizer=TOKENIZER.hash
    )
    return write_bundle(folder, make_model(task, seed=seed), TOKENIZER, card)


def rows_of(path, name, count=24):
    rows = [e.model_dump(exclude_none=True) for e in make_examples(make_task(name), count)]
    if name == "classify:multi":
        rows = [{**row, "label": [x for x in row["label"].split("|") if x]} for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


@pytest.fixture
def one(tmp_path):
    """A classifier, and rows of its labels."""
    return written(tmp_path / "one", "classify"), rows_of(tmp_path / "rows.jsonl", "classify")


@pytest.fixture
def said(monkeypatch):
    """The lines that are shown."""
    lines = []
    monkeypatch.setattr(import_module("clozeworks.api.evaluate"), "say", lines.append)
    return lines


def evaluated(model, data, **given):
    return api.evaluate(api.EvaluateRecipe(model=model, data=data, device="cpu", **given))


def test_models_are_judged_as_alone_and_told_apart_from_the_first(one, tmp_path, said):
    (model, rows), other = one, written(tmp_path / "other", "classify", seed=1)
    alone = evaluated(other, rows, out=tmp_path / "alone").evaluation
    made = evaluated(model, rows, out=tmp_path / "both", beside=[other])
    assert made.beside == [alone] and made.evaluation.name == "one"
    kept = json.loads((tmp_path / "both" / "beside-1.json").read_text("utf-8"))
    assert kept == json.loads(alone.model_dump_json(exclude_none=True))
    assert "F1, other" in made.report.read_text("utf-8")
    gain = 100 * (made.evaluation.metrics.accuracy - alone.metrics.accuracy)
    assert any(f"{gain:+.2f} points of rows are right with one more than" in line for line in said)
    evaluated(model, rows, out=tmp_path / "both")
    assert not (tmp_path / "both" / "beside-1.json").exists()  # of a page that is gone


def test_models_called_alike_are_told_apart_by_the_folders_above(tmp_path):
    rows = rows_of(tmp_path / "rows.jsonl", "classify")
    first, other = (written(tmp_path / n / "kb" / "bundle", "classify") for n in ("one", "other"))
    made = evaluated(first, rows, out=tmp_path / "out", beside=[other])
    assert (made.evaluation.name, made.beside[0].name) == ("one/kb", "other/kb")
    with pytest.raises(UserError, match="bundle is given twice"):
        evaluated(first, rows, beside=[other, tmp_path / "one" / "kb" / ".." / "kb" / "bundle"])


def test_labels_may_stand_in_another_order(tmp_path):
    name = "classify:multi"
    rows, labels = rows_of(tmp_path / "rows.jsonl", name), make_task(name).labels
    model = written(tmp_path / "one", name)
    other = written(tmp_path / "other", name, labels[::-1], seed=1)
    made = evaluated(model, rows, out=tmp_path / "out", beside=[other])
    page = made.report.read_text("utf-8")
    assert made.beside[0].rows_digest == made.evaluation.rows_digest
    for row in made.beside[0].metrics.labels:
        cells = page[page.index(f">{row.label}</t") :].split("</tr>")[0]
        assert f"{100 * row.f1:.1f}%" in cells.split("<td")[-1]


@pytest.mark.parametrize(
    ("name", "other"),
    [("classify", "classify:multi"), ("classify:paths", "classify"), ("classify", "choice")],
)
def test_models_of_another_question_are_refused_before_rows_are_read(name, other, tmp_path):
    labels = make_task(name).labels if other == "classify" else None
    first, second = written(tmp_path / "one", name), written(tmp_path / "two", other, labels)
    with pytest.raises(UserError, match=r"two was trained for '.*' and one for '.*same question"):
        evaluated(first, tmp_path / "absent.jsonl", beside=[second])


def test_a_row_that_one_model_cannot_be_judged_by_is_named_with_it(one, tmp_path):
    (model, rows), other = one, written(tmp_path / "other", "classify", ["x", "y"])
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: other: label '.*' was never seen"):
        evaluated(model, rows, beside=[other])


def test_a_baseline_learns_from_its_rows_and_stands_beside_the_model(tmp_path, said):
    def put(name, texts):
        rows = [{"text": text, "label": "ab"["early" in text]} for text in texts]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return tmp_path / name

    model = written(tmp_path / "one", "classify", ["a", "b"])
    told = put("told.jsonl", [f"{'early' if i % 2 else 'late'} {i}" for i in range(40)])
    asked = put("asked.jsonl", ["so early", "so late", "late 4"])
    made = evaluated(model, asked, out=tmp_path / "out", baseline=told)
    (plain,) = made.beside
    assert plain.name == "TF-IDF + logistic regression" and plain.metrics.accuracy == 1.0
    assert plain.name in made.report.read_text("utf-8")
    assert any(line.startswith("1 of the rows judged are among the baseline's") for line in said)
    silent = evaluated(model, asked, baseline=told, settings={"threshold": 1.0})
    assert silent.beside[0].answers.coverage < 1


def test_a_baseline_that_cannot_be_is_refused(one, tmp_path):
    model, rows = one
    few = tmp_path / "few.jsonl"
    few.write_text(rows.read_text("utf-8").split("\n")[0], "utf-8")
    with pytest.raises(UserError, match="too few rows for a baseline"):
        evaluated(model, rows, baseline=few)
    multi = written(tmp_path / "multi", "classify:multi")
    labelled = rows_of(tmp_path / "multi.jsonl", "classify:multi")
    with pytest.raises(UserError, match=r"gives a text one class, and this model .*'multi'"):
        evaluated(multi, labelled, baseline=labelled)
