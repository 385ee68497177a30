"""How long a run is, and the learning rate of each of its steps."""

import math
import re
from typing import Literal, NamedTuple, assert_never

from clozeworks.core.errors import UserError, choose
from clozeworks.data.order import Stream

DurationUnit = Literal["steps", "epochs", "tokens", "minutes"]
UNITS: tuple[DurationUnit, ...] = ("steps", "epochs", "tokens", "minutes")


MOST_EPOCHS = 10_000
"""Each epoch is planned to count its steps, so there must be an end to them."""


class Duration(NamedTuple):
    """An amount and its unit, as in "3 epochs"."""

    amount: float
    unit: DurationUnit

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read "3 epochs", "500 steps", "2e7 tokens" or "30 minutes"."""
        found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]+)\s*", text.lower())
        if not found:
            raise UserError(
                f"duration {text!r} is not an amount and a unit, as in '3 epochs' "
                f"(units: {', '.join(UNITS)})"
            )
        word = found[2] if found[2].endswith("s") else found[2] + "s"
        unit = choose(word, UNITS, "unit of duration")
        try:
            amount = float(found[1])
        except ValueError as error:
            raise UserError(f"duration {text!r}: {found[1]!r} is not a number") from error
        if not 0 < amount < math.inf:
            raise UserError(f"duration {text!r} must be more than nothing, and end")
        return cls(amount, next(u for u in UNITS if u == unit))


def count_steps(duration: Duration, stream: Stream, seconds_per_step: float | None = None) -> int:
    """How many optimizer steps a duration is, at least one; minutes need `seconds_per_step`."""
    if duration.unit == "steps":
        return max(1, round(duration.amount))
    if duration.unit == "minutes":
        assert seconds_per_step is not None, "minutes are turned into steps by measuring first"
        return max(1, int(duration.amount * 60 / seconds_per_step))
    if duration.unit == "tokens":
        per_step = stream.lengths(0).sum() / len(stream.steps(0))
        return max(1, math.ceil(duration.amount / float(per_step)))
    if duration.amount > MOST_EPOCHS:
        raise UserError(f"{duration.amount:g} epochs are over {MOST_EPOCHS:,}; give steps instead")
    whole = int(duration.amount)
    steps = sum(len(stream.steps(epoch)) for epoch in range(whole))
    part = duration.amount - whole
    return max(1, steps + (round(part * len(stream.steps(whole))) if part else 0))


Shape = Literal["linear", "cosine", "constant", "wsd"]


class Schedule(NamedTuple):
    """The learning rate of every step of a run: a pure function of the step.

    It rises to `peak` over `warmup` steps, so that the first step already learns, and then follows
    its shape; the last step is above zero. "wsd" stays at the peak and falls over the last
    `cooldown` steps by the root of their share (Hägele et al. 2024, "1-sqrt").
    """

    peak: float
    total: int
    warmup: int = 0
    shape: Shape = "linear"
    cooldown: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …, total - 1."""
        match self.shape:
            case "linear":
                return linear_rate(self.peak, step, self.total, self.warmup)
            case "cosine":
                fallen = 0.5 - 0.5 * math.cos(math.pi * self._share(step, self.warmup))
            case "constant":
                fallen = 0.0
            case "wsd":
                begins = max(self.warmup, self.total - self.cooldown)
                fallen = math.sqrt(self._share(step, begins))
            case _:
                assert_never(self.shape)
        return self.peak * min(1.0, (step + 1) / max(1, self.warmup)) * (1 - fallen)

    def _share(self, step: int, begins: int) -> float:
        """How much of the way from the step `begins` to the end is behind, from 0 to below 1."""
        return max(0, step - begins) / max(1, self.total - begins)


def linear_rate(peak: float, step: int, total: int, warmup: int) -> float:
    """Learning rate of step 0, 1, …: up to `peak` over `warmup` steps, then down to 0 at `total`.

    The first step already learns (peak / warmup), and the last is above zero.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / max(1, total - warmup)
