"""The optimizer of a model cut by FSDP2: this process's rows of every master and moment."""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from clozeworks.train.optim import Optimizer, sum_of_squares
from clozeworks.train.rows import settled


class ShardedOptimizer(Optimizer):
    """AdamW on this process's rows of each parameter, which are the fp32 masters themselves.

    Matrices that Muon moves are held whole, with their momentum, in every process: turning one
    needs all of it. Gradients of several passes are summed by FSDP2 itself, in fp32.
    """

    def _make_masters(self) -> list[Tensor]:
        with torch.no_grad():
            self._rows = [_cut(_cut(p).detach()).to_local() for p in self.parameters]
            return [
                _cut(parameter).full_tensor() if parts else rows
                for parameter, parts, rows in zip(
                    self.parameters, self.parts, self._rows, strict=True
                )
            ]

    def _make_working(self, dtype: torch.dtype) -> list[Tensor]:
        assert dtype == torch.float32, "FSDP2 rounds the weights it gathers; its own are fp32"
        return self._rows

    def _round(self, which: Iterable[int]) -> None:
        for i in which:
            if self.parts[i]:
                self.working[i].copy_(self._mine(i, self.masters[i]))

    def accumulate(self) -> None:
        """Nothing: FSDP2 has added this pass's gradients to the others'."""

    def _gradients(self) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        with torch.no_grad():
            for parameter, parts in zip(self.parameters, self.parts, strict=True):
                gradient = parameter.grad
                if gradient is not None:
                    cut = _cut(gradient)
                    gradient = cut.full_tensor() if parts else cut.to_local()
                found.append(gradient)
        return found

    def _waits(self) -> bool:
        return True  # processes meet for the norm, which is of all of them

    def _norm(self, gradients: list[Tensor | None]) -> Tensor:
        """The norm over all processes: rows are of one alone, whole matrices are of all."""
        pairs = list(zip(gradients, self.parts, strict=True))
        rows = sum_of_squares([g for g, parts in pairs if g is not None and not parts])
        total = rows.cpu()
        dist.all_reduce(total)
        total += sum_of_squares([g for g, parts in pairs if g is not None and parts]).cpu()
        return total.sqrt()

    def wholes(self) -> Iterator[Tensor]:
        for i, master in enumerate(self.masters):
            yield self._whole(i, master)

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, whole, on the CPU: in the first process; {} in others."""
        found: dict[str, Tensor] = {}
        for kind, i, tensor in self._tensors():
            whole = self._whole(i, tensor)
            if dist.get_rank() == 0:
                found[f"{kind}.{self.names[i]}"] = whole.cpu()
        return found

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take this process's rows of a saved state, whoever saved it."""
        state = settled(state)
        with torch.no_grad():
            for kind, i, tensor in self._tensors():
                whole, wanted = state[f"{kind}.{self.names[i]}"], self.parameters[i].shape
                if whole.shape != wanted:
                    raise ValueError(f"{self.names[i]} is {list(whole.shape)}, not {list(wanted)}")
                tensor.copy_(whole if self.parts[i] else self._mine(i, whole))
            self._round(range(len(self.masters)))
        self.steps = steps

    def _tensors(self) -> Iterator[tuple[str, int, Tensor]]:
        """Everything a checkpoint holds: its kind, the parameter's number, what is here of it."""
        for kind, tensors in self._kept().items():
            for i, tensor in enumerate(tensors):
                if not (kind == "second" and self.parts[i]):
                    yield kind, i, tensor

    def _whole(self, i: int, tensor: Tensor) -> Tensor:
        """All rows of what belongs to a parameter, from every process."""
        if self.parts[i]:
            return tensor
        like = _cut(self.parameters[i])
        with torch.no_grad():
            cut = DTensor.from_local(
                tensor, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
            )
            return cut.full_tensor()

    def _mine(self, i: int, whole: Tensor) -> Tensor:
        """This process's rows, cut as FSDP2 cuts: all but the last processes have as many."""
        each = -(-len(whole) // dist.get_world_size())
        return whole[dist.get_rank() * each :][:each]


def _cut(tensor: Tensor) -> DTensor:
    return cast(DTensor, tensor)
