"""Judging a model that finds entities."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import (
    LONGEST_OPEN_TABLE,
    f1_figure,
    percent,
    slices_table,
)
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, resampled
from clozeworks.evaluation.sections import Column, Number, Numbers, Quote, Quotes, Section, Table
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.classify import Averages
from clozeworks.metrics.tag import TagMetrics, TypeRow, tag_metrics
from clozeworks.tasks.tag import TagExample, TagPrediction, entities_of, text_of
from clozeworks.text.tags import Span

Fault = Literal["missed", "invented", "bounds", "type"]
FAULTS: dict[Fault, str] = {
    "missed": "fault_missed",
    "invented": "fault_invented",
    "bounds": "fault_bounds",
    "type": "fault_type",
}
"""What can be wrong, and what a page calls it; two that meet at one place are one fault."""


class FaultyRow(Row):
    """A row in which not every entity is right."""

    text: str
    missing: list[str]
    """Gold entities that were not found, as "text (type)"."""
    extra: list[str]
    """Entities found that are none."""
    confidence: float
    """The largest of the wrong ones' confidences; 0 where something is missing only."""


class EntitiesEvaluation(Marked):
    """All that is known of one such model on one set of rows; right is a row without fault."""

    task: Literal["tag"] = "tag"
    metrics: TagMetrics
    f1: Interval
    """Micro F1 over all entities."""
    faults: dict[Fault, int]
    slices: list[Slice]
    mistakes: list[FaultyRow]
    """The surest first."""


def judge_entities(
    predictions: Sequence[TagPrediction], examples: Sequence[TagExample], name: str
) -> EntitiesEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or one without gold entities."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold = [set(entities_of(example)) for example in examples]
    found = [{Span(e.start, e.end, e.label) for e in p.entities} for p in predictions]
    texts = [text_of(example) for example in examples]
    pairs = list(zip(gold, found, strict=True))
    hits = np.array([len(g & f) for g, f in pairs])
    both = np.array([len(g) + len(f) for g, f in pairs])

    def micro(rows: Ints) -> float:
        return float(2 * hits[rows].sum() / max(1, both[rows].sum()))

    f1 = resampled(micro, len(examples))
    assert f1 is not None
    right = np.array([g == f for g, f in pairs])
    faults = Counter(fault for g, f in pairs for fault in _faults(g - f, f - g))
    rows = ([text, *map(str, sorted(g))] for text, g in zip(texts, gold, strict=True))
    return EntitiesEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        metrics=tag_metrics(gold, found),
        f1=f1,
        faults={fault: faults[fault] for fault in FAULTS},
        slices=slices(texts, right, np.ones_like(right)),
        mistakes=_mistakes(texts, pairs, predictions),
    )


def _faults(missing: set[Span], extra: set[Span]) -> Iterator[Fault]:
    left = sorted(extra)
    for span in sorted(missing):
        touching = [e for e in left if e.start < span.end and span.start < e.end]
        met = next((e for e in touching if e[:2] == span[:2]), next(iter(touching), None))
        if met is None:
            yield "missed"
            continue
        left.remove(met)
        yield "type" if met[:2] == span[:2] else "bounds"
    for _ in left:
        yield "invented"


def _mistakes(
    texts: Sequence[str],
    pairs: Sequence[tuple[set[Span], set[Span]]],
    predictions: Sequence[TagPrediction],
) -> list[FaultyRow]:
    faulty = []
    for i, (gold, found) in enumerate(pairs):
        if gold == found:
            continue
        given = {Span(e.start, e.end, e.label): e.confidence for e in predictions[i].entities}
        row = FaultyRow(
            row=i + 1,
            text=quoted(texts[i]),
            missing=[_shown(span, texts[i]) for span in sorted(gold - found)],
            extra=[_shown(span, texts[i]) for span in sorted(found - gold)],
            confidence=max((given[span] for span in found - gold), default=0.0),
        )
        faulty.append(row)
    return sorted(faulty, key=lambda row: -row.confidence)[:QUOTED_ROWS]


