"""Judging a model that tells relations."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS
from clozeworks.evaluation.classify_sections import (
    LONGEST_OPEN_TABLE,
    Sureness,
    percent,
    reliability_figure,
    slices_table,
)
from clozeworks.evaluation.compare import (
    Interval,
    Marked,
    Row,
    digest_rows,
    marks_of,
    proportion,
    resampled,
)
from clozeworks.evaluation.figures import Axes, Bar, bars_panel
from clozeworks.evaluation.matrix import NAMED_COLUMNS
from clozeworks.evaluation.sections import (
    Column,
    Figure,
    Matrix,
    Number,
    Numbers,
    Quote,
    Quotes,
    Section,
    Table,
)
from clozeworks.evaluation.slices import Slice, quarters, slices
from clozeworks.evaluation.slices import words as count_words
from clozeworks.metrics.calibrate import (
    Bools,
    ReliabilityBin,
    expected_calibration_error,
    reliability_bins,
)
from clozeworks.metrics.relation import RelationMetrics, RelationRow, relation_metrics, tally
from clozeworks.tasks.base import Task
from clozeworks.tasks.relation import (
    RelationConfig,
    RelationExample,
    RelationPrediction,
    places_of,
)
from clozeworks.text.marked import Stretch

AROUND = 60
"""Characters of the text that are quoted on either side of the spans."""


class Distance(Record):
    """Rows whose spans stand so many words apart."""

    shortest: int
    longest: int
    rows: int
    right: int


class Way(Record):
    """Rows whose subject stands before its object, or after."""

    way: Literal["subject_first", "object_first", "overlapping"]
    rows: int
    right: int


class RelatedRow(Row):
    """A row whose relation is wrong."""

    text: str
    """With the subject in [ ] and the object in ⟨ ⟩."""
    gold: str
    given: str
    confidence: float


class RelationsEvaluation(Marked):
    """All that is known of one such model on one set of rows."""

    task: Literal["relation"] = "relation"
    labels: list[str]
    no_relation: str
    metrics: RelationMetrics
    macro_f1: Interval
    micro_f1: Interval
    accuracy: Interval
    majority: float
    """What giving every row the most frequent label would come to, in accuracy."""
    confusion: list[list[int]]
    distances: list[Distance]
    ways: list[Way]
    temperature: float
    calibration_error: float
    reliability: list[ReliabilityBin]
    slices: list[Slice]
    mistakes: list[RelatedRow]
    """The surest first."""


def judge_relations(
    task: Task,
    predictions: Sequence[RelationPrediction],
    examples: Sequence[RelationExample],
    name: str,
) -> RelationsEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or a label never seen."""
    assert isinstance(task.config, RelationConfig)
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold = np.array([_gold(task, row, e) for row, e in enumerate(examples, 1)], dtype=np.int64)
    given = np.array([task.labels.index(p.label) for p in predictions], dtype=np.int64)
    none, labels = task.config.no_relation, task.labels
    right = gold == given

    def macro(rows: Ints) -> float:
        return tally(gold[rows], given[rows], labels, none).macro_f1

    def micro(rows: Ints) -> float:
        return tally(gold[rows], given[rows], labels, none).micro.f1

    macro_f1, micro_f1 = resampled(macro, len(gold)), resampled(micro, len(gold))
    assert macro_f1 is not None and micro_f1 is not None
    placed = [places_of(example) for example in examples]
    confidence = np.array([p.confidence for p in predictions])
    rows = (
        [text, *map(str, (*one, *other)), labels[g]]
        for (text, one, other), g in zip(placed, gold, strict=True)
    )
    return RelationsEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        labels=labels,
        no_relation=none,
        metrics=relation_metrics([labels[i] for i in gold], [labels[i] for i in given], none),
        macro_f1=macro_f1,
        micro_f1=micro_f1,
        accuracy=proportion(int(right.sum()), len(right)),
        majority=float(np.bincount(gold).max() / len(gold)),
        confusion=tally(gold, given, labels).confusion.tolist(),
        distances=_distances([_between(*place) for place in placed], right),
        ways=_ways([_way(one, other) for _, one, other in placed], right),
        temperature=task.calibration.temperature,
        calibration_error=expected_calibration_error(confidence, right),
        reliability=reliability_bins(confidence, right),
        slices=slices([text for text, _, _ in placed], right, np.ones_like(right)),
        mistakes=_mistakes(placed, [labels[i] for i in gold], predictions),
    )


