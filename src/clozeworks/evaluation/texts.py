"""Judging a model that writes texts: how near references they come, beside copying the source."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.compare import Interval, Judged, Row, digest_rows, resampled
from clozeworks.evaluation.slices import language, quarters, words
from clozeworks.metrics.generate import CorpusScore, bleu, chrf, rouge, rouge_words
from clozeworks.tasks.base import Task
from clozeworks.tasks.seq2seq import Seq2Seq, Seq2SeqExample, Seq2SeqPrediction, targets_of

RESAMPLES = 300
"""Draws of all texts for the intervals of BLEU and chrF."""
RUN = 4
"""Words that come twice, where a text is said to repeat itself."""
DRAWN = 1000
"""Rows drawn at most."""

Rows = npt.NDArray[np.float64]


class Scores(Record):
    """How near texts are to their references; BLEU and chrF from 0 to 100, ROUGE as shares."""

    bleu: CorpusScore | None
    chrf: CorpusScore | None
    """Both None where sacrebleu is not installed."""
    rouge1: Interval
    rouge2: Interval
    rouge_l: Interval


class LengthRow(Record):
    """Rows whose sources are about as long."""

    shortest: int
    longest: int
    """Of the sources, in words."""
    rows: int
    rouge_l: float
    length_ratio: float


class WrittenRow(Row):
    """One row, what was written for it, and what could have been."""

    source: str
    written: str
    references: list[str]
    rouge_l: float
    score: float
    cut: int


class TextsEvaluation(Judged):
    """All that is known of one such model on one set of rows."""

    task: Literal["seq2seq"] = "seq2seq"
    rows: int
    lowercase: bool
    """Whether references were judged in lower case, because no other can be written."""
    scores: Scores
    copied: Scores
    """Of the sources themselves, taken for what was written."""
    length_ratio: float
    """Words written, as a share of those of the first references."""
    repeating: float
    """Share of the texts in which a run of four words comes twice."""
    gold_repeating: float
    """The same of the first references."""
    cut: int
    """Rows whose source was not read to its end."""
    lengths: list[tuple[int, int]]
    """Words of the reference and words written, of the rows drawn."""
    by_length: list[LengthRow]
    worst: list[WrittenRow]
    best: list[WrittenRow]


def judge_texts(
    task: Task,
    predictions: Sequence[Seq2SeqPrediction],
    examples: Sequence[Seq2SeqExample],
    name: str,
) -> TextsEvaluation:
    """Judge one prediction a row; raises UserError for no rows, or a row without a target."""
    assert isinstance(task, Seq2Seq)
    if not examples:
        raise UserError("there are no rows to judge; check that the file is not empty")
    lower = task.lowercase
    gold = [[_cased(t, lower) for t in targets_of(example)] for example in examples]
    if not all(gold):
        raise UserError(f"row {gold.index([]) + 1} has no target; write one, or remove the row")
    texts = [p.text for p in predictions]
    sources = [_cased(example.source, lower) for example in examples]
    each, copies = _rouge_rows(texts, gold), _rouge_rows(sources, gold)
    lengths = np.array([[words(g[0]), words(t)] for g, t in zip(gold, texts, strict=True)])
    order = np.argsort(each[:, 2], kind="stable").tolist()

    def row(i: int) -> WrittenRow:
        return _quoted_row(i, examples[i], predictions[i], float(each[i, 2]))

    drawn = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), DRAWN)).astype(int))
    return TextsEvaluation(
        name=name,
        rows_digest=digest_rows([e.source, *targets_of(e)] for e in examples),
        rows=len(examples),
        lowercase=lower,
        scores=_scores(texts, gold, each),
        copied=_scores(sources, gold, copies),
        length_ratio=float(lengths[:, 1].sum() / max(1, lengths[:, 0].sum())),
        repeating=_repeating(texts),
        gold_repeating=_repeating([g[0] for g in gold]),
        cut=sum(p.cut > 0 for p in predictions),
        lengths=[(int(g), int(t)) for g, t in lengths[drawn]],
        by_length=_by_length([words(e.source) for e in examples], each[:, 2], lengths),
        worst=[row(i) for i in order if each[i, 2] < 1][:QUOTED_ROWS],
        best=[row(i) for i in order[::-1] if texts[i] != sources[i]][:QUOTED_ROWS],
    )


def _cased(text: str, lower: bool) -> str:
    return text.lower() if lower else text


def _rouge_rows(texts: Sequence[str], gold: Sequence[list[str]]) -> Rows:
    """The F1 of ROUGE-1, -2 and -L of each text, [N, 3]."""
    found = [rouge(text, references) for text, references in zip(texts, gold, strict=True)]
    return np.array([[r.rouge1.f1, r.rouge2.f1, r.rouge_l.f1] for r in found])


def _scores(texts: Sequence[str], gold: Sequence[list[str]], each: Rows) -> Scores:
    one, two, longest = (_mean(each[:, i]) for i in range(3))
    shared = {"rouge1": one, "rouge2": two, "rouge_l": longest}
    if find_spec("sacrebleu") is None:
        return Scores(bleu=None, chrf=None, **shared)
    cut = _words_of(gold)
    found = {"bleu": bleu(texts, gold, cut, RESAMPLES), "chrf": chrf(texts, gold, RESAMPLES)}
    return Scores(**found, **shared)


def _mean(values: Rows) -> Interval:
    """Of all rows, with its interval."""

    def of(rows: Ints) -> float:
        return float(values[rows].mean())

    found = resampled(of, len(values))
    assert found is not None
    return found


def _words_of(gold: Sequence[list[str]]) -> Literal["zh", "13a"]:
    """How BLEU cuts words: as Chinese where most references are."""
    spoken = Counter(language(references[0]) for references in gold)
    return "zh" if spoken["chinese"] + spoken["mixed"] > len(gold) / 2 else "13a"


def _repeating(texts: Sequence[str]) -> float:
    """The share of texts in which a run of words comes twice."""
    return sum(map(_repeats, texts)) / len(texts)


def _repeats(text: str) -> bool:
    cut = rouge_words(text)
    runs = list(zip(*(cut[i:] for i in range(RUN)), strict=False))
    return len(set(runs)) < len(runs)


def _by_length(sources: Sequence[int], scores: Rows, lengths: Ints) -> list[LengthRow]:
    long = np.array(sources, dtype=np.int64)
    found = []
    for low, high in quarters(long):
        here = (long >= low) & (long <= high)
        gold, given = lengths[here].sum(0).tolist()
        found.append(
            LengthRow(
                shortest=low,
                longest=high,
                rows=int(here.sum()),
                rouge_l=float(scores[here].mean()),
                length_ratio=given / max(1, gold),
            )
        )
    return found


def _quoted_row(
    at: int, example: Seq2SeqExample, prediction: Seq2SeqPrediction, rouge_l: float
) -> WrittenRow:
    return WrittenRow(
        row=at + 1,
        source=quoted(example.source),
        written=quoted(prediction.text),
        references=[quoted(text) for text in targets_of(example)],
        rouge_l=rouge_l,
        score=prediction.score,
        cut=prediction.cut,
    )
