"""Cross-attention over packed pairs: targets and their sources share rows, and a mask keeps pairs
apart.

Shapes: N pairs, T target tokens, S source tokens, H width, h heads, d = H / h, R rows of Q slots
for targets and K slots for sources.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clozeworks.model.attention import CAPACITY_STEP, MASKED, MIN_CAPACITY, Drop, before_softmax
from clozeworks.model.rows import step_of


@dataclass(frozen=True)
class Side:
    """Where the tokens of one side sit among R rows of `capacity` slots.

    source [R * C] int64: the token in each slot (0 in an empty one); slots [T] int64: the slot of
    each token; owner [R, C] int64: the pair each slot is of (-1 in an empty one).
    """

    capacity: int
    source: Tensor
    slots: Tensor
    owner: Tensor

    def spread(self, x: Tensor) -> Tensor:
        """Tokens [T or more, …] → slots [R * C, …]."""
        return x.index_select(0, self.source)

    def gather(self, x: Tensor, rows: int) -> Tensor:
        """Slots [R * C, H] → tokens [rows, H], with zeros after those there are."""
        found = x.index_select(0, self.slots)
        return F.pad(found, (0, 0, 0, rows - len(found))) if rows > len(found) else found


@dataclass(frozen=True)
class Across:
    """How each target sees its source; made once a batch."""

    rows: int
    targets: Side
    sources: Side
    mask: Tensor
    """Scores to add, [R, Q, K]: 0 within a pair, MASKED across.

    What stands in an empty slot of the targets, and is never looked at, meets all: of a row that is
    MASKED throughout, the backward of a GPU's fused kernel makes NaN for everything in it.
    """

    @classmethod
    def of(cls, sources: Tensor, targets: Tensor, dtype: torch.dtype) -> "Across":
        """Plan rows for pairs whose sides lie at bounds [N + 1] among the tokens of their kind."""
        lengths = [[b - a for a, b in pairwise(side.tolist())] for side in (sources, targets)]
        capacities = [_capacity(max(side)) for side in lengths]
        starts, rows = _first_fit(lengths, capacities)
        rows += -rows % step_of(rows)
        device = sources.device
        from_, to = (
            _side(*side, rows, device) for side in zip(lengths, starts, capacities, strict=True)
        )
        asks = to.owner[:, :, None]
        meets = (asks == from_.owner[:, None, :]) | (asks < 0)
        mask = torch.zeros(meets.shape, dtype=dtype, device=device).masked_fill_(~meets, MASKED)
        return cls(rows, to, from_, mask)


def _capacity(longest: int) -> int:
    return max(MIN_CAPACITY, -(-longest // CAPACITY_STEP) * CAPACITY_STEP)


def _first_fit(
    lengths: list[list[int]], capacities: list[int]
) -> tuple[tuple[list[int], list[int]], int]:
    """Put each pair, longest first, in the first row with room for both; start slots and rows."""
    first, second = lengths
    room: list[tuple[int, int]] = []
    open_: list[int] = []  # rows that the shortest of both sides would fit into
    least = min(first, default=0), min(second, default=0)
    starts = [0] * len(first), [0] * len(first)
    for i in sorted(range(len(first)), key=lambda i: -first[i] - second[i]):
        a, b = first[i], second[i]
        row = next((r for r in open_ if room[r][0] >= a and room[r][1] >= b), len(room))
        if row == len(room):
            room.append((capacities[0], capacities[1]))
            open_.append(row)
        for start, capacity, free in zip(starts, capacities, room[row], strict=True):
            start[i] = row * capacity + capacity - free
        room[row] = room[row][0] - a, room[row][1] - b
        if room[row][0] < least[0] or room[row][1] < least[1]:
            open_.remove(row)
    return starts, len(room)


def _side(
    lengths: list[int], starts: list[int], capacity: int, rows: int, device: torch.device
) -> Side:
    sizes = torch.tensor(lengths)
    ends = sizes.cumsum(0)
    total = int(ends[-1])
    shift = torch.tensor(starts) - (ends - sizes)
    slots = torch.arange(total) + torch.repeat_interleave(shift, sizes)
    source = torch.zeros(rows * capacity, dtype=torch.int64)
    source[slots] = torch.arange(total)
    owner = torch.full((rows * capacity,), -1)
    owner[slots] = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    return Side(
        capacity, source.to(device), slots.to(device), owner.view(rows, capacity).to(device)
    )


def attend_across(q: Tensor, kv: Tensor, across: Across, heads: int, drop: Drop) -> Tensor:
    """Each target token over the tokens of its source: q [T, H], kv [S, 2H] → [T, H].

    Rows of `q` and `kv` past the pairs' tokens are there to round the shape; they meet nothing. As
    in self-attention, a GPU has torch's fused kernel, a CPU matrix products.
    """
    if q.is_cuda:
        return attend_across_fused(q, kv, across, heads, drop)
    out: Tensor = _Across.apply(q, kv, across, heads, drop)  # type: ignore[no-untyped-call]
    return out


def attend_across_fused(q: Tensor, kv: Tensor, across: Across, heads: int, drop: Drop) -> Tensor:
    """The same through `scaled_dot_product_attention`."""
    rows, mask = across.rows, across.mask[:, None]
    (query,) = _by_head(across.targets.spread(q), rows, heads, 1).unflatten(1, (rows, heads))
    k, v = _by_head(across.sources.spread(kv), rows, heads, 2).unflatten(1, (rows, heads))
    out = F.scaled_dot_product_attention(query, k, v, attn_mask=mask, dropout_p=drop.share)
    return across.targets.gather(_by_token(out.flatten(0, 1), rows, heads), len(q))


def _by_head(x: Tensor, rows: int, heads: int, parts: int) -> Tensor:
    """Slots [R * C, parts * H] → contiguous [parts, R * h, C, d]."""
    split = x.view(rows, -1, parts, heads, x.shape[-1] // (parts * heads)).permute(2, 0, 3, 1, 4)
    return split.reshape(parts, rows * heads, -1, split.shape[-1]).contiguous()


def _by_token(x: Tensor, rows: int, heads: int) -> Tensor:
    """[R * h, C, d] → slots [R * C, H]."""
    split = x.view(rows, heads, x.shape[1], x.shape[2]).transpose(1, 2)
    return split.reshape(rows * x.shape[1], -1)


class _Across(torch.autograd.Function):
    """Attention by matrix products, its backward written out; keeps the probabilities."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, across: Across, heads: int, drop: Drop) -> Tensor:
        ctx.shapes, rows = (len(q), len(kv)), across.rows
        (q,) = _by_head(across.targets.spread(q), rows, heads, 1)
        kv = _by_head(across.sources.spread(kv), rows, heads, 2)
        scale = 1 / math.sqrt(q.shape[-1])
        q.mul_(scale)  # `q` is our own copy, so this changes nothing outside
        scores = torch.bmm(q, kv[0].transpose(1, 2))
        scores.view(rows, heads, *across.mask.shape[1:]).add_(across.mask[:, None])
        probs = torch.softmax(scores, -1, out=scores)
        keep = drop.noise.keep(probs, drop.share) if drop.share else None
        out = torch.bmm(probs if keep is None else probs * keep, kv[1])
        ctx.save_for_backward(q, kv, probs, keep)
        ctx.across, ctx.scale, ctx.heads = across, scale, heads
        return across.targets.gather(_by_token(out, rows, heads), ctx.shapes[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        q, kv, probs, keep = ctx.saved_tensors
        across: Across = ctx.across
        rows, heads = across.rows, ctx.heads
        # an empty slot, given a token's gradient, would pass it on to the keys of other pairs
        empty = (across.targets.owner < 0).view(-1, 1)
        spread = across.targets.spread(grad).masked_fill_(empty, 0.0)
        (grad,) = _by_head(spread, rows, heads, 1)
        grads = torch.empty_like(kv)
        torch.bmm((probs if keep is None else probs * keep).transpose(1, 2), grad, out=grads[1])
        scores = torch.bmm(grad, kv[1].transpose(1, 2))
        if keep is not None:
            scores.mul_(keep)
        scores = before_softmax(scores, probs)
        dq = torch.bmm(scores, kv[0]).mul_(ctx.scale)
        torch.bmm(scores.transpose(1, 2), q, out=grads[0])
        slots = grads.view(2, rows, heads, kv.shape[2], kv.shape[3]).permute(1, 3, 0, 2, 4)
        dkv = across.sources.gather(slots.reshape(rows * kv.shape[2], -1), ctx.shapes[1])
        return (
            across.targets.gather(_by_token(dq, rows, heads), ctx.shapes[0]),
            dkv,
            None,
            None,
            None,
        )
