"""Judging a classifier that gives any number of labels."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted, texts_of
from clozeworks.evaluation.classify_sections import (
    LONGEST_OPEN_TABLE,
    f1_figure,
    percent,
    slices_table,
)
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, resampled
from clozeworks.evaluation.sections import Column, Number, Numbers, Quote, Quotes, Section, Table
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.calibrate import Bools
from clozeworks.metrics.labels import LabelMetrics, label_metrics
from clozeworks.tasks.base import Task
from clozeworks.tasks.classify import ClassifyExample, LabelsPrediction


class LabelledRow(Row):
    """A row whose labels are not all right."""

    texts: list[str]
    gold: list[str]
    missing: list[str]
    """Labels it has and was not given."""
    extra: list[str]
    """Labels it was given and has not."""


class LabelsEvaluation(Marked):
    """All that is known of one such classifier on one set of rows; right is a row without fault."""

    task: Literal["classify"] = "classify"
    kind: Literal["multi"] = "multi"
    labels: list[str]
    calibration: Calibration
    metrics: LabelMetrics
    micro_f1: Interval
    slices: list[Slice]
    mistakes: list[LabelledRow]
    """The surest first."""


def judge_labels(
    task: Task,
    predictions: Sequence[LabelsPrediction],
    examples: Sequence[ClassifyExample],
    name: str,
) -> LabelsEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or a label never seen."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold = np.array([task.target(example) for example in examples]) > 0
    given = np.array([[label in p.labels for label in task.labels] for p in predictions])
    scores = np.array([[p.scores[label] for label in task.labels] for p in predictions])
    hits, golds, givens = (gold & given).sum(1), gold.sum(1), given.sum(1)

    def micro(rows: Ints) -> float:
        total = int(golds[rows].sum() + givens[rows].sum())
        return float(2 * hits[rows].sum() / total) if total else 0.0

    interval = resampled(micro, len(examples))
    assert interval is not None
    right = (gold == given).all(1)
    rows = [  # sorted, so that they are the same whatever order a model has its labels in
        [*texts_of(e), *sorted(_named(task.labels, g))] for e, g in zip(examples, gold, strict=True)
    ]
    return LabelsEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        labels=task.labels,
        calibration=task.calibration,
        metrics=label_metrics(gold, given, task.labels),
        micro_f1=interval,
        slices=slices([" ".join(texts_of(e)) for e in examples], right, np.ones_like(right)),
        mistakes=_mistakes(task.labels, (gold, given, scores), examples),
    )


def _mistakes(
    labels: list[str], judged: tuple[Bools, Bools, Any], examples: Sequence[ClassifyExample]
) -> list[LabelledRow]:
    gold, given, scores = judged
    sureness = np.where(gold == given, 0.0, np.where(given, scores, 1 - scores)).max(1)
    order = np.argsort(-sureness, kind="stable")[:QUOTED_ROWS]
    return [
        LabelledRow(
            row=i + 1,
            texts=[quoted(text) for text in texts_of(examples[i])],
            gold=_named(labels, gold[i]),
            missing=_named(labels, gold[i] & ~given[i]),
            extra=_named(labels, given[i] & ~gold[i]),
        )
        for i in order.tolist()
        if sureness[i] > 0
    ]


def _named(labels: list[str], there: Bools) -> list[str]:
    return [label for label, here in zip(labels, there, strict=True) if here]


def labels_summary(evaluation: LabelsEvaluation) -> str:
    """F1 with its interval, and rows without fault."""
    metrics, micro = evaluation.metrics, evaluation.micro_f1
    return (
        f"micro F1 {micro.estimate:.2%} ({micro.low:.2%} to {micro.high:.2%}), macro F1 "
        f"{metrics.macro.f1:.4f}; {metrics.exact:.2%} of rows have all their labels and no others"
    )


def labels_sections(evaluations: Sequence[LabelsEvaluation], language: str = "en") -> list[Section]:
    """The first in full, others beside it in the table of labels."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _labels(evaluations, words)]
    there = sorted((row for row in main.metrics.labels if row.gold), key=lambda row: row.f1)
    made += f1_figure([(row.label, row.f1) for row in there], words, "labels_caption")
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "labels_right"))
    if main.mistakes:
        quotes = [_quote(row, words) for row in main.mistakes]
        notes = [words["labels_mistakes_note"]]
        made.append(Quotes(title=words["mistakes"], notes=notes, items=quotes))
    return made


def _summary(main: LabelsEvaluation, words: Words) -> Numbers:
    said = words["labels_summary"].format(
        name=main.name,
        f1=percent(main.micro_f1.estimate),
        low=percent(main.micro_f1.low),
        high=percent(main.micro_f1.high),
        rows=main.metrics.rows,
    )
    items = [
        ("micro_f1", main.micro_f1.estimate, "micro_f1_remark"),
        ("macro_f1", main.metrics.macro.f1, "macro_f1_labels_remark"),
        ("precision", main.metrics.micro.precision, "micro_precision_remark"),
        ("recall", main.metrics.micro.recall, "micro_recall_remark"),
        ("exact", main.metrics.exact, "exact_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(title=words["summary"], notes=[said], items=numbers)


def _labels(evaluations: Sequence[LabelsEvaluation], words: Words) -> Table:
    main, *others = evaluations
    thresholds = main.calibration.thresholds or [0.5] * len(main.labels)
    theirs = [{row.label: row.f1 for row in other.metrics.labels} for other in others]
    rows = []
    order = sorted(range(len(main.labels)), key=lambda k: main.metrics.labels[k].f1)
    for k in order:
        row = main.metrics.labels[k]
        cells = [row.label, str(row.gold), str(row.predicted)]
        cells += [percent(x) for x in (row.precision, row.recall, row.f1)]
        cells += [f"{thresholds[k]:.2f}", *(percent(f1.get(row.label)) for f1 in theirs)]
        rows.append(cells)
    names = [words[n] for n in ("rows", "given", "precision", "recall", "f1", "threshold")]
    names += [words["f1_of"].format(name=other.name) for other in others]
    return Table(
        title=words["labels"],
        notes=[words["labels_note"].format(name=main.name)],
        columns=[Column(name=words["label"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
        folded=len(rows) > LONGEST_OPEN_TABLE,
    )


def _quote(row: LabelledRow, words: Words) -> Quote:
    remarks = [words["quote_gold"].format(label=", ".join(row.gold) or "–")]
    for name, labels in (("quote_missing", row.missing), ("quote_extra", row.extra)):
        if labels:
            remarks.append(words[name].format(label=", ".join(labels)))
    return Quote(texts=row.texts, remarks=[*remarks, words["quote_row"].format(row=row.row)])
