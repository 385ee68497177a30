"""Judge a model on labelled examples, in numbers and in a report."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import SerializeAsAny

from clozeworks.api.labelled import labelled_examples
from clozeworks.api.model import load, say_cut, trained_columns
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import Meter, say
from clozeworks.data.sources.base import PACKED
from clozeworks.evaluation.compare import Judged, Unread, numbered
from clozeworks.evaluation.report import saying_unread, write_json, write_report
from clozeworks.evaluation.reports import REPORTS
from clozeworks.evaluation.reports.base import Report
from clozeworks.inference.engine import Engine
from clozeworks.train.precision import Precision


class EvaluateRecipe(Settings):
    """What the `evaluate` verb needs."""

    model: Path
    """A trained Bundle."""
    data: Path
    """Labelled examples."""
    out: Path | None = None
    """Folder for report.html and report.json; absent: `evaluation-DATA` beside the Bundle, or
    `MODEL-evaluation-DATA` where its folder is not called `bundle`."""
    language: Literal["en", "zh"] = "en"
    """Language of the report."""
    columns: dict[str, str] = {}
    """Column names of the task's fields; absent: those it was trained with."""
    encoding: str = "utf-8"
    """Character encoding of the file; gb18030 for most Chinese files that are not UTF-8."""
    format: str | None = None
    """Form of the file, where its name does not tell it."""
    skip_empty: bool = False
    """Leave out rows whose text is empty, and count them, instead of stopping."""
    settings: dict[str, str | int | float] = {}
    """Settings of the task that are to be others than in training, such as top 10."""
    precision: Precision = "auto"
    """Number format: bf16 where the machine multiplies it natively, else fp32."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for a GPU if there is one."""


class Evaluated(Settings):
    """What the `evaluate` verb made."""

    report: Path
    json_report: Path
    evaluation: SerializeAsAny[Judged]
    """All that its report is made of."""


def evaluate(recipe: EvaluateRecipe) -> Evaluated:
    """Predict every row, judge the predictions, and write the report as HTML and JSON."""
    out = _out(recipe)
    engine = load(recipe.model, recipe.device, recipe.precision, recipe.settings)
    report = _report_of(engine, recipe.model)
    task = engine.task.parts[0]
    columns = trained_columns(recipe.model)
    numbers: list[int] = []
    examples = labelled_examples(recipe.data, task, recipe, task.target, columns, numbers.append)
    report.refuse(task, examples, [f"{recipe.data}, row {number}" for number in numbers])
    name = _name(recipe.model)
    evaluation = numbered(judged(engine, report, examples, name), numbers)
    title = f"{name} · {recipe.data.name}"
    sections = report.sections([evaluation], recipe.language)
    if evaluation.unread is not None and evaluation.unread.rows:
        sections = saying_unread(sections, evaluation.unread, len(examples), recipe.language)
    write_report(out / "report.html", title, sections, recipe.language)
    write_json(out / "report.json", evaluation)
    say(report.summary(evaluation))
    say(f"report → {out / 'report.html'}")
    return Evaluated(
        report=out / "report.html", json_report=out / "report.json", evaluation=evaluation
    )


BUNDLE = "bundle"
"""What a run calls the folder of its finished model: that one is named after the run alone."""


def _name(model: Path) -> str:
    """What a page calls a model: by its run, its own folder told too where the run has several.

    A model that is in no run, such as one from elsewhere, is called as its folder.
    """
    folder = model.resolve()
    if folder.name == BUNDLE:
        return folder.parent.name
    in_run = (folder.parent / "run.json").exists()
    return f"{folder.parent.name}/{folder.name}" if in_run else folder.name


def _out(recipe: EvaluateRecipe) -> Path:
    """The report's folder, its own for every model and every file.

    Raises UserError where a file stands in its way: before the rows are predicted, not after.
    """
    packed = recipe.data.suffix.lower() in PACKED
    stem = (recipe.data.with_suffix("") if packed else recipe.data).stem
    model = Path(os.path.normpath(recipe.model.absolute()))  # a link under its own name
    whose = "" if model.name == BUNDLE else f"{model.name}-"
    beside = model.parent if recipe.model.exists() else Path()
    out = recipe.out or beside / f"{whose}evaluation-{stem}"
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise UserError(
            f"--out {out}: {there} is a file, and the report needs a folder; name a folder that "
            "is there, or one to be made"
        )
    return out


def _report_of(engine: Engine, model: Path) -> Report:
    """How the model's task is judged; raises UserError where it gives no answers to be judged.

    Of joint tasks, that is the one that predicts.
    """
    task = engine.task.parts[0]
    if task.name not in REPORTS.names():
        raise UserError(
            f"{model} was trained for {task.name!r}, which has no answers to judge on labelled "
            f"rows (choices: {', '.join(REPORTS.names())})"
        )
    return REPORTS.get(task.name)()


def judged(engine: Engine, report: Report, examples: list[Any], name: str) -> Judged:
    """Judge a model that is at hand."""
    predictions: list[Any] = []
    with Meter("predicting", len(examples), "rows") as meter:
        for prediction in engine.predict(examples):
            predictions.append(prediction)
            meter.advance(1)
    say_cut(engine)
    found = report.judge(engine.task.parts[0], predictions, examples, name)
    unread = Unread(rows=engine.cut_examples, tokens=engine.truncated)
    return found.model_copy(update={"unread": unread})
