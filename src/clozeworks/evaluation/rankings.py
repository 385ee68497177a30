"""Judging a model that puts candidates in order."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import percent, slices_table
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, resampled
from clozeworks.evaluation.figures import Axes, Line, curves_panel, legend
from clozeworks.evaluation.lexical import lexical_orders
from clozeworks.evaluation.sections import (
    Column,
    Figure,
    Number,
    Numbers,
    Quote,
    Quotes,
    Section,
    Table,
)
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.rank import RankMetrics, ndcg, rank_metrics
from clozeworks.tasks.base import Task
from clozeworks.tasks.rerank import RerankExample, RerankPrediction, named

CUT = 10
"""How many of the first candidates the main figures look at."""
DRAWN = 20
"""How far down the drawing goes."""


class MisplacedRow(Row):
    """A query whose first candidate is not relevant."""

    query: str
    first: str
    """What was put first."""
    relevant: str
    """The best placed relevant one."""
    place: int
    """Where that stands, from 1."""


class Ordering(Record):
    """One way of putting the candidates in order, judged."""

    metrics: RankMetrics
    found: list[float]
    """Share of the queries of which something relevant is among the first 1, 2, …"""


class RankingsEvaluation(Marked):
    """All that is known of one such model on one set of rows; right is a relevant first.

    Marks are of the queries to which something is relevant; others are left out.
    """

    task: Literal["rerank"] = "rerank"
    model: Ordering
    given: Ordering
    """The order of the file."""
    lexical: Ordering
    """That of BM25."""
    ndcg: Interval
    slices: list[Slice]
    """By length and language of the query."""
    mistakes: list[MisplacedRow]
    """The farthest off first."""


def judge_rankings(
    task: Task,
    predictions: Sequence[RerankPrediction],
    examples: Sequence[RerankExample],
    name: str,
) -> RankingsEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or none with anything relevant."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    grades = [named(np.asarray(task.target(example))) for example in examples]
    orders = [[r.index for r in p.ranked] for p in predictions]
    judged = [i for i, own in enumerate(grades) if any(own.values())]
    model = _ordering(orders, grades)
    gains = np.array([ndcg([str(j) for j in orders[i]], grades[i], CUT) for i in judged])

    def mean(rows: Ints) -> float:
        return float(gains[rows].mean())

    interval = resampled(mean, len(gains))
    assert interval is not None
    right = np.array([grades[i][str(orders[i][0])] > 0 for i in judged])
    lists = [e.candidates for e in examples]
    lexical = lexical_orders([e.query for e in examples], lists)
    pairs = zip(examples, grades, strict=True)
    rows = ([e.query, *e.candidates, *map(str, g.values())] for e, g in pairs)
    return RankingsEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        model=model,
        given=_ordering([list(range(len(own))) for own in lists], grades),
        lexical=_ordering(lexical, grades),
        ndcg=interval,
        slices=slices([examples[i].query for i in judged], right, np.ones_like(right)),
        mistakes=_mistakes(judged, orders, grades, examples),
    )


def _ordering(orders: Sequence[Sequence[int]], grades: Sequence[Mapping[str, float]]) -> Ordering:
    metrics = rank_metrics([[str(i) for i in order] for order in orders], grades)
    places = np.array(
        [_place(o, g) for o, g in zip(orders, grades, strict=True) if any(g.values())]
    )
    most = min(DRAWN, max(map(len, orders)))
    found = [float((places <= k).mean()) for k in range(1, most + 1)]
    return Ordering(metrics=metrics, found=found)


def _place(order: Sequence[int], grades: Mapping[str, float]) -> int:
    """Where the first relevant candidate stands, from 1."""
    return next(place for place, i in enumerate(order, 1) if grades[str(i)] > 0)


def _mistakes(
    judged: Sequence[int],
    orders: Sequence[Sequence[int]],
    grades: Sequence[Mapping[str, float]],
    examples: Sequence[RerankExample],
) -> list[MisplacedRow]:
    placed = [(_place(orders[i], grades[i]), i) for i in judged]
    wrong = sorted((-place, i) for place, i in placed if place > 1)
    return [
        MisplacedRow(
            row=i + 1,
            query=quoted(examples[i].query),
            first=quoted(examples[i].candidates[orders[i][0]]),
            relevant=quoted(examples[i].candidates[orders[i][-place - 1]]),
            place=-place,
        )
        for place, i in wrong[:QUOTED_ROWS]
    ]


def rankings_sections(
    evaluations: Sequence[RankingsEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables."""
    words, main = catalogue(language), evaluations[0]
    orders = [(e.name, e.model) for e in evaluations]
    orders += [(words["order_lexical"], main.lexical), (words["order_given"], main.given)]
    made: list[Section] = [_summary(main, words), _table(orders, words), _figure(orders, words)]
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "first_relevant"))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["rankings_mistakes_note"]]
        made.append(Quotes(title=words["rankings_mistakes"], notes=notes, items=items))
    return made


def _summary(main: RankingsEvaluation, words: Words) -> Numbers:
    metrics = main.model.metrics
    said = words["rankings_summary"].format(
        name=main.name,
        queries=metrics.queries,
        ndcg=percent(main.ndcg.estimate),
        low=percent(main.ndcg.low),
        high=percent(main.ndcg.high),
        lexical=percent(main.lexical.metrics.ndcg[CUT]),
    )
    left_out = words["rankings_without"].format(without=metrics.without)
    items = [
        ("ndcg", main.ndcg.estimate, "ndcg_remark"),
        ("mrr", metrics.mrr[CUT], "mrr_remark"),
        ("map", metrics.map, "map_remark"),
        ("first_relevant", metrics.mrr[1], "first_relevant_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(
        title=words["summary"], notes=[said, *[left_out] * (metrics.without > 0)], items=numbers
    )


def _table(orders: Sequence[tuple[str, Ordering]], words: Words) -> Table:
    names = [words[n] for n in ("ndcg", "mrr", "map", "first_relevant")]
    names += [words["recall_at"].format(k=k) for k in orders[0][1].metrics.recall]
    rows = []
    for name, order in orders:
        m = order.metrics
        shares = [m.ndcg[CUT], m.mrr[CUT], m.map, m.mrr[1], *m.recall.values()]
        rows.append([name, *map(percent, shares)])
    return Table(
        title=words["orders"],
        notes=[words["orders_note"]],
        columns=[Column(name=words["order"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
    )


def _figure(orders: Sequence[tuple[str, Ordering]], words: Words) -> Figure:
    lines = [
        Line(name, list(range(1, len(order.found) + 1)), order.found) for name, order in orders
    ]
    axes = Axes(words["axis_first"], words["axis_found"], y_share=True, x_whole=True)
    return Figure(
        title=words["found_title"],
        notes=[words["found_note"]],
        panels=[curves_panel(lines, axes, words["found_caption"])],
        legend=legend(lines),
    )


def _quote(row: MisplacedRow, words: Words) -> Quote:
    return Quote(
        texts=[row.query],
        remarks=[
            words["quote_first"].format(label=row.first),
            words["quote_relevant"].format(label=row.relevant, place=row.place),
            words["quote_row"].format(row=row.row),
        ],
    )
