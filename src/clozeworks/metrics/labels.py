"""Any number of labels a row: thresholds, temperature, and how well they were guessed."""

from collections.abc import Sequence

import numpy as np

from clozeworks.core.records import Ints, Record
from clozeworks.metrics.calibrate import TEMPERATURES, Bools
from clozeworks.metrics.classify import Averages, Floats

FEWEST = 5
"""A label that fewer dev rows have gets no threshold of its own."""
EVEN = 0.5
"""The threshold where there is too little to fit one on."""


class LabelRow(Record):
    """One label: how often it was there, given, and rightly given; ratios of nothing are 0."""

    label: str
    gold: int
    predicted: int
    precision: float
    recall: float
    f1: float


class LabelMetrics(Record):
    """Every number of multi-label classification."""

    rows: int
    exact: float
    """Share of rows whose labels are all there and no others."""
    micro: Averages
    """Over all pairs of a row and a label."""
    macro: Averages
    """Mean over the labels that occur among gold or predicted ones."""
    labels: list[LabelRow]


def sigmoid(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities of logits divided by the temperature, float64."""
    scaled = np.clip(np.asarray(logits, dtype=np.float64) / temperature, -700, 700)
    return np.asarray(1 / (1 + np.exp(-scaled)), dtype=np.float64)


def fit_label_temperature(logits: Floats, gold: Ints) -> float:
    """The temperature that minimises the binary negative log-likelihood: logits, gold [N, K].

    Gold is softened by Laplace's rule of succession, as for one class of several, so that a dev set
    without mistakes gives a finite answer; 1 where there is nothing to learn from.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.size == 0 or not np.any(logits):
        return 1.0
    rows = len(logits)
    soft = np.where(gold > 0, (rows + 1) / (rows + 2), 1 / (rows + 2))
    # The loss is convex in 1 / T, and this is the sign of its slope: bisection cannot fail.
    low, high = (float(np.log(t)) for t in TEMPERATURES)
    for _ in range(40):
        middle = (low + high) / 2
        slope = np.mean((sigmoid(logits, float(np.exp(middle))) - soft) * logits)
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def fit_label_thresholds(chances: Floats, gold: Ints) -> list[float]:
    """For each label the probability from which on it is given, the one with the best F1.

    chances, gold [N, K] of the dev rows. Each lies half-way between the two probabilities it parts;
    EVEN for a label that fewer than FEWEST rows have.
    """
    there = gold > 0
    count = chances.shape[1]
    return [best_f1(chances[:, k], there[:, k], int(there[:, k].sum())) for k in range(count)]


def best_f1(chances: Floats, there: Bools, gold: int) -> float:
    """The probability from which on to say yes, so that F1 is best; EVEN where `gold` is small.

    chances [n] of what may be said, there [n] whether it is right; of `gold` right ones in all, so
    that some may never be said.
    """
    if gold < FEWEST or not len(chances):
        return EVEN
    order = np.argsort(-chances, kind="stable")
    falling = chances[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    hits = np.cumsum(there[order])[last]
    f1 = 2 * hits / (last + 1 + gold)
    best = int(np.argmax(f1))
    above = falling[last[best]]
    below = falling[last[best] + 1] if last[best] + 1 < len(falling) else 0.0
    return float(max((above + below) / 2, np.nextafter(below, 1)))


def label_metrics(gold: Bools, given: Bools, names: Sequence[str]) -> LabelMetrics:
    """Judge labels given [N, K] bool against gold [N, K] bool; `names` [K]."""
    hits, golds, givens = (gold & given).sum(0), gold.sum(0), given.sum(0)
    rows = [
        LabelRow(
            label=name,
            gold=int(golds[k]),
            predicted=int(givens[k]),
            **_averages(int(hits[k]), int(golds[k]), int(givens[k])).model_dump(),
        )
        for k, name in enumerate(names)
    ]
    seen = [row for row in rows if row.gold or row.predicted]
    means = {
        name: sum(getattr(row, name) for row in seen) / max(1, len(seen))
        for name in Averages.model_fields
    }
    return LabelMetrics(
        rows=len(gold),
        exact=float((gold == given).all(1).mean()) if len(gold) else 0.0,
        micro=_averages(int(hits.sum()), int(golds.sum()), int(givens.sum())),
        macro=Averages(**means),
        labels=rows,
    )


def _averages(hits: int, gold: int, given: int) -> Averages:
    return Averages(
        precision=hits / given if given else 0.0,
        recall=hits / gold if gold else 0.0,
        f1=2 * hits / (gold + given) if gold + given else 0.0,
    )
