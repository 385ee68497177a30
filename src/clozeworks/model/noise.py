"""Dropout whose masks are a function of a key, drawn cheaply enough for a CPU."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Noise:
    """One source of dropout masks, shared by a whole model and seeded before every forward.

    On a CPU torch's own masks cost several times more than bytes of SFC64 (numpy), so a value is
    kept when a random byte is at least `share * 256`; on a GPU torch's generator draws.
    """

    def __init__(self) -> None:
        self._bytes = np.random.Generator(np.random.SFC64(0))

    def reseed(self, *key: int) -> None:
        """Make what follows a function of `key` (seed, step, micro-batch, rank) alone."""
        sequence = np.random.SeedSequence(key)
        self._bytes = np.random.Generator(np.random.SFC64(sequence))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def keep(self, like: Tensor, share: float) -> Tensor:
        """A mask shaped like `like`: 0 with probability `share`, otherwise 1 / (1 - share).

        On a CPU the probability is rounded to 1/256, and the scale to match.
        """
        if like.is_cuda:
            return torch.empty_like(like).bernoulli_(1 - share).div_(1 - share)
        limit = min(255, max(1, round(share * 256)))
        drawn = np.frombuffer(self._bytes.bytes(like.numel()), dtype=np.uint8)
        kept = torch.from_numpy(drawn >= limit).view(like.shape)
        return kept.to(like.dtype).mul_(256 / (256 - limit))

    def replayed(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts for a pass and for its repetition: in both, the same masks are drawn.

        As `torch.utils.checkpoint` takes them; torch's own generator it replays itself.
        """
        return nullcontext(), self._from(self._bytes.bit_generator.state)

    @contextmanager
    def _from(self, state: Mapping[str, Any]) -> Iterator[None]:
        now = self._bytes.bit_generator.state
        self._bytes.bit_generator.state = state
        try:
            yield
        finally:
            self._bytes.bit_generator.state = now


class Dropout(nn.Module):
    """Dropout of a share of the values while training, with masks from a shared Noise."""

    def __init__(self, share: float, noise: Noise) -> None:
        super().__init__()
        self.share = share
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        if x.is_cuda:  # by the same generator as `keep`, in one kernel
            return F.dropout(x, self.share)
        return x * self.noise.keep(x, self.share)

    def extra_repr(self) -> str:
        """What printing the module shows."""
        return f"share={self.share}"