def _gold(task: Task, row: int, example: RelationExample) -> int:
    place = task.target(example)
    if not isinstance(place, int) or place < 0:
        raise UserError(f"row {row} has no label; evaluation needs one on every row")
    return place


def _between(text: str, one: Stretch, other: Stretch) -> int:
    """The words between two spans; 0 where they touch or overlap."""
    start, end = min(one.end, other.end), max(one.start, other.start)
    return count_words(text[start:end]) if start < end else 0


def _distances(lengths: Sequence[int], right: Bools) -> list[Distance]:
    found, far = [], np.array(lengths, dtype=np.int64)
    for low, high in quarters(far):
        here = (far >= low) & (far <= high)
        rows, hits = int(here.sum()), int(right[here].sum())
        found.append(Distance(shortest=low, longest=high, rows=rows, right=hits))
    return found


def _way(one: Stretch, other: Stretch) -> Literal["subject_first", "object_first", "overlapping"]:
    if one.end <= other.start:
        return "subject_first"
    return "object_first" if other.end <= one.start else "overlapping"


def _ways(
    ways: Sequence[Literal["subject_first", "object_first", "overlapping"]], right: Bools
) -> list[Way]:
    found = []
    for way in ("subject_first", "object_first", "overlapping"):
        here = np.array([each == way for each in ways])
        if here.any():
            found.append(Way(way=way, rows=int(here.sum()), right=int(right[here].sum())))
    return found


def _mistakes(
    placed: Sequence[tuple[str, Stretch, Stretch]],
    gold: Sequence[str],
    predictions: Sequence[RelationPrediction],
) -> list[RelatedRow]:
    wrong = [i for i, p in enumerate(predictions) if p.label != gold[i]]
    wrong.sort(key=lambda i: -predictions[i].confidence)
    return [
        RelatedRow(
            row=i + 1,
            text=_shown(*placed[i]),
            gold=gold[i],
            given=predictions[i].label,
            confidence=predictions[i].confidence,
        )
        for i in wrong[:QUOTED_ROWS]
    ]


def _shown(text: str, one: Stretch, other: Stretch) -> str:
    """The text around both spans, the subject in [ ] and the object in ⟨ ⟩."""
    first = max(0, min(one.start, other.start) - AROUND)
    last = min(len(text), max(one.end, other.end) + AROUND)
    signs = [(one.start, 1, "["), (one.end, 0, "]"), (other.start, 1, "⟨"), (other.end, 0, "⟩")]
    shown, at = "…" if first else "", first
    for place, _, sign in sorted(signs):
        shown, at = shown + text[at:place] + sign, place
    return shown + text[at:last] + ("…" if last < len(text) else "")


def relations_sections(
    evaluations: Sequence[RelationsEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _relations(evaluations, words)]
    made += [_matrix(main, words), _distance_figure(main, words), _way_table(evaluations, words)]
    sure = [
        Sureness(e.name, e.calibration_error, e.temperature, e.reliability) for e in evaluations
    ]
    made.append(reliability_figure(sure, words))
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "accuracy"))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["relations_mistakes_note"]]
        made.append(Quotes(title=words["mistakes"], notes=notes, items=items))
    return made


