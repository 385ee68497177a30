"""How sure one may be of an accuracy, and of the difference between two on the same rows."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import ClassVar, TypeVar

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.metrics.calibrate import Bools

RESAMPLES = 10_000
FEWER_RESAMPLES = 500
"""Where each takes a pass over the rows."""
Z95 = 1.959964
"""Half the width of 95 % of a normal distribution, in standard deviations."""


class Interval(Record):
    """An estimate and the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


class Unread(Record):
    """What was over a model's limits, and not read."""

    rows: int
    """Rows of which something was left out."""
    tokens: int
    """Tokens left out of all of them."""


class Judged(Record):
    """What every task's evaluation has: whose it is, and of which rows."""

    name: str
    """What the model is called on the page."""
    rows_digest: str
    """SHA-256 of the texts and gold answers, in order: equal only for the same rows."""
    unread: Unread | None = None
    """What the model did not read, where that is known."""


class Row(Record):
    """A row that a page quotes."""

    row: int
    """Its number, from 1: of those judged, and with `numbered`, in their file."""


class Marked(Judged):
    """Where every row is right or wrong, which rows are: what two models can be compared by."""

    marks: str
    """One character a row, "1" right and "0" wrong."""

    headline: ClassVar[bool] = False
    """Whether the share of rows that are right is what such models are told apart by."""


class Difference(Record):
    """How much more accurate one model is than another on the same rows."""

    name: str
    other: str
    gain: Interval
    """Accuracy of `name` minus accuracy of `other`."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.gain.low > 0 or self.gain.high < 0


J = TypeVar("J", bound=Judged)


def numbered(evaluation: J, numbers: Sequence[int]) -> J:
    """The evaluation, the rows it quotes under their `numbers` in the file they are from.

    Empty rows and heads of columns count there, so that a person finds them.
    """
    changes = {
        name: [r.model_copy(update={"row": numbers[r.row - 1]}) for r in value]
        for name, value in evaluation
        if isinstance(value, list) and value and isinstance(value[0], Row)
    }
    return evaluation.model_copy(update=changes)


def digest_rows(rows: Iterable[Sequence[str]]) -> str:
    """The SHA-256 of rows of strings, told apart from any other rows."""
    total = hashlib.sha256()
    for row in rows:
        for value in row:
            raw = value.encode("utf-8", "surrogatepass")
            total.update(len(raw).to_bytes(8, "little") + raw)
        total.update(b"\xff" * 8)
    return total.hexdigest()


def marks_of(right: Bools) -> str:
    """The marks of a Judged, from [N] bool."""
    return (right.astype(np.uint8) + ord("0")).tobytes().decode("ascii")


def proportion(right: int, rows: int) -> Interval:
    """The share `right / rows` with Wilson's interval (1927), sound for few rows and shares of 1.

    Raises UserError for no rows.
    """
    if rows == 0:
        raise UserError("there are no rows to judge; check that the file is not empty")
    share, spread = right / rows, Z95**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(
        estimate=share, low=max(0.0, min(middle - half, share)), high=min(1.0, middle + half)
    )


def differences(evaluations: Sequence[Marked], seed: int = 0) -> list[Difference]:
    """The first model against each other one; raises UserError unless all judged the same rows."""
    if not evaluations:
        return []
    first, *others = evaluations
    for other in others:
        if other.rows_digest != first.rows_digest:
            raise UserError(
                f"{first.name!r} and {other.name!r} were judged on different rows; "
                "evaluate both on the same file to compare them"
            )
    return [
        Difference(name=first.name, other=o.name, gain=paired_gain(first.marks, o.marks, seed))
        for o in others
    ]


def resampled(
    value: Callable[[Ints], float | None], rows: int, *, share: bool = True
) -> Interval | None:
    """A number of all rows with the bootstrap's percentile interval (Efron and Tibshirani 1993).

    `value` computes it from the indices [rows] of the rows drawn; None where it cannot be. `share`:
    whether it is a mean of the rows from 0 to 1.
    """
    whole = value(np.arange(rows))
    chance = np.random.default_rng(0)
    draws = (chance.integers(0, rows, rows) for _ in range(FEWER_RESAMPLES))
    found = [x for x in map(value, draws) if x is not None]
    if whole is None or not found:
        return None
    low, high = map(float, np.quantile(found, [0.025, 0.975]))
    if share and low == high and whole in (0.0, 1.0):  # no row differs: what Wilson says of so many
        return proportion(round(whole * rows), rows)
    return Interval(estimate=whole, low=min(low, whole), high=max(high, whole))


def paired_gain(marks: str, other: str, seed: int = 0) -> Interval:
    """Accuracy gained over `other`, with the paired bootstrap's percentile interval.

    Only rows on which the two differ count, so a resample of N rows is one multinomial draw of
    (gained, lost, alike): exactly the bootstrap (Efron and Tibshirani 1993), in no time.
    """
    gained = sum(a > b for a, b in zip(marks, other, strict=True))
    lost = sum(a < b for a, b in zip(marks, other, strict=True))
    rows = len(marks)
    shares = np.array([gained, lost, rows - gained - lost]) / rows
    drawn = np.random.default_rng(seed).multinomial(rows, shares, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / rows, [0.025, 0.975])
    return Interval(estimate=(gained - lost) / rows, low=float(low), high=float(high))
