"""How far confidence can be trusted, and when a model should say "I don't know"."""

import numpy as np
import numpy.typing as npt

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.metrics.classify import CURVE_POINTS, Floats, thinned

Bools = npt.NDArray[np.bool_]

TEMPERATURES = (0.05, 20.0)
"""The coldest and the hottest temperature a fit may give."""
TARGET = 0.95
"""Share of its answers a model should have right."""
LEAST_COVERAGE = 0.8
"""Share of the rows a model answers whatever its accuracy."""


class ReliabilityBin(Record):
    """The rows whose confidence lies in one interval: what was promised, what came true."""

    low: float
    high: float
    rows: int
    confidence: float | None = None
    """Mean confidence; None in an empty bin."""
    accuracy: float | None = None
    """Share of right rows; None in an empty bin."""


class CoverageCurve(Record):
    """Accuracy of the answered rows as the threshold rises; point i answers `coverage[i]` of all.

    Thresholds fall, so coverage ascends to 1 at the last point.
    """

    threshold: list[float]
    coverage: list[float]
    accuracy: list[float]


def calibrate(
    logits: Floats, labels: Ints, target: float = TARGET, least_coverage: float = LEAST_COVERAGE
) -> Calibration:
    """Fit temperature, then threshold, on dev logits [N, K] and class indices [N]."""
    temperature = fit_temperature(logits, labels)
    chances = softmax(logits, temperature)
    correct = chances.argmax(axis=1) == labels
    threshold = fit_threshold(chances.max(axis=1, initial=0), correct, target, least_coverage)
    return Calibration(temperature=temperature, threshold=threshold)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [N, K] float64 of logits [N, K] divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017).

    logits [N, K], labels [N] class indices. Targets are softened by Laplace's rule of succession
    (Platt 1999): the gold class gets (N + 1) / (N + 2), its strongest rival the rest. So a dev set
    without mistakes, or of three rows, gives a sober finite answer. Always within TEMPERATURES;
    1 where nothing can be learnt (no rows, one class, logits all alike).
    """
    logits = np.asarray(logits, dtype=np.float64)
    rows, classes = logits.shape
    if rows == 0 or classes < 2 or np.ptp(logits, axis=1).max() == 0:
        return 1.0
    every = np.arange(rows)
    gold = logits[every, labels]
    others = logits.copy()
    others[every, labels] = -np.inf
    wanted = np.mean(((rows + 1) * gold + others.max(axis=1)) / (rows + 2))

    # The loss is convex in 1 / T, and this is the sign of its slope: bisection cannot fail.
    low, high = (np.log(t) for t in TEMPERATURES)
    for _ in range(40):
        middle = (low + high) / 2
        expected = np.mean((softmax(logits, float(np.exp(middle))) * logits).sum(axis=1))
        low, high = (middle, high) if expected > wanted else (low, middle)
    return float(np.exp((low + high) / 2))


def reliability_bins(confidence: Floats, correct: Bools, bins: int = 15) -> list[ReliabilityBin]:
    """The rows in `bins` intervals of equal width; confidence [N] in 0…1, correct [N] bool.

    A confidence on an edge belongs to the lower bin, as (low, high]. Raises UserError for no rows.
    """
    _refuse_empty(confidence)
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    found = []
    for b in range(bins):
        here = place == b
        rows = int(np.count_nonzero(here))
        found.append(
            ReliabilityBin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                rows=rows,
                confidence=float(np.mean(confidence[here])) if rows else None,
                accuracy=float(np.mean(correct[here])) if rows else None,
            )
        )
    return found


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = 15) -> float:
    """Mean distance of confidence from accuracy over equal-width bins (Naeini et al. 2015)."""
    total = 0.0
    for b in reliability_bins(confidence, correct, bins):
        if b.accuracy is not None and b.confidence is not None:
            total += b.rows * abs(b.accuracy - b.confidence)
    return total / len(confidence)


def coverage_accuracy(
    confidence: Floats, correct: Bools, points: int = CURVE_POINTS
) -> CoverageCurve:
    """Accuracy of the rows at or above each threshold, at most `points` of them.

    confidence [N], correct [N] bool. Raises UserError for no rows.
    """
    _refuse_empty(confidence)
    threshold, coverage, accuracy = _coverage(confidence, correct)
    kept = thinned(coverage, points)
    return CoverageCurve(
        threshold=threshold[kept].tolist(),
        coverage=coverage[kept].tolist(),
        accuracy=accuracy[kept].tolist(),
    )


def fit_threshold(
    confidence: Floats,
    correct: Bools,
    target: float = TARGET,
    least_coverage: float = LEAST_COVERAGE,
) -> float:
    """The confidence below which to say "I don't know", in 0…1.

    The rule, on the dev rows: leave unanswered as few rows as make at least `target` of the answers
    right, and never more than 1 − `least_coverage` of all rows. So 0 where all answers together
    reach the target; where no allowed threshold does, the one with the most accurate answers (of
    those the lowest). It lies half-way between the confidences it parts. 0 for no rows.
    """
    if len(confidence) == 0:
        return 0.0
    threshold, coverage, accuracy = _coverage(confidence, correct)
    allowed = coverage >= least_coverage
    reached = allowed & (accuracy >= target)
    if not reached.any():
        reached = allowed & (accuracy == accuracy[allowed].max())
    lowest = int(np.flatnonzero(reached)[-1])
    if lowest == len(threshold) - 1:
        return 0.0
    above, below = threshold[lowest], threshold[lowest + 1]
    return float(max((above + below) / 2, np.nextafter(below, 1)))


def _coverage(confidence: Floats, correct: Bools) -> tuple[Floats, Floats, Floats]:
    """Distinct thresholds, falling, with the share answered and its accuracy at each."""
    confidence = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    descending = confidence[order]
    last = np.append(np.flatnonzero(np.diff(descending)), len(descending) - 1)
    answered = last + 1.0
    right = np.cumsum(correct[order])[last]
    return descending[last], answered / len(descending), right / answered


def _refuse_empty(confidence: Floats) -> None:
    if len(confidence) == 0:
        raise UserError("there are no rows to judge; check that the file is not empty")
