"""Judging a model that chooses among options."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import (
    Sureness,
    percent,
    reliability_figure,
    slices_table,
)
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, proportion
from clozeworks.evaluation.figures import Axes, Bar, bars_panel
from clozeworks.evaluation.sections import (
    Column,
    Figure,
    Key,
    Number,
    Numbers,
    Quote,
    Quotes,
    Section,
    Table,
)
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.calibrate import (
    Bools,
    ReliabilityBin,
    expected_calibration_error,
    reliability_bins,
)
from clozeworks.tasks.base import Task
from clozeworks.tasks.choice import ChoiceExample, ChoicePrediction

BESIDE = Key(name="", colour="#d1495b")
"""How what a bar is compared with is drawn."""


class OptionCount(Record):
    """The rows that have so many options."""

    options: int
    rows: int
    right: int


class Position(Record):
    """One place among the options."""

    place: int
    """From 1."""
    gold: int
    """Rows whose right option stands there."""
    chosen: int
    right: int


class ChosenRow(Row):
    """A row whose wrong option was chosen."""

    texts: list[str]
    """The context, and the question where there is one."""
    gold: str
    option: str
    confidence: float


class ChoicesEvaluation(Marked):
    """All that is known of one such model on one set of rows."""

    headline = True

    task: Literal["choice"] = "choice"
    rows: int
    accuracy: Interval
    chance: float
    """What guessing would come to."""
    majority: float
    """What choosing the place that is right most often would come to."""
    temperature: float
    calibration_error: float
    reliability: list[ReliabilityBin]
    counts: list[OptionCount]
    """By number of options."""
    positions: list[Position]
    slices: list[Slice]
    """By length and language of the context."""
    mistakes: list[ChosenRow]
    """The surest first."""


def judge_choices(
    task: Task,
    predictions: Sequence[ChoicePrediction],
    examples: Sequence[ChoiceExample],
    name: str,
) -> ChoicesEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or a row without an answer."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold = np.array([_gold(task, row, e) for row, e in enumerate(examples, 1)], dtype=np.int64)
    chosen = np.array([p.index for p in predictions], dtype=np.int64)
    sizes = np.array([len(e.options) for e in examples], dtype=np.int64)
    confidence = np.array([p.confidence for p in predictions])
    right = gold == chosen
    pairs = zip(examples, gold, strict=True)
    rows = ([e.context, e.question or "", *e.options, str(g)] for e, g in pairs)
    return ChoicesEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        rows=len(gold),
        accuracy=proportion(int(right.sum()), len(right)),
        chance=float((1 / sizes).mean()),
        majority=float(np.bincount(gold).max() / len(gold)),
        temperature=task.calibration.temperature,
        calibration_error=expected_calibration_error(confidence, right),
        reliability=reliability_bins(confidence, right),
        counts=_counts(sizes, right),
        positions=_positions(gold, chosen),
        slices=slices([e.context for e in examples], right, np.ones_like(right)),
        mistakes=_mistakes(examples, predictions, gold, right),
    )


def _gold(task: Task, row: int, example: ChoiceExample) -> int:
    place = task.target(example)
    if not isinstance(place, int) or place < 0:
        raise UserError(f"row {row} has no answer; evaluation needs one on every row")
    return place


def _counts(sizes: Ints, right: Bools) -> list[OptionCount]:
    return [
        OptionCount(options=n, rows=int((sizes == n).sum()), right=int(right[sizes == n].sum()))
        for n in np.unique(sizes).tolist()
    ]


def _positions(gold: Ints, chosen: Ints) -> list[Position]:
    return [
        Position(
            place=i + 1,
            gold=int((gold == i).sum()),
            chosen=int((chosen == i).sum()),
            right=int(((gold == i) & (chosen == i)).sum()),
        )
        for i in range(int(max(gold.max(), chosen.max())) + 1)
    ]


def _mistakes(
    examples: Sequence[ChoiceExample],
    predictions: Sequence[ChoicePrediction],
    gold: Ints,
    right: Bools,
) -> list[ChosenRow]:
    wrong = np.flatnonzero(~right).tolist()
    wrong.sort(key=lambda i: -predictions[i].confidence)
    return [
        ChosenRow(
            row=i + 1,
            texts=[quoted(t) for t in (examples[i].context, examples[i].question) if t],
            gold=quoted(examples[i].options[gold[i]]),
            option=quoted(predictions[i].option),
            confidence=predictions[i].confidence,
        )
        for i in wrong[:QUOTED_ROWS]
    ]


def choices_sections(
    evaluations: Sequence[ChoicesEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _count_figure(main, words)]
    made += [_count_table(evaluations, words), _position_table(main, words)]
    sure = [
        Sureness(e.name, e.calibration_error, e.temperature, e.reliability) for e in evaluations
    ]
    made.append(reliability_figure(sure, words))
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "accuracy"))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["choices_mistakes_note"]]
        made.append(Quotes(title=words["mistakes"], notes=notes, items=items))
    return made


def _summary(main: ChoicesEvaluation, words: Words) -> Numbers:
    said = words["choices_summary"].format(
        name=main.name,
        right=main.marks.count("1"),
        rows=main.rows,
        accuracy=percent(main.accuracy.estimate),
        low=percent(main.accuracy.low),
        high=percent(main.accuracy.high),
    )
    clear = main.accuracy.low > max(main.chance, main.majority)
    verdict = words["choices_clear" if clear else "choices_unclear"]
    items = [
        ("accuracy", main.accuracy.estimate, "choices_accuracy_remark"),
        ("chance", main.chance, "chance_remark"),
        ("majority_place", main.majority, "majority_place_remark"),
        ("calibration_error", main.calibration_error, "calibration_error_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(title=words["summary"], notes=[said, verdict], items=numbers)


def _count_figure(main: ChoicesEvaluation, words: Words) -> Figure:
    bars = []
    for count in main.counts:
        share = proportion(count.right, count.rows)
        name = str(count.options)
        bars.append(Bar(name, share.estimate, share.low, share.high, 1 / count.options))
    axes = Axes(words["axis_options"], words["axis_accuracy"], y_share=True)
    key = BESIDE.model_copy(update={"name": words["chance"]})
    return Figure(
        title=words["option_counts"],
        notes=[words["option_counts_note"]],
        panels=[bars_panel(bars, axes, words["option_counts_caption"])],
        legend=[key],
    )


def _count_table(evaluations: Sequence[ChoicesEvaluation], words: Words) -> Table:
    names = [words["rows"], words["chance"]]
    names += [words["accuracy"]] if len(evaluations) == 1 else [e.name for e in evaluations]
    rows = [
        [str(alike[0].options), str(alike[0].rows), percent(1 / alike[0].options)]
        + [percent(count.right / count.rows) for count in alike]
        for alike in zip(*(e.counts for e in evaluations), strict=True)
    ]
    columns = [Column(name=words["axis_options"]), *(Column(name=n) for n in names)]
    return Table(columns=columns, rows=rows)


def _position_table(main: ChoicesEvaluation, words: Words) -> Table:
    names = ("place", "place_gold", "place_chosen", "place_right")
    return Table(
        title=words["places"],
        notes=[words["places_note"]],
        columns=[Column(name=words[n]) for n in names],
        rows=[
            [
                str(p.place),
                str(p.gold),
                str(p.chosen),
                percent(p.right / p.gold if p.gold else None),
            ]
            for p in main.positions
        ],
    )


def _quote(row: ChosenRow, words: Words) -> Quote:
    return Quote(
        texts=row.texts,
        remarks=[
            words["quote_gold"].format(label=row.gold),
            words["quote_chosen"].format(label=row.option),
            words["quote_confidence"].format(confidence=percent(row.confidence)),
            words["quote_row"].format(row=row.row),
        ],
    )
