"""What a machine does with a model in a minute, and the settings that make the most of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from clozeworks.core.heap import kept_heap
from clozeworks.data.order import Stream
from clozeworks.train.ahead import READY, ahead
from clozeworks.train.gauge import free_memory, held_memory
from clozeworks.train.loop import Learner, learn_from, upcoming
from clozeworks.train.state import Cursor

SIZES = tuple(2**power for power in range(10, 18))
"""Tokens of a pass that are tried, smallest first."""
WARM, MEASURED, SECONDS = 2, 5, 5.0
"""Steps of a trial before and while its clock runs, and seconds after which it ends anyway."""
NEAR = 0.97
"""A pass this near to the fastest is as good; of these the smallest takes least memory."""
ROOM = 0.5
"""Share of the memory that is there which a run may take."""
OVERHEAD = 0.1
"""Share of a step that moving the weights may take."""
FEWEST, MOST = 1_000, 20_000
"""Steps a run should have: fewer teach too little; instead of more, larger ones are better."""


@dataclass(frozen=True)
class Trial:
    """What passes of so many tokens cost."""

    micro_tokens: int
    tokens_per_second: float
    """Forward and backward alone."""
    update_seconds: float
    """Moving the weights, once a step."""
    memory_mb: float
    """Most memory the process has held so far; 0 where the system does not say."""


@dataclass(frozen=True)
class Choice:
    """Sizes of a run, and what it will read with them."""

    micro_tokens: int
    batch: int
    """Tokens a step."""
    steps: int
    tokens: int
    """Tokens of all steps."""


def trials(learner: Learner, stream: Callable[[int], Stream]) -> Iterator[Trial]:
    """Try passes of more and more tokens, until speed or memory says that larger ones are no use.

    `stream` gives steps of so many tokens; the learner's own `micro_tokens` must be no less than
    the last of SIZES. Weights stay, moments do not: the learner is of no use afterwards.
    """
    best = 0.0
    for size in SIZES:
        try:
            with kept_heap():
                made = _tried(learner, stream(size), size)
        except torch.OutOfMemoryError:
            return
        yield made
        best = max(best, made.tokens_per_second)
        room = ROOM * (free_memory(learner.model.device) + made.memory_mb)
        if made.tokens_per_second < NEAR * best or 2 * made.memory_mb > room:
            return


def _tried(learner: Learner, stream: Stream, size: int) -> Trial:
    device = learner.model.device
    warm = WARM if device.type == "cpu" else WARM + READY  # what is ready costs nothing to make
    trial = Cursor(total=warm + MEASURED)
    source = ahead(partial(upcoming, learner, stream, trial), device)
    passes: list[float] = []
    updates: list[float] = []
    began = time.perf_counter()
    for number in range(warm + MEASURED):
        start = time.perf_counter()
        portion = next(source).portion
        learn_from(learner, portion)()
        learned = time.perf_counter()
        learner.optimizer.step(0.0)
        if number >= warm:
            passes.append((learned - start) / portion.tokens)
            updates.append(time.perf_counter() - learned)
        if passes and time.perf_counter() - began > SECONDS:
            break
    return Trial(size, 1 / median(passes), median(updates), held_memory(device))


def chosen(tried: Sequence[Trial], minutes: float) -> Choice:
    """The smallest passes that are as fast as any, and steps that suit the time there is.

    A step grows while moving the weights takes over OVERHEAD of it, or the run would have over
    MOST steps, as long as FEWEST are left.
    """
    update = median(trial.update_seconds for trial in tried)
    most = max(trial.tokens_per_second for trial in tried)
    fast = next(trial for trial in tried if trial.tokens_per_second >= NEAR * most)

    def steps(batch: int) -> float:
        return 60 * minutes / (batch / _rate(tried, min(batch, fast.micro_tokens)) + update)

    batch = SIZES[0]
    while steps(2 * batch) >= FEWEST:
        share = update * steps(batch) / (60 * minutes)
        if share <= OVERHEAD and steps(batch) <= MOST:
            break
        batch *= 2
    count = max(1, int(steps(batch)))
    return Choice(min(batch, fast.micro_tokens), batch, count, count * batch)


def _rate(tried: Sequence[Trial], micro_tokens: int) -> float:
    """Tokens a second in passes of this size, or of the largest tried below it."""
    below = [trial for trial in tried if trial.micro_tokens <= micro_tokens]
    return (below or list(tried))[-1].tokens_per_second
