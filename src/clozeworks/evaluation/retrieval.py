"""Judging sentence vectors by what they find: does a text find its positive among all?"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import percent, slices_table
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, resampled
from clozeworks.evaluation.figures import Axes, counts_panel
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
from clozeworks.metrics.rank import RankMetrics
from clozeworks.tasks._vectors import EmbedPrediction, Retrieval, retrieval
from clozeworks.tasks.embed import EmbedExample

PLACES = (1, 2, 3, 5, 10, 50)
"""Where the groups of places end that queries are counted by; the last group is open."""


class MissedRow(Row):
    """A row whose positive did not come first."""

    text: str
    positive: str
    instead: str
    """What came first."""
    rank: int
    """The place of the first right one."""


class RetrievalEvaluation(Marked):
    """All that is known of one model's vectors on one set of pairs.

    Marks are of different texts, in the order in which they come: right is one whose positive came
    first.
    """

    task: Literal["embed"] = "embed"
    kind: Literal["pairs"] = "pairs"
    metrics: RankMetrics
    pool: int
    """How many different positives there are to choose from."""
    first: Interval
    """The share of texts that find a positive of theirs first."""
    reciprocal: Interval
    """The mean of one over the place of the first right one, 0 beyond the tenth."""
    places: list[int]
    """Texts by the place of their first right one, in the groups of PLACES."""
    slices: list[Slice]
    """By length and language of the text."""
    mistakes: list[MissedRow]
    """The farthest down first."""


def judge_retrieval(
    predictions: Sequence[EmbedPrediction], examples: Sequence[EmbedExample], name: str
) -> RetrievalEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or one without a positive."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    for row, example in enumerate(examples, 1):
        if example.positive is None:
            raise UserError(
                f"row {row} has no positive; judge rows of one kind (positive or score) at a time"
            )
    done = retrieval(predictions, examples)
    ranks = done.found.ranks
    right, near = ranks == 1, np.where(ranks <= 10, 1 / ranks, 0.0)

    def first(rows: Ints) -> float:
        return float(right[rows].mean())

    def reciprocal(rows: Ints) -> float:
        return float(near[rows].mean())

    intervals = resampled(first, len(ranks)), resampled(reciprocal, len(ranks))
    assert intervals[0] is not None and intervals[1] is not None
    texts = list(dict.fromkeys(example.text for example in examples))
    groups = np.searchsorted(PLACES, ranks)
    return RetrievalEvaluation(
        name=name,
        rows_digest=digest_rows([e.text, e.positive or ""] for e in examples),
        marks=marks_of(right),
        metrics=done.metrics,
        pool=len(done.candidates),
        first=intervals[0],
        reciprocal=intervals[1],
        places=np.bincount(groups, minlength=len(PLACES) + 1).tolist(),
        slices=slices(texts, right, np.ones_like(right)),
        mistakes=_mistakes(examples, done),
    )


def _mistakes(examples: Sequence[EmbedExample], done: Retrieval) -> list[MissedRow]:
    ranks = done.found.ranks
    _, rows = np.unique(done.query, return_index=True)  # of each different text its first row
    far = np.argsort(-ranks, kind="stable")
    return [
        MissedRow(
            row=int(rows[i]) + 1,
            text=quoted(examples[rows[i]].text),
            positive=quoted(examples[rows[i]].positive or ""),
            instead=quoted(done.candidates[done.found.first[i, 0]]),
            rank=int(ranks[i]),
        )
        for i in far[:QUOTED_ROWS].tolist()
        if ranks[i] > 1
    ]


def retrieval_summary(evaluation: RetrievalEvaluation) -> str:
    """MRR and recall with their intervals, and among how many texts was looked."""
    m, first, reciprocal = evaluation.metrics, evaluation.first, evaluation.reciprocal
    return (
        f"MRR@10 {reciprocal.estimate:.4f} ({reciprocal.low:.4f} to {reciprocal.high:.4f}), "
        f"found first {first.estimate:.2%} ({first.low:.2%} to {first.high:.2%}), recall@10 "
        f"{m.recall[10]:.2%}, nDCG@10 {m.ndcg[10]:.4f}; {m.queries:,} texts, "
        f"{evaluation.pool:,} positives"
    )


def retrieval_sections(
    evaluations: Sequence[RetrievalEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables and the drawing."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _table(evaluations, words)]
    made.append(_places(evaluations, words))
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "found_first"))
    if main.mistakes:
        quotes = [_quote(row, words) for row in main.mistakes]
        notes = [words["retrieval_mistakes_note"]]
        made.append(Quotes(title=words["retrieval_mistakes"], notes=notes, items=quotes))
    return made


def _summary(main: RetrievalEvaluation, words: Words) -> Numbers:
    said = words["retrieval_summary"].format(
        name=main.name,
        queries=main.metrics.queries,
        pool=main.pool,
        first=percent(main.first.estimate),
        low=percent(main.first.low),
        high=percent(main.first.high),
    )
    items = [
        Number(
            value=f"{main.reciprocal.estimate:.3f}",
            name=words["retrieval_mrr"],
            remark=f"{words['interval']}: {main.reciprocal.low:.3f} – {main.reciprocal.high:.3f}",
        ),
        Number(
            value=percent(main.first.estimate),
            name=words["found_first"],
            remark=words["found_first_remark"],
        ),
        Number(
            value=percent(main.metrics.recall[10]),
            name=words["recall_ten"],
            remark=words["recall_ten_remark"],
        ),
        Number(
            value=f"{main.metrics.ndcg[10]:.3f}",
            name=words["retrieval_ndcg"],
            remark=words["retrieval_ndcg_remark"],
        ),
    ]
    return Numbers(title=words["summary"], notes=[said], items=items)


def _table(evaluations: Sequence[RetrievalEvaluation], words: Words) -> Table:
    """Recall, MRR and nDCG by how many of the first are looked at, a row for each model and cut."""
    names = [words[n] for n in ("model", "looked_at", "recall", "retrieval_mrr", "retrieval_ndcg")]
    numeric = [False, True, True, True, True]
    return Table(
        title=words["cuts"],
        notes=[words["cuts_note"]],
        columns=[Column(name=n, numeric=x) for n, x in zip(names, numeric, strict=True)],
        rows=[
            [e.name, str(k), percent(e.metrics.recall[k])]
            + [f"{values[k]:.3f}" for values in (e.metrics.mrr, e.metrics.ndcg)]
            for e in evaluations
            for k in e.metrics.recall
        ],
    )


def _places(evaluations: Sequence[RetrievalEvaluation], words: Words) -> Figure:
    """How many texts found their positive at each place."""
    starts = (1, *(place + 1 for place in PLACES))
    names = [str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, PLACES, strict=False)]
    names.append(f"> {PLACES[-1]}")
    axes = Axes(words["axis_place"], words["axis_texts"], y_share=True)
    panels = []
    for e in evaluations:
        shares = [count / sum(e.places) for count in e.places]
        panels.append(
            counts_panel(names, shares, axes, words["places_caption"].format(name=e.name))
        )
    return Figure(
        title=words["places_title"], notes=[words["retrieval_places_note"]], panels=panels
    )


def _quote(row: MissedRow, words: Words) -> Quote:
    return Quote(
        texts=[row.text, row.positive],
        remarks=[
            words["quote_instead"].format(text=row.instead),
            words["quote_place"].format(place=row.rank),
            words["quote_row"].format(row=row.row),
        ],
    )
