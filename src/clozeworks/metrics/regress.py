"""How well numbers were guessed: correlations and distances."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError
from clozeworks.core.records import Record

Floats = npt.NDArray[np.float64]


class RegressMetrics(Record):
    """Every number of guessing numbers; no correlation (None) where one side is constant."""

    rows: int
    pearson: float | None
    """How near a straight line joins guesses and gold."""
    spearman: float | None
    """The same of their ranks: how well the order was guessed, whatever the scale."""
    mean_absolute_error: float
    root_mean_square_error: float


def regress_metrics(gold: Sequence[float], predicted: Sequence[float]) -> RegressMetrics:
    """Judge predicted numbers against gold ones.

    Raises UserError for no rows, a different number of them, or a value that is not finite.
    """
    right, guess = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    if len(right) != len(guess):
        raise UserError(f"{len(right)} gold values and {len(guess)} predicted ones")
    if not len(right):
        raise UserError("there are no rows to judge; check that the file is not empty")
    for name, values in (("gold", right), ("predicted", guess)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values))) + 1
            raise UserError(f"row {row}: the {name} value is {values[row - 1]}, which is no number")
    gap = np.abs(right - guess)
    return RegressMetrics(
        rows=len(right),
        pearson=pearson(right, guess),
        spearman=spearman(right, guess),
        mean_absolute_error=float(gap.mean()),
        root_mean_square_error=float(np.sqrt((gap**2).mean())),
    )


def pearson(a: Floats, b: Floats) -> float | None:
    """The correlation of two series of n values, within [-1, 1]; None where one is constant."""
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = (_scaled(values) for values in (a, b))
    spread = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / spread, -1, 1)) if spread else None


def spearman(a: Floats, b: Floats) -> float | None:
    """The correlation of the ranks, equal values sharing the mean of theirs (Spearman 1904)."""
    return pearson(ranks(a), ranks(b))


def ranks(values: Floats) -> Floats:
    """The rank of each value from 1, float64, equal ones sharing the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean = counts.cumsum() - (counts - 1) / 2
    shared: Floats = mean[group]
    return shared


def _scaled(values: Floats) -> Floats:
    """Deviations from the mean, in units of the largest value: no square is lost or overflows."""
    values = values / np.abs(values).max()
    deviations: Floats = values - values.mean()
    return deviations
