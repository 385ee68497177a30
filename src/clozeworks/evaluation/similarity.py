"""Judging sentence vectors by scored pairs: are those alike that people call alike?"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.compare import Interval, Judged, Row, digest_rows, resampled
from clozeworks.evaluation.figures import Axes, Line, curves_panel, legend, scatter_panel
from clozeworks.evaluation.sections import Figure, Number, Numbers, Quote, Quotes, Section
from clozeworks.metrics.regress import Floats, pearson, ranks, spearman
from clozeworks.tasks._vectors import EmbedPrediction
from clozeworks.tasks.embed import EmbedExample

FEWEST = 5
"""Rows below which a correlation says nothing."""
DRAWN = 1000
"""Rows drawn at most."""
BINS = 16
"""Steps of the cosine that rows are counted by."""
BANDS = 3
"""Parts of the scores' range that are told apart."""


class Band(Record):
    """The pairs with scores in one part of the range."""

    low: float
    high: float
    rows: int
    shares: list[float]
    """Of its rows, those in each step of the cosine."""


class ScoredPair(Row):
    """A pair of texts, how alike they are, and how alike their vectors."""

    texts: list[str]
    score: float
    similarity: float


class SimilarityEvaluation(Judged):
    """All that is known of one model's vectors on one set of scored pairs."""

    task: Literal["embed"] = "embed"
    kind: Literal["scored"] = "scored"
    rows: int
    spearman: Interval | None
    pearson: Interval | None
    """Both None where one side is constant, or rows are too few."""
    scores: list[float]
    similarities: list[float]
    """Of the rows drawn, evenly chosen where there are many."""
    steps: list[float]
    """The middle of each step of the cosine."""
    bands: list[Band]
    mistakes: list[ScoredPair]
    """Those farthest from their place in the order first."""


def judge_similarity(
    predictions: Sequence[EmbedPrediction], examples: Sequence[EmbedExample], name: str
) -> SimilarityEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or one without a score."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    gold: Floats = np.array([_score(row, e) for row, e in enumerate(examples, 1)], np.float64)
    given: Floats = np.array([p.similarity for p in predictions], np.float64)

    def straight(rows: Ints) -> float | None:
        return pearson(gold[rows], given[rows]) if len(rows) >= FEWEST else None

    def ranked(rows: Ints) -> float | None:
        return spearman(gold[rows], given[rows]) if len(rows) >= FEWEST else None

    drawn = np.unique(np.linspace(0, len(gold) - 1, min(len(gold), DRAWN)).astype(int))
    edges = np.linspace(min(0.0, float(given.min())), 1, BINS + 1)
    texts = ([e.text, e.text_pair or "", str(e.score)] for e in examples)
    return SimilarityEvaluation(
        name=name,
        rows_digest=digest_rows(texts),
        rows=len(examples),
        spearman=resampled(ranked, len(gold), share=False),
        pearson=resampled(straight, len(gold), share=False),
        scores=gold[drawn].tolist(),
        similarities=given[drawn].tolist(),
        steps=((edges[1:] + edges[:-1]) / 2).tolist(),
        bands=_bands(gold, given, edges),
        mistakes=_mistakes(examples, gold, given),
    )


def _score(row: int, example: EmbedExample) -> float:
    if example.score is None:
        raise UserError(
            f"row {row} has no score; judge rows of one kind (positive or score) at a time"
        )
    return example.score


def _bands(gold: Floats, given: Floats, edges: Floats) -> list[Band]:
    """Parts of equal width of the scores' range that hold rows."""
    ends = np.linspace(gold.min(), gold.max(), BANDS + 1)
    place = np.clip(np.searchsorted(ends, gold, side="right") - 1, 0, BANDS - 1)
    found = []
    for i in range(BANDS):
        own = given[place == i]
        if len(own):
            counts = np.histogram(own, edges)[0] / len(own)
            band = {"low": float(ends[i]), "high": float(ends[i + 1]), "rows": len(own)}
            found.append(Band(**band, shares=counts.tolist()))
    return found


def _mistakes(examples: Sequence[EmbedExample], gold: Floats, given: Floats) -> list[ScoredPair]:
    far = np.argsort(-np.abs(ranks(gold) - ranks(given)), kind="stable")[:QUOTED_ROWS].tolist()
    return [
        ScoredPair(
            row=i + 1,
            texts=[quoted(examples[i].text), quoted(examples[i].text_pair or "")],
            score=gold[i],
            similarity=given[i],
        )
        for i in far
    ]


def similarity_summary(evaluation: SimilarityEvaluation) -> str:
    """Both correlations with their intervals."""
    said = [
        f"{name} {interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        for name, interval in (("Spearman", evaluation.spearman), ("Pearson", evaluation.pearson))
        if interval is not None
    ]
    return ", ".join(said) or "no correlation: one side is constant, or rows are too few"


def similarity_sections(
    evaluations: Sequence[SimilarityEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the drawings."""
    words, main = catalogue(language), evaluations[0]
    axes = Axes(words["axis_score"], words["axis_cosine"])
    caption = words["similarity_caption"]
    panels = [
        scatter_panel(e.scores, e.similarities, axes, caption.format(name=e.name), diagonal=False)
        for e in evaluations
    ]
    notes = [words["similarity_note"]]
    scatter = Figure(title=words["similarity_title"], notes=notes, panels=panels)
    quotes = [_quote(row, words) for row in main.mistakes]
    notes = [words["similarity_mistakes_note"]]
    mistakes = Quotes(title=words["numbers_mistakes"], notes=notes, items=quotes)
    return [_summary(main, words), scatter, _histogram(evaluations, words), mistakes]


def _summary(main: SimilarityEvaluation, words: Words) -> Numbers:
    items = []
    for name, interval in (("spearman", main.spearman), ("pearson", main.pearson)):
        value, remark = "–", words["constant"]
        if interval is not None:
            value = f"{interval.estimate:.3f}"
            remark = f"{words['interval']}: {interval.low:.3f} – {interval.high:.3f}"
        items.append(Number(value=value, name=words[name], remark=remark))
    said = words["similarity_summary"].format(name=main.name, rows=main.rows)
    return Numbers(title=words["summary"], notes=[said], items=items)


def _histogram(evaluations: Sequence[SimilarityEvaluation], words: Words) -> Figure:
    axes = Axes(words["axis_cosine"], words["axis_pairs"], y_share=True)
    drawn = [_lines(e, words) for e in evaluations]
    caption = words["bands_caption"]
    panels = [
        curves_panel(lines, axes, caption.format(name=e.name))
        for lines, e in zip(drawn, evaluations, strict=True)
    ]
    notes = [words["bands_note"]]
    return Figure(title=words["bands_title"], notes=notes, panels=panels, legend=legend(drawn[0]))


def _lines(evaluation: SimilarityEvaluation, words: Words) -> list[Line]:
    said = words["legend_band"]
    return [
        Line(said.format(low=f"{b.low:.3g}", high=f"{b.high:.3g}"), evaluation.steps, b.shares)
        for b in evaluation.bands
    ]


def _quote(row: ScoredPair, words: Words) -> Quote:
    return Quote(
        texts=row.texts,
        remarks=[
            words["quote_score"].format(score=f"{row.score:g}"),
            words["quote_cosine"].format(cosine=f"{row.similarity:.3f}"),
            words["quote_row"].format(row=row.row),
        ],
    )
