"""Scores of spans, each for every type, so that entities may lie inside one another.

Shapes: M units of N packed sequences, T types, W the longest span in units. The efficient global
pointer (Su et al. 2022, arXiv:2208.03054): a span's score is how well its first unit's query meets
its last unit's key, both turned by their places (Su et al. 2021), and, for each type, how much the
one looks like a first and the other like a last unit.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeworks.model.heads import AnyEncoder, ClassHead
from clozeworks.model.rotary import turns

WIDTH = 64
"""Width of queries and keys."""
THETA = 10_000.0
FAR = -1e9
"""A score that counts as none: exp gives 0, and no sum is ever all -inf."""


class SpanHead(ClassHead):
    """Rows of units → scores of spans; as classes of tokens, first and last of each type (2T)."""

    def __init__(self, encoder: AnyEncoder, num_types: int, share: float = 0.0) -> None:
        super().__init__(encoder, 2 * num_types, share)
        self.points = nn.Linear(encoder.config.hidden_size, 2 * WIDTH)

    def spans(self, x: Tensor, offsets: Tensor, longest: int) -> "Spans":
        """The scores of all spans of at most `longest` units, [M, H] → [M, W, T] fp32."""
        x = self.dropout(x)
        ends = self.dense(x).float().unflatten(1, (-1, 2))
        queries, keys = self.points(x).float().chunk(2, -1)
        sizes = offsets.diff()
        starts = torch.repeat_interleave(offsets[:-1], sizes)
        place = torch.arange(len(x), device=x.device) - starts
        longest = max(1, min(longest, int(sizes.max()) if len(sizes) else 1))
        cos, sin = (turn[:, 0] for turn in turns(place, WIDTH, THETA))
        queries, keys = _turned(queries, cos, sin), _turned(keys, cos, sin)
        met = torch.einsum("md,mdw->mw", queries, _following(keys, longest)) / WIDTH**0.5
        last = _following(ends[:, :, 1], longest).transpose(1, 2)
        scores = met[:, :, None] + ends[:, None, :, 0] + last
        left = torch.repeat_interleave(offsets[1:], sizes) - starts - place
        there = torch.arange(longest, device=x.device) < left[:, None]
        return Spans(scores, there, offsets)


class Spans(NamedTuple):
    """The scores of spans: entry i, w, t is of the span of units i to i + w as type t."""

    scores: Tensor
    """[M, W, T] fp32."""
    there: Tensor
    """[M, W] bool: whether the span lies within its sequence."""
    offsets: Tensor
    """[N + 1] int64, the units of each sequence."""

    def loss(self, gold: Tensor) -> Tensor:
        """The sum over sequences and types of a loss that sets gold spans, [M, W, T] bool, apart.

        log(1 + Σ exp(-score of each gold one)) + log(1 + Σ exp(score of each other)): all gold
        scores above 0, all others below (Su et al. 2022, "ZLPR", arXiv:2208.02955).
        """
        kept = self.scores.masked_fill(~self.there[:, :, None], FAR)
        others = kept.masked_fill(gold, FAR)
        wanted = (-self.scores).masked_fill(~gold, FAR)
        return self._sums(others) + self._sums(wanted)

    def _sums(self, scores: Tensor) -> Tensor:
        """Σ over sequences and types of log(1 + Σ exp)."""
        rows = scores.logsumexp(1)
        sizes = self.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)
        owners = owner[:, None].expand_as(rows)
        zero = rows.new_zeros(len(sizes), rows.shape[1])
        most = zero.scatter_reduce(0, owners, rows.detach(), "amax")
        sums = (-most).exp().index_add(0, owner, (rows - most[owner]).exp())
        return (most + sums.log()).sum()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors [M, D] turned by the angles of their places; column i together with i + D / 2."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _following(x: Tensor, longest: int) -> Tensor:
    """Each row and those after it: [M, D] → [M, D, W], zeros past the end."""
    if not len(x):
        return x[:, :, None].expand(-1, -1, longest)
    return F.pad(x, (0, 0, 0, longest - 1)).unfold(0, longest, 1)