def _shown(span: Span, text: str) -> str:
    return f"{quoted(text[span.start : span.end])} ({span.type})"


def entities_sections(
    evaluations: Sequence[EntitiesEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _types(evaluations, words)]
    there = sorted((row for row in main.metrics.types if row.gold), key=lambda row: row.f1)
    made += f1_figure([(row.type, row.f1) for row in there], words, "types_caption")
    made.append(_fault_table(evaluations, words))
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "entities_right"))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["entities_mistakes_note"]]
        made.append(Quotes(title=words["mistakes"], notes=notes, items=items))
    return made


def _summary(main: EntitiesEvaluation, words: Words) -> Numbers:
    metrics = main.metrics
    said = words["entities_summary"].format(
        name=main.name,
        right=metrics.right,
        gold=metrics.gold,
        predicted=metrics.predicted,
        f1=percent(main.f1.estimate),
        low=percent(main.f1.low),
        high=percent(main.f1.high),
    )
    items = [
        ("micro_f1", main.f1.estimate, "entities_f1_remark"),
        ("precision", metrics.micro.precision, "entities_precision_remark"),
        ("recall", metrics.micro.recall, "entities_recall_remark"),
        ("macro_f1", metrics.macro.f1, "entities_macro_remark"),
        ("entities_right", metrics.whole, "entities_right_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(title=words["summary"], notes=[said], items=numbers)


def _types(evaluations: Sequence[EntitiesEvaluation], words: Words) -> Table:
    main, *others = evaluations
    by_name = [{row.type: row for row in other.metrics.types} for other in others]
    order = sorted(main.metrics.types, key=lambda row: (not row.gold, row.f1))
    names = [words[n] for n in ("entities_gold", "entities_found", "precision", "recall", "f1")]
    names += [words["f1_of"].format(name=other.name) for other in others]
    totals = []
    for kind in ("micro", "macro"):
        means: list[Averages] = [getattr(e.metrics, kind) for e in evaluations]
        cells = [words[kind], str(main.metrics.gold), str(main.metrics.predicted)]
        cells += [percent(x) for x in (means[0].precision, means[0].recall)]
        totals.append([*cells, *(percent(mean.f1) for mean in means)])
    return Table(
        title=words["types"],
        notes=[words["types_note"].format(name=main.name)],
        columns=[Column(name=words["type"], numeric=False), *(Column(name=n) for n in names)],
        rows=[[*_cells(row), *(_f1(known.get(row.type)) for known in by_name)] for row in order],
        totals=totals,
        folded=len(order) > LONGEST_OPEN_TABLE,
    )


def _cells(row: TypeRow) -> list[str]:
    shares = (row.precision if row.predicted else None, row.recall if row.gold else None)
    return [row.type, str(row.gold), str(row.predicted), *map(percent, shares), _f1(row)]


def _f1(row: TypeRow | None) -> str:
    return percent(None if row is None else row.f1)


def _fault_table(evaluations: Sequence[EntitiesEvaluation], words: Words) -> Table:
    names = [words["times"]] if len(evaluations) == 1 else [e.name for e in evaluations]
    return Table(
        title=words["faults"],
        notes=[words["faults_note"]],
        columns=[Column(name=words["fault"], numeric=False), *(Column(name=n) for n in names)],
        rows=[
            [words[name], *(str(e.faults[fault]) for e in evaluations)]
            for fault, name in FAULTS.items()
        ],
    )


def _quote(row: FaultyRow, words: Words) -> Quote:
    remarks = []
    for name, shown in (("quote_missing", row.missing), ("quote_extra", row.extra)):
        if shown:
            remarks.append(words[name].format(label=", ".join(shown)))
    if row.confidence:
        remarks.append(words["quote_confidence"].format(confidence=percent(row.confidence)))
    return Quote(texts=[row.text], remarks=[*remarks, words["quote_row"].format(row=row.row)])
