"""Judge a model on labelled examples, in numbers and in a report."""

from pathlib import Path
from typing import Any, Literal

from clozeworks.api.model import open_engine, trained_columns
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import Meter, say
from clozeworks.data.read import read_examples
from clozeworks.evaluation.classify import Evaluation, judge
from clozeworks.evaluation.classify_sections import classify_sections
from clozeworks.evaluation.report import write_json, write_report
from clozeworks.inference.engine import Engine
from clozeworks.train.precision import Precision


class EvaluateRecipe(Settings):
    """What the `evaluate` verb needs."""

    model: Path
    """A trained Bundle."""
    data: Path
    """Labelled examples."""
    out: Path | None = None
    """Folder for report.html and report.json; absent: `evaluation-DATA` beside the Bundle."""
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
    precision: Precision = "auto"
    """Number format: bf16 where the machine multiplies it natively, else fp32."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for a GPU if there is one."""


class Evaluated(Settings):
    """What the `evaluate` verb made."""

    report: Path
    json_report: Path
    evaluation: Evaluation


def evaluate(recipe: EvaluateRecipe) -> Evaluated:
    """Predict every row, judge the predictions, and write the report as HTML and JSON."""
    engine = open_engine(recipe.model, recipe.device, recipe.precision)
    examples = _labelled(recipe, engine)
    evaluation = evaluate_live(engine, examples, recipe.model.resolve().parent.name)
    stem = recipe.data.name.split(".")[0]
    out = recipe.out or recipe.model.parent / f"evaluation-{stem}"
    title = f"{recipe.model.resolve().parent.name} · {recipe.data.name}"
    sections = classify_sections([evaluation], recipe.language)
    write_report(out / "report.html", title, sections, recipe.language)
    write_json(out / "report.json", evaluation)
    say(summary(evaluation))
    say(f"report → {out / 'report.html'}")
    return Evaluated(
        report=out / "report.html", json_report=out / "report.json", evaluation=evaluation
    )


def _labelled(recipe: EvaluateRecipe, engine: Engine) -> list[Any]:
    if "label" not in engine.task.Example.model_fields or not engine.task.labels:
        raise UserError(f"{recipe.model} was trained for {engine.task.name!r}, which has no labels")

    def labelled(example: Any) -> None:
        if example.label is None:
            raise UserError("no label; label it, or remove the row")
        engine.task.target(example)

    return list(
        read_examples(
            recipe.data,
            engine.task.Example,
            {"label": "label", **trained_columns(recipe.model), **recipe.columns},
            encoding=recipe.encoding,
            format=recipe.format,
            empty="skip" if recipe.skip_empty else "refuse",
            check=labelled,
        )
    )


def evaluate_live(engine: Engine, examples: list[Any], name: str) -> Evaluation:
    """Judge a classifier that is at hand."""
    predictions: list[Any] = []
    with Meter("predicting", len(examples), "rows") as meter:
        for prediction in engine.predict(examples):
            predictions.append(prediction)
            meter.advance(1)
    task = engine.task
    return judge(predictions, examples, task.labels, task.calibration, name=name)


def summary(evaluation: Evaluation) -> str:
    """The numbers a person asks for first, in one line."""
    metrics, answers = evaluation.metrics, evaluation.answers
    sure = "–" if answers.accuracy is None else f"{answers.accuracy:.2%}"
    return (
        f"accuracy {metrics.accuracy:.2%} ({evaluation.accuracy.low:.2%} to "
        f"{evaluation.accuracy.high:.2%}), macro F1 {metrics.macro.f1:.4f}; "
        f"answered {answers.coverage:.1%} of rows, {sure} of them right; "
        f"calibration error {evaluation.calibration_error:.4f}"
    )
