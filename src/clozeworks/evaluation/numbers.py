"""Judging a model that gives numbers."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted, texts_of
from clozeworks.evaluation.compare import Interval, Judged, Row, digest_rows, resampled
from clozeworks.evaluation.figures import Axes, scatter_panel
from clozeworks.evaluation.sections import Figure, Number, Numbers, Quote, Quotes, Section
from clozeworks.metrics.regress import RegressMetrics, pearson, regress_metrics, spearman
from clozeworks.tasks.base import Task
from clozeworks.tasks.classify import ClassifyExample, NumberPrediction

FEWEST = 5
"""Rows below which a correlation says nothing."""
DRAWN = 1000
"""Rows drawn at most."""


class NumberedRow(Row):
    """One row, its number and what the model took it for."""

    texts: list[str]
    gold: float
    value: float


class NumbersEvaluation(Judged):
    """All that is known of one such model on one set of rows."""

    task: Literal["classify"] = "classify"
    kind: Literal["regression"] = "regression"
    metrics: RegressMetrics
    pearson: Interval | None
    spearman: Interval | None
    """Both None where one side is constant, or rows are too few."""
    gold: list[float]
    values: list[float]
    """Of the rows drawn, evenly chosen where there are many."""
    mistakes: list[NumberedRow]
    """The farthest off first."""


def judge_numbers(
    task: Task,
    predictions: Sequence[NumberPrediction],
    examples: Sequence[ClassifyExample],
    name: str,
) -> NumbersEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or a label that is no number."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold: npt.NDArray[np.float64] = np.array([task.target(e) for e in examples], np.float64)
    values = np.array([p.value for p in predictions], np.float64)

    def straight(rows: Ints) -> float | None:
        return pearson(gold[rows], values[rows]) if len(rows) >= FEWEST else None

    def ranked(rows: Ints) -> float | None:
        return spearman(gold[rows], values[rows]) if len(rows) >= FEWEST else None

    far = np.argsort(-np.abs(gold - values), kind="stable")[:QUOTED_ROWS].tolist()
    drawn = np.unique(np.linspace(0, len(gold) - 1, min(len(gold), DRAWN)).astype(int))
    return NumbersEvaluation(
        name=name,
        rows_digest=digest_rows([*texts_of(e), str(e.label)] for e in examples),
        metrics=regress_metrics(gold.tolist(), values.tolist()),
        pearson=resampled(straight, len(gold), share=False),
        spearman=resampled(ranked, len(gold), share=False),
        gold=gold[drawn].tolist(),
        values=values[drawn].tolist(),
        mistakes=[
            NumberedRow(
                row=i + 1,
                texts=[quoted(text) for text in texts_of(examples[i])],
                gold=gold[i],
                value=values[i],
            )
            for i in far
        ],
    )


def numbers_summary(evaluation: NumbersEvaluation) -> str:
    """Both correlations with their intervals, and the mean distance."""
    said = [
        f"{name} {interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        for name, interval in (("Pearson", evaluation.pearson), ("Spearman", evaluation.spearman))
        if interval is not None
    ]
    said += ["no correlation: one side is constant, or rows are too few"] * (not said)
    return f"{', '.join(said)}; off by {evaluation.metrics.mean_absolute_error:.4f} on average"


def numbers_sections(
    evaluations: Sequence[NumbersEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the drawings."""
    words, main = catalogue(language), evaluations[0]
    axes = Axes(words["axis_gold_number"], words["axis_given_number"])
    panels = [
        scatter_panel(e.gold, e.values, axes, words["numbers_caption"].format(name=e.name))
        for e in evaluations
    ]
    figure = Figure(title=words["numbers_title"], notes=[words["numbers_note"]], panels=panels)
    quotes = [_quote(row, words) for row in main.mistakes]
    notes = [words["numbers_mistakes_note"]]
    mistakes = Quotes(title=words["numbers_mistakes"], notes=notes, items=quotes)
    return [_summary(main, words), figure, mistakes]


def _summary(main: NumbersEvaluation, words: Words) -> Numbers:
    metrics = main.metrics
    items = [
        Number(value=_correlation(interval), name=words[name], remark=_ends(interval, words))
        for name, interval in (("spearman", main.spearman), ("pearson", main.pearson))
    ]
    for name, value, remark in (
        ("mean_error", metrics.mean_absolute_error, "mean_error_remark"),
        ("root_error", metrics.root_mean_square_error, "root_error_remark"),
    ):
        items.append(Number(value=f"{value:.3f}", name=words[name], remark=words[remark]))
    said = words["numbers_summary"].format(name=main.name, rows=metrics.rows)
    return Numbers(title=words["summary"], notes=[said], items=items)


def _correlation(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.estimate:.3f}"


def _ends(interval: Interval | None, words: Words) -> str:
    if interval is None:
        return words["constant"]
    return f"{words['interval']}: {interval.low:.3f} – {interval.high:.3f}"


def _quote(row: NumberedRow, words: Words) -> Quote:
    return Quote(
        texts=row.texts,
        remarks=[
            words["quote_gold"].format(label=f"{row.gold:g}"),
            words["quote_value"].format(value=f"{row.value:.3g}"),
            words["quote_row"].format(row=row.row),
        ],
    )
