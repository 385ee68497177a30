"""Judging a model that keeps sentences of documents."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import percent, slice_name
from clozeworks.evaluation.compare import Interval, Judged, Row, digest_rows, resampled
from clozeworks.evaluation.figures import Axes, Line, line_chart
from clozeworks.evaluation.sections import Column, Number, Numbers, Quote, Quotes, Section, Table
from clozeworks.evaluation.slices import Slice, slices, within
from clozeworks.metrics.extract import oracle
from clozeworks.metrics.generate import Rouge, rouge, rouge_means
from clozeworks.tasks.base import Task
from clozeworks.tasks.extract import (
    Extract,
    ExtractExample,
    ExtractPrediction,
    read,
    sentences_of,
    summaries_of,
)
from clozeworks.text.documents import as_one

KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rouge_l": "ROUGE-L"}
REMARKS = {
    "rouge1": "summaries_rouge1_remark",
    "rouge2": "summaries_rouge2_remark",
    "rouge_l": "summaries_rouge_l_remark",
}
FIRST = 20
"""Sentences of a document whose place is drawn."""


class DocumentSlice(Record):
    """The documents of one kind."""

    rows: Slice
    rouge1: float


class KeptRow(Row):
    """A document of which other sentences would have been better."""

    summary: str
    """The sentences kept."""
    reference: str
    kept: list[int]
    gold: list[int]
    rouge1: float
    oracle: float


class SummariesEvaluation(Judged):
    """All that is known of one such model on one set of documents."""

    task: Literal["extract"] = "extract"
    rows: int
    rouge: Rouge
    lead: Rouge
    """Of the first sentences, as many as the model keeps."""
    oracle: Rouge
    """Of the sentences nearest to the reference, at most as many as the model keeps."""
    intervals: dict[str, Interval]
    """Of the F1 of rouge1, rouge2 and rouge_l."""
    kept: float
    """Sentences kept of a document, on average; and so the next two."""
    lead_kept: float
    oracle_kept: float
    gold_share: float
    """Of the sentences kept, those that gold keeps too."""
    positions: dict[Literal["model", "gold", "lead"], list[float]]
    """Of the documents with a first, second, … sentence, the share that keep it."""
    slices: list[DocumentSlice]
    mistakes: list[KeptRow]
    """The farthest behind the oracle first."""


class _Row(NamedTuple):
    """One document: numbers of its sentences, and texts made of them."""

    sentences: list[str]
    kept: list[int]
    gold: list[int]
    best: list[int]
    references: list[str]

    def text(self, places: Iterable[int]) -> str:
        return as_one([self.sentences[i] for i in places])[0]

    def score(self, places: Iterable[int]) -> Rouge:
        return rouge(self.text(places), self.references)


def judge_summaries(
    task: Task,
    predictions: Sequence[ExtractPrediction],
    examples: Sequence[ExtractExample],
    name: str,
) -> SummariesEvaluation:
    """Judge one prediction a row; raises UserError for no rows."""
    assert isinstance(task, Extract)
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    rows = [_row(task, p, e) for p, e in zip(predictions, examples, strict=True)]
    scores = [row.score(row.kept) for row in rows]
    firsts = [list(range(min(len(row.kept), len(row.sentences)))) for row in rows]
    best = [row.score(row.best) for row in rows]
    texts = [read(example)[0] for example in examples]
    f1s = {kind: np.array([getattr(s, kind).f1 for s in scores]) for kind in KINDS}
    both = sum(len(set(row.kept) & set(row.gold)) for row in rows)
    ones = np.ones(len(rows), dtype=np.bool_)
    return SummariesEvaluation(
        name=name,
        rows_digest=digest_rows([text, *r.references] for text, r in zip(texts, rows, strict=True)),
        rows=len(rows),
        rouge=rouge_means(scores),
        lead=rouge_means([row.score(lead) for row, lead in zip(rows, firsts, strict=True)]),
        oracle=rouge_means(best),
        intervals={kind: _interval(values) for kind, values in f1s.items()},
        kept=_mean_length(row.kept for row in rows),
        lead_kept=_mean_length(firsts),
        oracle_kept=_mean_length(row.best for row in rows),
        gold_share=both / max(1, sum(len(row.kept) for row in rows)),
        positions={
            "model": _positions(rows, [row.kept for row in rows]),
            "gold": _positions(rows, [row.gold for row in rows]),
            "lead": _positions(rows, firsts),
        },
        slices=[
            DocumentSlice(rows=s, rouge1=float(f1s["rouge1"][within(s, texts)].mean()))
            for s in slices(texts, ones, ones)
        ],
        mistakes=_mistakes(rows, scores, best),
    )


def _row(task: Extract, prediction: ExtractPrediction, example: ExtractExample) -> _Row:
    sentences, references = sentences_of(example), summaries_of(example)
    kept = [sentence.index for sentence in prediction.sentences]
    best = list(oracle(sentences, references, max(1, len(kept))))
    return _Row(sentences, kept, list(task.gold(example)), best, references)


def _interval(values: np.ndarray) -> Interval:
    def mean(rows: Ints) -> float:
        return float(values[rows].mean())

    found = resampled(mean, len(values))
    assert found is not None
    return found


def _mean_length(places: Iterable[Sequence[int]]) -> float:
    return float(np.mean([len(some) for some in places]))


def _positions(rows: Sequence[_Row], kept: Sequence[Sequence[int]]) -> list[float]:
    lengths = np.array([len(row.sentences) for row in rows])
    most = min(FIRST, int(lengths.max()))
    counts = np.zeros(most)
    for some in kept:
        for place in some:
            if place < most:
                counts[place] += 1
    there = np.array([(lengths > place).sum() for place in range(most)])
    shares: list[float] = (counts / there).tolist()
    return shares


def _mistakes(
    rows: Sequence[_Row], scores: Sequence[Rouge], best: Sequence[Rouge]
) -> list[KeptRow]:
    behind = [b.rouge1.f1 - s.rouge1.f1 for s, b in zip(scores, best, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: -behind[i])
    return [
        KeptRow(
            row=i + 1,
            summary=quoted(rows[i].text(rows[i].kept)),
            reference=quoted(rows[i].references[0]),
            kept=rows[i].kept,
            gold=rows[i].gold,
            rouge1=scores[i].rouge1.f1,
            oracle=best[i].rouge1.f1,
        )
        for i in order[:QUOTED_ROWS]
        if behind[i] > 0
    ]


def summaries_sections(
    evaluations: Sequence[SummariesEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables and the drawing."""
    words, main = catalogue(language), evaluations[0]
    axes = Axes(words["axis_position"], words["axis_kept"], y_share=True, x_whole=True)
    figure = line_chart(
        words["summaries_positions"],
        words["summaries_positions_caption"],
        _lines(evaluations, words),
        axes,
    )
    figure = figure.model_copy(update={"notes": [words["summaries_positions_note"]]})
    made: list[Section] = [_summary(main, words), _ways(evaluations, words), figure]
    made.append(_slice_table(evaluations, words))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["summaries_mistakes_note"]]
        made.append(Quotes(title=words["summaries_mistakes"], notes=notes, items=items))
    return made


