"""Judge a model on labelled examples, in numbers and in a report."""

import os
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import SerializeAsAny

from clozeworks.api.labelled import labelled_examples
from clozeworks.api.model import learned_without, load, say_cut, trained_columns
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import Meter, counted, say
from clozeworks.data.sources.base import PACKED
from clozeworks.data.split import hold_out
from clozeworks.evaluation.classify import judge
from clozeworks.evaluation.compare import Judged, Marked, Unread, differences, numbered
from clozeworks.evaluation.report import saying_unread, write_json, write_report
from clozeworks.evaluation.reports import REPORTS
from clozeworks.evaluation.reports.base import Report
from clozeworks.inference.engine import Engine
from clozeworks.tasks.base import Task
from clozeworks.tasks.classify import ClassifyConfig
from clozeworks.train.precision import Precision


class EvaluateRecipe(Settings):
    """What the `evaluate` verb needs."""

    model: Path
    """A trained Bundle."""
    data: Path
    """Labelled examples."""
    beside: list[Path] = []
    """Other models of the same task: they are judged on the same rows, and the page sets them
    beside the first."""
    baseline: Path | None = None
    """Labelled examples, those that the model learned from: TF-IDF with logistic regression learns
    from them too, and stands beside it. For classifiers of one class."""
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
    beside: list[SerializeAsAny[Judged]] = []
    """The same of each model beside the first, and last of the baseline."""


def evaluate(recipe: EvaluateRecipe) -> Evaluated:
    """Predict every row, judge the predictions, and write the report as HTML and JSON."""
    out, models = _out(recipe), [recipe.model, *recipe.beside]
    names = _names(models)
    engines = [load(m, recipe.device, recipe.precision, recipe.settings) for m in models]
    parts = [engine.task.parts[0] for engine in engines]
    task, report = parts[0], _report_of(engines[0], recipe.model)
    for name, other in zip(names, parts, strict=True):
        if other.question != task.question:
            raise UserError(
                f"{name} was trained for {other.question} and {names[0]} for {task.question}: "
                "models stand beside each other where they answer the same question"
            )

    def check(example: Any) -> None:
        for name, other in zip(names, parts, strict=True):
            _target(other, example, name if len(parts) > 1 else "")

    numbers: list[int] = []
    columns = dict(ChainMap(*(trained_columns(model) for model in models)))
    without = [learned_without(model).difference(recipe.columns) for model in models]
    lacked = frozenset.intersection(*without)
    examples = labelled_examples(recipe.data, task, recipe, check, columns, lacked, numbers.append)
    report.refuse(task, examples, [f"{recipe.data}, row {number}" for number in numbers])
    plain = [] if recipe.baseline is None else [_plain(recipe, task, examples, columns, lacked)]
    found = [
        judged(engine, report, examples, name, fields - lacked)
        for engine, name, fields in zip(engines, names, without, strict=True)
    ]
    evaluation, *beside = (numbered(one, numbers) for one in (*found, *plain))
    sections = report.sections([evaluation, *beside], recipe.language)
    if evaluation.unread is not None and evaluation.unread.rows:
        sections = saying_unread(sections, evaluation.unread, len(examples), recipe.language)
    write_report(out / "report.html", f"{names[0]} · {recipe.data.name}", sections, recipe.language)
    _write_numbers(out, [evaluation, *beside])
    _say(report, [evaluation, *beside])
    say(f"report → {out / 'report.html'}")
    return Evaluated(
        report=out / "report.html",
        json_report=out / "report.json",
        evaluation=evaluation,
        beside=beside,
    )


def _target(task: Task, example: Any, name: str) -> None:
    """Raise UserError, naming the model, for a row that it cannot be judged by."""
    try:
        task.target(example)
    except UserError as error:
        raise UserError(f"{name}: {error}" if name else str(error)) from error


