"""The processes that train together: who they are, what they agree on, how they leave."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from clozeworks.core.errors import UserError

Result = TypeVar("Result")

PATIENCE = timedelta(hours=1)
"""How long the others wait for one of them: for the first, while it judges and saves."""


@dataclass(frozen=True)
class Team:
    """This process among the `size` that train together; the one of rank 0 speaks and writes.

    Every method but the properties must be called by all of them, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def first(self, act: Callable[[], Result]) -> Result:
        """Let the first process do something; its result, or its UserError, is everyone's."""
        if self.size == 1:
            return act()
        said: list[Any] = [None, None]
        if self.leads:
            try:
                said[0] = act()
            except UserError as error:
                said[1] = error
        dist.broadcast_object_list(said, src=0)
        if said[1] is not None:
            raise said[1]
        result: Result = said[0]
        return result

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over the processes; all give the same names in the same order."""
        return dict(zip(values, self._reduced(values.values(), dist.ReduceOp.SUM), strict=True))

    def largest(self, value: float) -> float:
        """The largest of the processes' values."""
        return self._reduced([value], dist.ReduceOp.MAX)[0]

    def rows(self, own: Tensor) -> list[Tensor]:
        """The rows of every process, in the order of their ranks; there may be more of one's."""
        if self.size == 1:
            return [own]
        mine = [len(own) * (rank == self.rank) for rank in range(self.size)]
        counts = [int(n) for n in self._reduced(mine, dist.ReduceOp.SUM)]
        padded = own.new_zeros(max(counts), *own.shape[1:])
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [rows[:count] for rows, count in zip(found, counts, strict=True)]

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up in any process."""
        return [found > 0 for found in self._reduced(flags, dist.ReduceOp.MAX)]

    def _reduced(self, values: Iterable[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return [float(value) for value in values]
        row = torch.tensor([float(value) for value in values], dtype=torch.float64)
        dist.all_reduce(row, how)
        return row.tolist()


ALONE = Team()


@contextmanager
def gathered(device: torch.device) -> Iterator[Team]:
    """Join the processes that torchrun started, if it did, until the end of the block.

    On a GPU each takes the one of its local rank. Raises UserError if there are too few GPUs, or
    when another process has left.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        _take_gpu(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), size)
    except (UserError, KeyboardInterrupt) as error:
        if type(error) is not KeyboardInterrupt:  # that one the others know nothing of
            dist.destroy_process_group()
        raise
    except RuntimeError as error:
        if not _of_communication(error):
            raise
        raise UserError(
            "another of the processes has left, and has said why if it could; what was saved last "
            "is there: give the same command again to continue"
        ) from error
    else:
        dist.destroy_process_group()


def _take_gpu(device: torch.device) -> None:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise UserError(f"device {str(device)!r} is one GPU for several processes; use cuda")
    if local >= there:
        raise UserError(
            f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine with {there} GPUs; start as "
            f"many as there are (--nproc-per-node {there}), or use --device cpu"
        )
    torch.cuda.set_device(local)


def _of_communication(error: RuntimeError) -> bool:
    """Whether torch says by it that a process could not be reached."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