def _lines(evaluations: Sequence[SummariesEvaluation], words: Words) -> list[Line]:
    main = evaluations[0]
    drawn = [(e.name, e.positions["model"]) for e in evaluations]
    drawn += [(words["legend_gold"], main.positions["gold"])]
    drawn += [(words["summaries_lead"], main.positions["lead"])]
    return [Line(name, list(range(1, len(y) + 1)), y) for name, y in drawn]


def _summary(main: SummariesEvaluation, words: Words) -> Numbers:
    first = main.intervals["rouge1"]
    said = words["summaries_summary"].format(
        name=main.name,
        rows=f"{main.rows:,}",
        kept=f"{main.kept:.1f}",
        rouge=percent(first.estimate),
        low=percent(first.low),
        high=percent(first.high),
    )
    numbers = [
        Number(
            value=percent(main.intervals[kind].estimate),
            name=name,
            remark=words[REMARKS[kind]],
        )
        for kind, name in KINDS.items()
    ]
    share = percent(main.gold_share)
    remark = words["summaries_gold_share_remark"]
    numbers.append(Number(value=share, name=words["summaries_gold_share"], remark=remark))
    return Numbers(title=words["summary"], notes=[said], items=numbers)


def _ways(evaluations: Sequence[SummariesEvaluation], words: Words) -> Table:
    main = evaluations[0]
    ways = [(words["summaries_lead"], main.lead, main.lead_kept)]
    ways += [(e.name, e.rouge, e.kept) for e in evaluations]
    ways += [(words["summaries_oracle"], main.oracle, main.oracle_kept)]
    names = [*KINDS.values(), words["summaries_kept_mean"]]
    return Table(
        title=words["summaries_beside"],
        notes=[words["summaries_beside_note"]],
        columns=[
            Column(name=words["summaries_way"], numeric=False),
            *(Column(name=name) for name in names),
        ],
        rows=[
            [name, *(percent(getattr(found, kind).f1) for kind in KINDS), f"{kept:.1f}"]
            for name, found, kept in ways
        ],
    )


def _slice_table(evaluations: Sequence[SummariesEvaluation], words: Words) -> Table:
    names = [e.name for e in evaluations] if len(evaluations) > 1 else [KINDS["rouge1"]]
    rows = [
        [
            slice_name(alike[0].rows, words),
            str(alike[0].rows.rows),
            *(percent(s.rouge1) for s in alike),
        ]
        for alike in zip(*(e.slices for e in evaluations), strict=True)
    ]
    columns = [words["rows"], *names]
    return Table(
        title=words["slices"],
        notes=[words["summaries_slices_note"]],
        columns=[Column(name=words["slice"], numeric=False), *(Column(name=n) for n in columns)],
        rows=rows,
    )


def _quote(row: KeptRow, words: Words) -> Quote:
    numbers = {
        "kept": ", ".join(str(i + 1) for i in row.kept) or "–",
        "gold": ", ".join(str(i + 1) for i in row.gold) or "–",
    }
    return Quote(
        texts=[row.summary, row.reference],
        remarks=[
            words["quote_summaries_rouge"].format(
                rouge=percent(row.rouge1), oracle=percent(row.oracle)
            ),
            words["quote_summaries_kept"].format(**numbers),
            words["quote_row"].format(row=row.row),
        ],
    )
