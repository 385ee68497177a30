"""Judging a classifier: its predictions beside the gold labels become one Evaluation."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Record
from clozeworks.evaluation.compare import (
    Difference,
    Interval,
    Marked,
    Row,
    differences,
    digest_rows,
    marks_of,
    proportion,
)
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.calibrate import (
    Bools,
    CoverageCurve,
    ReliabilityBin,
    coverage_accuracy,
    expected_calibration_error,
    reliability_bins,
)
from clozeworks.metrics.classify import ClassifyMetrics, Floats, classify_metrics
from clozeworks.metrics.levels import ancestors
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction, single_label

QUOTED_ROWS = 20
"""Mistakes and unanswered rows kept, the most telling first."""
QUOTED_CHARACTERS = 300
"""Characters kept of a text that is quoted."""


class JudgedRow(Row):
    """One row, what it is and what the model took it for."""

    text: str
    text_pair: str | None = None
    gold: str
    best: str
    confidence: float


class Answers(Record):
    """What comes of the rows the model answered, and of those it left at "I don't know"."""

    answered: int
    answered_right: int
    unanswered: int
    unanswered_right: int
    """Rows left unanswered whose best class was the right one after all."""

    @property
    def coverage(self) -> float:
        """The share of rows answered."""
        return self.answered / (self.answered + self.unanswered)

    @property
    def accuracy(self) -> float | None:
        """The share of answers that are right; None where nothing was answered."""
        return self.answered_right / self.answered if self.answered else None


class LevelRow(Record):
    """How far down labels that are paths are right."""

    level: int
    """1 is the top."""
    rows: int
    """Whose label goes as deep."""
    right: int
    """Of those, rows that are right down to this level."""


class Evaluation(Marked):
    """All that is known of one classifier on one set of rows."""

    headline = True

    task: Literal["classify"] = "classify"
    labels: list[str]
    calibration: Calibration
    metrics: ClassifyMetrics
    """Of the best class of every row, answered or not."""
    accuracy: Interval
    calibration_error: float
    """Expected calibration error over 15 bins, of the best class of every row."""
    answers: Answers
    reliability: list[ReliabilityBin]
    coverage: CoverageCurve
    levels: list[LevelRow] = []
    """Where labels are paths."""
    slices: list[Slice]
    mistakes: list[JudgedRow]
    """Answered rows that are wrong, the most confident first."""
    unanswered: list[JudgedRow]
    """Rows left at "I don't know", the most confident first."""


class Comparison(Record):
    """Several classifiers judged on the same rows; its JSON form is the JSON report."""

    evaluations: list[Evaluation]
    differences: list[Difference]
    """The first against each other."""


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Set evaluations side by side; raises UserError unless all judged the same rows."""
    return Comparison(evaluations=list(evaluations), differences=differences(evaluations))


def judge(
    predictions: Sequence[ClassifyPrediction],
    examples: Sequence[ClassifyExample],
    labels: Sequence[str],
    calibration: Calibration | None = None,
    *,
    name: str = "model",
    levels: str = "",
) -> Evaluation:
    """Judge one prediction a row against the labels of the examples.

    `labels` are the model's, in their order; `calibration` is its card's; `levels` is the sign
    between the levels of labels that are paths. Raises UserError for no rows, a row without a
    label, or a label outside `labels`.
    """
    gold = _gold(predictions, examples)
    best = [p.best for p in predictions]
    metrics = classify_metrics(gold, best, labels, _scores(predictions, labels))
    right = np.array([g == b for g, b in zip(gold, best, strict=True)])
    kept = np.array([_holds(p.label, g, levels) for p, g in zip(predictions, gold, strict=True)])
    answered = np.array([p.label is not None for p in predictions])
    confidence = np.array([p.confidence for p in predictions], dtype=np.float64)
    chosen = partial(_quoted_rows, predictions=predictions, examples=examples)
    return Evaluation(
        name=name,
        rows_digest=digest_rows([*texts_of(e), g] for e, g in zip(examples, gold, strict=True)),
        marks=marks_of(right),
        labels=list(labels),
        calibration=calibration or Calibration(),
        metrics=metrics,
        accuracy=proportion(int(right.sum()), len(right)),
        calibration_error=expected_calibration_error(confidence, right),
        answers=_answers(np.where(answered, kept, right), answered),
        reliability=reliability_bins(confidence, right),
        coverage=coverage_accuracy(confidence, right),
        levels=_levels(gold, best, levels) if levels else [],
        slices=slices([" ".join(texts_of(e)) for e in examples], right, answered),
        mistakes=chosen(answered & ~kept),
        unanswered=chosen(~answered),
    )


