"""Sequences packed end to end: the Batch that travels from collate to loss."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from clozeworks.core.records import Bools, Ints, Sequence, Target


@dataclass(frozen=True, slots=True)
class Group:
    """The Sequences of one Example, with its place in the data and what is to be learned of it."""

    index: int
    """Its number in the data: draws are a function of it."""
    sequences: list[Sequence]
    target: Target = -1
    """What its task's `target` says; of a pair, whether it is one; -1 where there is nothing."""


@dataclass(frozen=True)
class Batch:
    """N sequences of G groups, packed into T tokens without padding.

    input_ids, positions, segments [T] int64; offsets [N + 1] int64 token bounds of the sequences;
    groups [G + 1] int64 sequence bounds of the groups; index [G] int64 numbers of the groups;
    targets: whatever the task adds, by name; words [T] bool: whether each token begins a word, None
    where nobody asked; sequences: those packed, with their characters. The last two stay where they
    are when the batch is moved to a device.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    offsets: Tensor
    groups: Tensor
    index: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    words: Bools | None = None
    sequences: tuple[Sequence, ...] = ()

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.input_ids)

    @property
    def firsts(self) -> Tensor:
        """The row of each sequence's first token, [N] int64."""
        return self.offsets[:-1]

    def with_targets(self, input_ids: Tensor | None = None, **targets: Tensor) -> "Batch":
        """A copy with more targets and, if given, other input ids."""
        ids = self.input_ids if input_ids is None else input_ids
        return replace(self, input_ids=ids, targets={**self.targets, **targets})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        if device == self.input_ids.device:
            return self
        names = ("input_ids", "positions", "segments", "offsets", "groups", "index")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        targets = {n: t.to(device, non_blocking=True) for n, t in self.targets.items()}
        return Batch(**moved, targets=targets, words=self.words, sequences=self.sequences)


def pack(groups: Items[Group]) -> Batch:
    """Lay the groups' sequences end to end, in order; raises ValueError if there are none."""
    sequences = [s for group in groups for s in group.sequences]
    if not sequences:
        raise ValueError("a batch needs at least one sequence")
    lengths = np.array([len(s) for s in sequences], dtype=np.int64)
    offsets = bounds(lengths)
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    words = [s.words for s in sequences if s.words is not None]
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([s.ids for s in sequences])),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(np.concatenate([s.segments for s in sequences])),
        offsets=torch.from_numpy(offsets),
        groups=torch.from_numpy(bounds(np.array([len(g.sequences) for g in groups]))),
        index=torch.from_numpy(np.array([g.index for g in groups], dtype=np.int64)),
        words=np.concatenate(words) if len(words) == len(sequences) else None,
        sequences=tuple(sequences),
    )


def bounds(lengths: Ints) -> Ints:
    """Running totals from 0: lengths [n] → bounds [n + 1], int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