def _plain(
    recipe: EvaluateRecipe,
    task: Task,
    examples: list[Any],
    columns: dict[str, str],
    lacked: frozenset[str],
) -> Judged:
    """The baseline, judged; some of its rows choose its strength, and it does not learn from them.

    Raises UserError for a model that does not give one class a text, or too few rows.
    """
    assert recipe.baseline is not None
    if not (isinstance(task.config, ClassifyConfig) and task.config.kind == "single"):
        raise UserError(
            "--baseline: TF-IDF with logistic regression gives a text one class, and this model "
            f"was trained for {task.question}; leave it out"
        )
    from clozeworks.evaluation.baseline import Baseline  # and scikit-learn with it

    rows = labelled_examples(recipe.baseline, task, recipe, task.target, columns, lacked)
    told = {task.key(row) for row in rows}
    if shared := sum(task.key(example) in told for example in examples):
        say(f"{shared:,} of the rows judged are among the baseline's own: its numbers flatter it")
    try:
        train, dev = hold_out(rows, HELD_OUT, key=task.key, label=task.stratum)
    except UserError as error:
        raise UserError(
            f"{recipe.baseline}: too few rows for a baseline, which needs a class with two "
            "different texts to choose its strength by"
        ) from error
    say(
        f"baseline: {counted(len(train), 'row', 'rows')} to learn from, {len(dev):,} held out by a "
        "hash of their text to choose its strength by"
    )
    fitted = Baseline.fit(train, dev, task.labels, target=task.config.target, set_as=task.as_set)
    said, levels = fitted.predict(examples), task.config.levels
    name = fitted.name(recipe.language)
    return judge(said, examples, task.labels, fitted.calibration, name=name, levels=levels)


def _write_numbers(out: Path, found: Sequence[Judged]) -> None:
    """A file for each model; those that stood beside another one before are gone."""
    for old in out.glob("beside-*.json"):
        old.unlink()
    write_json(out / "report.json", found[0])
    for number, other in enumerate(found[1:], 1):
        write_json(out / f"beside-{number}.json", other)


def _say(report: Report, evaluations: Sequence[Judged]) -> None:
    """The numbers asked for first, and by how much the first model differs from the others."""
    for evaluation in evaluations:
        named = f"{evaluation.name}: " if len(evaluations) > 1 else ""
        say(named + report.summary(evaluation))
    told = [each for each in evaluations if isinstance(each, Marked) and each.headline]
    for found in differences(told):
        low, gain, high = (100 * x for x in (found.gain.low, found.gain.estimate, found.gain.high))
        verdict = "they differ" if found.clear else "it may be chance"
        say(
            f"{gain:+.2f} points of rows are right with {found.name} more than with "
            f"{found.other} ({low:+.2f} to {high:+.2f}): {verdict}"
        )


HELD_OUT = 0.1
"""Share of its rows that a baseline does not learn from, as in fine-tuning."""
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


def _names(models: Sequence[Path]) -> list[str]:
    """What a page calls each of them; with as many folders above as it takes to tell them apart.

    Raises UserError for a folder that is there twice.
    """
    folders = [model.resolve() for model in models]
    if again := next((m for i, m in enumerate(models) if folders[i] in folders[:i]), None):
        raise UserError(f"{again} is given twice; a model does not stand beside itself")
    folders = [folder.parent if folder.name == BUNDLE else folder for folder in folders]
    names = [_name(model) for model in models]
    for depth in range(2, max(len(folder.parts) for folder in folders) + 1):
        if len(set(names)) == len(names):
            break
        names = [str(Path(*folder.parts[-depth:])) for folder in folders]
    return names


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


def judged(
    engine: Engine,
    report: Report,
    examples: list[Any],
    name: str,
    without: frozenset[str] = frozenset(),
) -> Judged:
    """Judge a model that is at hand; fields that it learned `without` are not shown to it."""
    predictions: list[Any] = []
    nothing = dict.fromkeys(without)
    shown = (example.model_copy(update=nothing) if nothing else example for example in examples)
    with Meter("predicting", len(examples), "rows") as meter:
        for prediction in engine.predict(shown):
            predictions.append(prediction)
            meter.advance(1)
    say_cut(engine)
    found = report.judge(engine.task.parts[0], predictions, examples, name)
    unread = Unread(rows=engine.cut_examples, tokens=engine.truncated)
    return found.model_copy(update={"unread": unread})
