"""Judging a model of masked tokens by how likely it finds whole texts."""

from collections.abc import Sequence
from math import exp, isqrt, log, log2
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import slice_name
from clozeworks.evaluation.compare import Interval, Judged, Row, digest_rows, resampled
from clozeworks.evaluation.figures import Axes, histogram_panel
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
from clozeworks.evaluation.slices import Slice, slices, within
from clozeworks.tasks.mlm import MlmExample, MlmPrediction, Scored

SHOWN_TOKENS = 5
"""Tokens of a quoted text that are named, the most surprising first."""
BARS = 24
"""Bars of the drawing at most."""


class TextSlice(Record):
    """The texts of one kind."""

    rows: Slice
    tokens: int
    perplexity: float | None
    """None where no token of them has a piece."""


class SurprisingRow(Row):
    """A text that the model finds unlikely."""

    text: str
    perplexity: float
    tokens: list[str]
    """Its most surprising tokens, as "token (bits)"."""


class LikelihoodEvaluation(Judged):
    """All that is known of one such model on one set of texts."""

    task: Literal["mlm"] = "mlm"
    rows: int
    tokens: int
    unknown: int
    """Tokens that the vocabulary has no piece for; they are left out."""
    log_likelihood: float
    """Of all tokens together, each hidden in turn: natural logarithm."""
    perplexity: Interval
    """exp(-log_likelihood / tokens); the interval by drawing texts."""
    bits: list[float]
    """Of each text with a scored token: its tokens' mean surprise in bits."""
    slices: list[TextSlice]
    surprising: list[SurprisingRow]
    """The least likely first."""


def judge_likelihood(
    predictions: Sequence[MlmPrediction], examples: Sequence[MlmExample], name: str
) -> LikelihoodEvaluation:
    """Judge one prediction a row; raises UserError for no rows, a [MASK], or no known token."""
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    for row, prediction in enumerate(predictions, 1):
        if prediction.fillings:
            raise UserError(
                f"row {row} has a [MASK]: texts are judged whole; `predict` fills them in"
            )
    known = [[t for t in p.tokens if t.log_probability is not None] for p in predictions]
    sums = np.array([sum(_log(t) for t in tokens) for tokens in known])
    counts = np.array([len(tokens) for tokens in known], dtype=np.int64)
    if not counts.sum():
        raise UserError("no token of these texts has a piece in the vocabulary; give other texts")

    def perplexity(rows: Ints) -> float | None:
        return _perplexity(float(sums[rows].sum()), int(counts[rows].sum()))

    whole = resampled(perplexity, len(examples), share=False)
    assert whole is not None
    texts = [example.text for example in examples]
    here = counts > 0
    bits = -sums[here] / counts[here] / log(2)
    ones = np.ones(len(texts), dtype=np.bool_)
    return LikelihoodEvaluation(
        name=name,
        rows_digest=digest_rows([text] for text in texts),
        rows=len(examples),
        tokens=int(counts.sum()),
        unknown=sum(len(p.tokens) for p in predictions) - int(counts.sum()),
        log_likelihood=float(sums.sum()),
        perplexity=whole,
        bits=bits.tolist(),
        slices=[
            TextSlice(rows=s, tokens=int(counts[rows].sum()), perplexity=perplexity(rows))
            for s in slices(texts, ones, ones)
            for rows in [within(s, texts)]
        ],
        surprising=_surprising(texts, known, sums / np.maximum(counts, 1)),
    )


def _log(token: Scored) -> float:
    return 0.0 if token.log_probability is None else token.log_probability


def _perplexity(total: float, count: int) -> float | None:
    return exp(min(700.0, -total / count)) if count else None


def _surprising(
    texts: Sequence[str], known: Sequence[list[Scored]], means: np.ndarray
) -> list[SurprisingRow]:
    order = [i for i in np.argsort(means, kind="stable").tolist() if known[i]][:QUOTED_ROWS]
    return [
        SurprisingRow(
            row=i + 1,
            text=quoted(texts[i]),
            perplexity=exp(min(700.0, -means[i])),
            tokens=[
                f"{t.token} ({-_log(t) / log(2):.1f})"
                for t in sorted(known[i], key=_log)[:SHOWN_TOKENS]
            ],
        )
        for i in order
    ]


def likelihood_sections(
    evaluations: Sequence[LikelihoodEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the table and the drawings."""
    words, main = catalogue(language), evaluations[0]
    axes = Axes(words["axis_bits"], words["axis_texts_share"], y_share=True)
    panels = [histogram_panel(*_bars(e.bits), axes, _caption(e, words)) for e in evaluations]
    notes = [words["surprise_note"]]
    made: list[Section] = [_summary(main, words)]
    made.append(Figure(title=words["surprise"], notes=notes, panels=panels))
    made.append(_slice_table(evaluations, words))
    items = [_quote(row, words) for row in main.surprising]
    notes = [words["surprising_note"]]
    return [*made, Quotes(title=words["surprising"], notes=notes, items=items)]


def _caption(evaluation: LikelihoodEvaluation, words: Words) -> str:
    half = float(np.median(evaluation.bits))
    return words["surprise_caption"].format(name=evaluation.name, bits=f"{half:.2f}")


def _bars(bits: Sequence[float]) -> tuple[list[float], list[float]]:
    """Edges of the bars, one more than bars, and the share of texts in each."""
    counts, edges = np.histogram(bits, bins=min(BARS, 3 + isqrt(4 * len(bits))))
    return edges.tolist(), (counts / len(bits)).tolist()


def _summary(main: LikelihoodEvaluation, words: Words) -> Numbers:
    found = main.perplexity
    said = words["likelihood_summary"].format(
        name=main.name,
        rows=f"{main.rows:,}",
        perplexity=f"{found.estimate:.2f}",
        low=f"{found.low:.2f}",
        high=f"{found.high:.2f}",
    )
    items = [
        ("perplexity", f"{found.estimate:.2f}", "perplexity_remark"),
        ("likelihood_bits", f"{log2(max(found.estimate, 1.0)):.2f}", "likelihood_bits_remark"),
        ("likelihood_tokens", f"{main.tokens:,}", "likelihood_tokens_remark"),
        ("likelihood_unknown", f"{main.unknown:,}", "likelihood_unknown_remark"),
    ]
    numbers = [Number(value=v, name=words[n], remark=words[r]) for n, v, r in items]
    return Numbers(title=words["summary"], notes=[said], items=numbers)


def _slice_table(evaluations: Sequence[LikelihoodEvaluation], words: Words) -> Table:
    names = [words["perplexity"]] if len(evaluations) == 1 else [e.name for e in evaluations]
    rows = []
    for i, main in enumerate(evaluations[0].slices):
        cells = [slice_name(main.rows, words), str(main.rows.rows), f"{main.tokens:,}"]
        rows.append([*cells, *(_shown(e.slices[i].perplexity) for e in evaluations)])
    columns = [words["rows"], words["likelihood_tokens"], *names]
    return Table(
        title=words["slices"],
        notes=[words["likelihood_slices_note"]],
        columns=[Column(name=words["slice"], numeric=False), *(Column(name=n) for n in columns)],
        rows=rows,
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _quote(row: SurprisingRow, words: Words) -> Quote:
    return Quote(
        texts=[row.text],
        remarks=[
            words["quote_perplexity"].format(perplexity=_shown(row.perplexity)),
            words["quote_tokens"].format(tokens=", ".join(row.tokens)),
            words["quote_row"].format(row=row.row),
        ],
    )
