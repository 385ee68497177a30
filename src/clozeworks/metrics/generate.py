"""How near written texts come to reference texts: ROUGE, ours; BLEU and chrF, sacrebleu's."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Record
from clozeworks.metrics.classify import Averages
from clozeworks.text.fold import HAN

Cut = Callable[[str], Sequence[str]]
"""How a text becomes words."""

_HAN = "".join(f"{chr(block.start)}-{chr(block.stop - 1)}" for block in HAN)
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")


class Rouge(Record):
    """What a text shares with its reference (Lin 2004), of single words, pairs, and in order."""

    rouge1: Averages
    rouge2: Averages
    rouge_l: Averages
    """Of the longest common subsequence of the whole texts, not sentence by sentence."""


class CorpusScore(Record):
    """A score of all texts together, from 0 to 100, and how it was computed."""

    score: float
    signature: str
    """Sacrebleu's own words for its version and settings: two scores compare if these are equal."""
    low: float | None = None
    high: float | None = None
    """Ends of its 95 % interval, where that was asked for: sacrebleu's bootstrap (Koehn 2004)."""


def rouge_words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, and every Chinese character alone.

    Of ASCII text these are the words of Google's rouge-score without its stemmer; that drops every
    other letter, so that two equal Chinese texts share nothing.
    """
    return _WORD.findall(text.lower())


def rouge(predicted: str, references: Sequence[str], cut: Cut = rouge_words) -> Rouge:
    """ROUGE of one text, each number against the reference for which its F1 is highest.

    Raises UserError without a reference.
    """
    if not references:
        raise UserError("a text has no reference to be judged by; give at least one")
    guess = cut(predicted)
    words = [cut(reference) for reference in references]
    return Rouge(
        rouge1=_best([_shared_runs(gold, guess, 1) for gold in words]),
        rouge2=_best([_shared_runs(gold, guess, 2) for gold in words]),
        rouge_l=_best([_ratios(common(gold, guess), len(gold), len(guess)) for gold in words]),
    )


def rouge_metrics(
    predicted: Sequence[str], references: Sequence[Sequence[str]], cut: Cut = rouge_words
) -> Rouge:
    """The means over texts of their ROUGE; raises UserError for no texts or a different number."""
    _check(predicted, references)
    return rouge_means([rouge(p, r, cut) for p, r in zip(predicted, references, strict=True)])


def rouge_means(rows: Sequence[Rouge]) -> Rouge:
    """The means over texts of ROUGE that is known of each; of one text at least."""
    names = ("rouge1", "rouge2", "rouge_l")
    return Rouge(**{name: _mean([getattr(row, name) for row in rows]) for name in names})


def bleu(
    predicted: Sequence[str],
    references: Sequence[Sequence[str]],
    words: Literal["13a", "zh", "char", "none"] = "13a",
    resamples: int = 1,
) -> CorpusScore:
    """BLEU of a corpus by sacrebleu (Post 2018); "zh" cuts Chinese into characters.

    With more than one of `resamples`, so many draws of the texts give an interval.

    Raises UserError where sacrebleu is not installed, or texts and references differ in number.
    """
    return _by_sacrebleu("BLEU", {"tokenize": words}, predicted, references, resamples)


def chrf(
    predicted: Sequence[str], references: Sequence[Sequence[str]], resamples: int = 1
) -> CorpusScore:
    """chrF2 of a corpus by sacrebleu: F of character n-grams up to 6 (Popović 2015), no words.

    `resamples` as for `bleu`, which raises the same UserErrors.
    """
    return _by_sacrebleu("CHRF", {}, predicted, references, resamples)


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    A bit for each place of `a`, one addition for each word of `b` (Hyyrö 2004, "Bit-parallel
    LCS-length computation revisited"), which makes long texts cheap.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    state = every
    for word in b:
        match = state & places.get(word, 0)
        state = (state + match) | (state - match)
    return len(a) - (state & every).bit_count()


def _shared_runs(gold: Sequence[str], guess: Sequence[str], n: int) -> Averages:
    wanted, found = (Counter(zip(*(w[i:] for i in range(n)), strict=False)) for w in (gold, guess))
    return _ratios((wanted & found).total(), wanted.total(), found.total())


def _ratios(shared: int, gold: int, guess: int) -> Averages:
    return Averages(
        precision=shared / guess if guess else 0.0,
        recall=shared / gold if gold else 0.0,
        f1=2 * shared / (gold + guess) if shared else 0.0,
    )


def _best(scores: Sequence[Averages]) -> Averages:
    return max(scores, key=lambda score: score.f1)


def _mean(scores: Sequence[Averages]) -> Averages:
    names = ("precision", "recall", "f1")
    return Averages(**{n: sum(getattr(s, n) for s in scores) / len(scores) for n in names})


def _by_sacrebleu(
    name: str,
    settings: dict[str, Any],
    predicted: Sequence[str],
    references: Sequence[Sequence[str]],
    resamples: int,
) -> CorpusScore:
    _check(predicted, references)
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise UserError(
            f"{'chrF' if name == 'CHRF' else name} needs sacrebleu: pip install 'clozeworks[gen]'"
        ) from error
    if not all(references):
        raise UserError(f"text {list(map(bool, references)).index(False) + 1} has no reference")
    most = max(map(len, references))
    # sacrebleu wants the first references of all texts, then the second ones, None where one lacks
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    metric = getattr(metrics, name)(**settings)
    score = metric.corpus_score(list(predicted), streams)
    found = CorpusScore(score=float(score.score), signature=str(metric.get_signature()))
    if resamples <= 1 or len(predicted) <= 1:
        return found
    low, high = _ends(metric, list(predicted), streams, resamples)
    return found.model_copy(update={"low": min(low, found.score), "high": max(high, found.score)})


def _ends(
    metric: Any, predicted: list[str], streams: list[list[str | None]], resamples: int
) -> tuple[float, float]:
    """The ends of the 95 % interval of a score, by drawing texts.

    Not by sacrebleu's own drawing, which fails where only some draws share nothing with their
    references.
    """
    counts = metric._extract_corpus_statistics(predicted, streams)
    draws = np.random.default_rng(0).integers(len(counts), size=(resamples, len(counts)))
    scores = [float(metric._aggregate_and_compute([counts[i] for i in d]).score) for d in draws]
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _check(predicted: Sequence[object], references: Sequence[object]) -> None:
    if len(predicted) != len(references):
        raise UserError(f"{len(predicted)} texts and references for {len(references)}")
    if not predicted:
        raise UserError("there are no texts to judge; check that the file is not empty")