def _holds(label: str | None, gold: str, sign: str) -> bool:
    """Whether an answer is the class, or where labels are paths, a level above it."""
    return label in (ancestors(gold, sign) if sign else [gold])


def _levels(gold: Sequence[str], best: Sequence[str], sign: str) -> list[LevelRow]:
    paths = [(ancestors(g, sign), ancestors(b, sign)) for g, b in zip(gold, best, strict=True)]
    rows = []
    for depth in range(max(len(g) for g, _ in paths)):
        deep = [(g[depth], b[depth : depth + 1]) for g, b in paths if depth < len(g)]
        right = sum([g] == b for g, b in deep)
        rows.append(LevelRow(level=depth + 1, rows=len(deep), right=right))
    return rows


def _answers(right: Bools, answered: Bools) -> Answers:
    return Answers(
        answered=int(answered.sum()),
        answered_right=int((answered & right).sum()),
        unanswered=int((~answered).sum()),
        unanswered_right=int((~answered & right).sum()),
    )


def _gold(
    predictions: Sequence[ClassifyPrediction], examples: Sequence[ClassifyExample]
) -> list[str]:
    if len(predictions) != len(examples):
        raise UserError(f"{len(predictions)} predictions cannot judge {len(examples)} rows")
    gold = []
    for row, example in enumerate(examples, 1):
        if example.label is None:
            raise UserError(f"row {row} has no label; evaluation needs one on every row")
        gold.append(single_label(example.label))
    return gold


def _scores(predictions: Sequence[ClassifyPrediction], labels: Sequence[str]) -> Floats:
    """The probabilities [N, K] in the order of the labels."""
    known = set(labels)
    for row, prediction in enumerate(predictions, 1):
        if prediction.scores.keys() != known:
            strange = sorted(prediction.scores.keys() ^ known)
            raise UserError(
                f"row {row}: scores and labels disagree on {', '.join(map(repr, strange[:5]))}; "
                "judge with the labels the model was trained with"
            )
    return np.array([[p.scores[label] for label in labels] for p in predictions], dtype=np.float64)


def texts_of(example: ClassifyExample) -> list[str]:
    """The text, or both of a pair."""
    return [example.text] if example.text_pair is None else [example.text, example.text_pair]


def _quoted_rows(
    chosen: Bools,
    predictions: Sequence[ClassifyPrediction],
    examples: Sequence[ClassifyExample],
) -> list[JudgedRow]:
    """The chosen rows [N] bool the model is surest of."""
    order = sorted(np.flatnonzero(chosen).tolist(), key=lambda i: -predictions[i].confidence)
    return [_judged_row(i + 1, examples[i], predictions[i]) for i in order[:QUOTED_ROWS]]


def _judged_row(row: int, example: ClassifyExample, prediction: ClassifyPrediction) -> JudgedRow:
    return JudgedRow(
        row=row,
        text=quoted(example.text),
        text_pair=None if example.text_pair is None else quoted(example.text_pair),
        gold=single_label(example.label or ""),
        best=prediction.best,
        confidence=prediction.confidence,
    )


def quoted(text: str) -> str:
    """A text as a report shows it: its end left out where it is long."""
    return text if len(text) <= QUOTED_CHARACTERS else text[: QUOTED_CHARACTERS - 1] + "…"
