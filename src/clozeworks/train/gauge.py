"""What a step cost: time, waiting for data, padding, memory, and its share of the peak."""

import math
import statistics
import sys
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clozeworks.data.batches import Batch
from clozeworks.model.encoder import Layer
from clozeworks.model.flops import flops_a_token
from clozeworks.model.heads import Model, TokenHead
from clozeworks.tasks.base import Task
from clozeworks.train.precision import pick_dtype

if TYPE_CHECKING:
    from clozeworks.train.loop import Learner

WARM = 3
"""Steps of a sitting before its speed is told from: the first ones prepare kernels."""
LONG = 180.0
"""Seconds a run must still have before it for measuring the machine's peak to be worth it."""
GEMM = {"cpu": 2048, "cuda": 8192}
"""Rows of the square matrices whose product tells the peak."""
SPENT = 0.7
"""Seconds that measuring takes at most, warm-up left out."""


@dataclass(frozen=True)
class Reading:
    """What one step cost, seen from the first process."""

    seconds: float
    waiting: float
    """Share of the time that went into preparing the data."""
    padding: float
    """Share of the slots of attention's rows that no token filled."""
    memory_mb: float
    """Most memory this process has held so far: of the GPU where there is one."""
    peak_share: float | None
    """Operations a second over those of a bare matrix product; None where it was not measured."""


class Gauge:
    """Reads what each step cost; the loop says where a step begins and its data are there."""

    def __init__(self, learner: "Learner") -> None:
        self._learner = learner
        self._packing = learner.model.encoder.packing
        self._began = self._ready = 0.0
        self._seen = 0
        self._peak: float | None = None
        heads = learner.model.heads.modules()
        self._countable = not any(isinstance(part, Layer) for part in heads)
        """Whether all operations are known: what a head with layers of its own does is not."""

    def begin(self) -> None:
        """A step begins."""
        self._packing.tokens = self._packing.slots = 0
        self._began = time.perf_counter()

    def ready(self) -> None:
        """Its data are there."""
        self._ready = time.perf_counter()

    def read(self, batches: list[Batch], tokens: int, left: int) -> Reading:
        """The step is done: `batches` of this process, `tokens` of all, `left` steps to go."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        self._seen += 1
        worth = self._countable and seconds * left > LONG
        if self._seen == WARM and self._learner.team.leads and worth:
            dtype = pick_dtype(self._learner.settings.precision, self._learner.model.device)
            self._peak = gemm_rate(self._learner.model.device, dtype) * self._learner.team.size
        packing = self._packing
        return Reading(
            seconds=seconds,
            waiting=(self._ready - self._began) / seconds,
            padding=1 - packing.tokens / max(1, packing.slots),
            memory_mb=held_memory(self._learner.model.device),
            peak_share=self._peak and self._operations(batches) * tokens / seconds / self._peak,
        )

    def _operations(self, batches: list[Batch]) -> float:
        """Operations a token, taking this process's batches for all."""
        return operations_a_token(self._learner.model, self._learner.task, batches)


def operations_a_token(model: Model, task: Task, batches: Items[Batch]) -> float:
    """Floating-point operations a token of these batches costs in training: `flops_a_token`, of the
    encoder and of the generator beside it.
    """
    lengths = np.concatenate([batch.offsets.diff().numpy() for batch in batches])
    attended = float((lengths**2).sum() / lengths.sum())
    counts = [task.counts(batch) for batch in batches]
    total = 0.0
    for one in filter(None, (model, model.generator)):
        wide = {name for name, head in one.heads.items() if isinstance(head, TokenHead)}
        predicted = sum(n for found in counts for name, n in found.items() if name in wide)
        total += flops_a_token(one.config, attended, predicted / lengths.sum())
    return total


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of two square matrices in `dtype`: the median of some."""
    size = GEMM[device.type]
    draw = torch.Generator(device).manual_seed(0)  # not the one that dropout draws from
    a, b = (torch.randn(size, size, device=device, generator=draw).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds: list[float] = []
    for number in range(2 + 20):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            seconds.append(time.perf_counter() - began)
        if sum(seconds) > SPENT:
            break
    return 2 * size**3 / statistics.median(seconds)


def held_memory(device: torch.device) -> float:
    """Most megabytes this process has held so far: of the GPU where there is one; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def free_memory(device: torch.device) -> float:
    """Megabytes that could still be taken; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return math.inf
    found = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return math.inf if found is None else int(found.split()[1]) / 1e3