def _summary(main: RelationsEvaluation, words: Words) -> Numbers:
    said = words["relations_summary"].format(
        name=main.name,
        rows=main.metrics.rows,
        f1=percent(main.macro_f1.estimate),
        low=percent(main.macro_f1.low),
        high=percent(main.macro_f1.high),
    )
    key = "relations_none" if main.no_relation else "relations_all"
    notes = [said, words[key].format(label=main.no_relation)]
    items = [
        ("macro_f1", main.macro_f1.estimate, "relations_macro_remark"),
        ("micro_f1", main.micro_f1.estimate, "relations_micro_remark"),
        ("accuracy", main.accuracy.estimate, "relations_accuracy_remark"),
        ("majority_label", main.majority, "majority_label_remark"),
        ("calibration_error", main.calibration_error, "calibration_error_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(title=words["summary"], notes=notes, items=numbers)


def _relations(evaluations: Sequence[RelationsEvaluation], words: Words) -> Table:
    main, *others = evaluations
    by_name = [{row.relation: row for row in other.metrics.relations} for other in others]
    order = sorted(main.metrics.relations, key=lambda row: (not row.gold, row.f1))
    names = [words[n] for n in ("rows", "given", "turned", "precision", "recall", "f1")]
    names += [words["f1_of"].format(name=other.name) for other in others]
    totals = [
        [words["macro"], *[""] * 5, *(percent(e.metrics.macro_f1) for e in evaluations)],
        [
            words["micro"],
            *[""] * 3,
            percent(main.metrics.micro.precision),
            percent(main.metrics.micro.recall),
            *(percent(e.metrics.micro.f1) for e in evaluations),
        ],
    ]
    return Table(
        title=words["relations"],
        notes=[words["relations_note"].format(name=main.name)],
        columns=[Column(name=words["relation"], numeric=False), *(Column(name=n) for n in names)],
        rows=[
            [*_cells(row), *(_f1(known.get(row.relation)) for known in by_name)] for row in order
        ],
        totals=totals,
        folded=len(order) > LONGEST_OPEN_TABLE,
    )


def _cells(row: RelationRow) -> list[str]:
    shares = (row.precision if row.predicted else None, row.recall if row.gold else None)
    counts = [str(n) for n in (row.gold, row.predicted, row.turned)]
    return [row.relation, *counts, *map(percent, shares), _f1(row)]


def _f1(row: RelationRow | None) -> str:
    return percent(row.f1 if row is not None and (row.gold or row.predicted) else None)


def _matrix(main: RelationsEvaluation, words: Words) -> Matrix:
    note = "confusion_note_named" if len(main.labels) <= NAMED_COLUMNS else "confusion_note"
    return Matrix(
        title=words["confusion"],
        notes=[words[note].format(name=main.name)],
        labels=main.labels,
        counts=main.confusion,
        down=words["confusion_down"],
        across=words["confusion_across"],
    )


def _distance_figure(main: RelationsEvaluation, words: Words) -> Figure:
    bars = []
    for d in main.distances:
        share = proportion(d.right, d.rows)
        name = str(d.shortest) if d.shortest == d.longest else f"{d.shortest}–{d.longest}"
        bars.append(Bar(name, share.estimate, share.low, share.high))
    axes = Axes(words["axis_between"], words["axis_accuracy"], y_share=True)
    return Figure(
        title=words["distances"],
        notes=[words["distances_note"]],
        panels=[bars_panel(bars, axes, words["distances_caption"])],
    )


def _way_table(evaluations: Sequence[RelationsEvaluation], words: Words) -> Table:
    names = [words["rows"]]
    names += [words["accuracy"]] if len(evaluations) == 1 else [e.name for e in evaluations]
    rows = [
        [words[alike[0].way], str(alike[0].rows)] + [percent(w.right / w.rows) for w in alike]
        for alike in zip(*(e.ways for e in evaluations), strict=True)
    ]
    turned = sum(row.turned for row in evaluations[0].metrics.relations)
    return Table(
        title=words["ways"],
        notes=[words["ways_note"].format(turned=turned)],
        columns=[Column(name=words["way"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
    )


def _quote(row: RelatedRow, words: Words) -> Quote:
    return Quote(
        texts=[row.text],
        remarks=[
            words["quote_gold"].format(label=row.gold),
            words["quote_best"].format(label=row.given),
            words["quote_confidence"].format(confidence=percent(row.confidence)),
            words["quote_row"].format(row=row.row),
        ],
    )
