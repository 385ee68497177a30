"""Self-attention over packed tokens: sequences share rows, and a block mask keeps them apart.

Shapes: T tokens, H width, h heads, d = H / h, R rows, C slots a row.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clozeworks.model.band import attend_in_blocks, band_mask, banded
from clozeworks.model.noise import Noise
from clozeworks.model.rotary import turned
from clozeworks.model.rows import step_of

MIN_CAPACITY = 64
"""Rows are at least this long, so that many short sequences share one matrix product."""
CAPACITY_STEP = 16
"""Row lengths are multiples of this, and row counts of `step_of`: fewer shapes for the matrix
library to prepare."""
LONG = 1024
"""Rows longer than this take torch's fused kernel on a CPU too: slower, but without dropout it
keeps no square of probabilities, which at 8,192 tokens would be gigabytes a layer."""
WIDEST = 256
"""Width of a head up to which torch's kernel for sequences end to end goes."""
_PRIVATE = getattr(getattr(torch.ops.aten, "_softmax_backward_data", None), "out", None)
"""torch's own kernel; a later torch may have none."""
MASKED = -1e9
"""Added to the score of a slot of another sequence: exp gives 0, and no row is ever all -inf."""


@dataclass
class Packing:
    """How full rows of attention were, over some batches."""

    tokens: int = 0
    slots: int = 0

    def add(self, tokens: int, slots: int) -> None:
        """Count a batch: its tokens, and the slots that attention computes for them."""
        self.tokens += tokens
        self.slots += slots


@dataclass(frozen=True)
class Layout:
    """Where each packed token sits among R rows of C slots; made once a batch.

    bounds [N + 1] int32: where sequences begin and end, which is all that a kernel for sequences
    end to end needs, so that rows are laid out only when somebody asks for them. `plain` means
    rows and sequences are the same thing, so no gathering and no mask is needed.
    """

    bounds: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, offsets: Tensor) -> "Layout":
        """Rows for sequences at `offsets` [N + 1] (ascending token positions, first 0)."""
        return cls(offsets.to(torch.int32), [b - a for a, b in pairwise(offsets.tolist())])

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def plain(self) -> bool:
        """Whether each sequence is a row."""
        return self.longest >= MIN_CAPACITY and len(set(self.lengths)) == 1

    @cached_property
    def capacity(self) -> int:
        """C."""
        if self.plain:
            return self.longest
        return max(MIN_CAPACITY, -(-self.longest // CAPACITY_STEP) * CAPACITY_STEP)

    @property
    def rows(self) -> int:
        """R."""
        return len(self._places.owner)

    @property
    def source(self) -> Tensor:
        """The token in each slot (0 in an empty one), [R * C] int64."""
        return self._places.source

    @property
    def slots(self) -> Tensor:
        """The slot of each token, [T] int64."""
        return self._places.slots

    @property
    def owner(self) -> Tensor:
        """The sequence in each slot, -1 where empty, [R, C] int64."""
        return self._places.owner

    @cached_property
    def _places(self) -> "_Places":
        total, capacity, device = sum(self.lengths), self.capacity, self.bounds.device
        if self.plain:
            every = torch.arange(total, device=device)
            owner = torch.arange(len(self.lengths), device=device)[:, None].expand(-1, capacity)
            return _Places(every, every, owner)
        starts, rows = _first_fit(self.lengths, capacity)
        rows += -rows % step_of(rows)
        sizes = torch.tensor(self.lengths)
        shift = torch.tensor(starts) - (sizes.cumsum(0) - sizes)
        slots = torch.arange(total) + torch.repeat_interleave(shift, sizes)
        source = torch.zeros(rows * capacity, dtype=torch.int64)
        source[slots] = torch.arange(total)
        owner = torch.full((rows * capacity,), -1)
        owner[slots] = torch.repeat_interleave(torch.arange(len(self.lengths)), sizes)
        owner = owner.view(rows, capacity).to(device)
        return _Places(source.to(device), slots.to(device), owner)

    def mask(
        self, dtype: torch.dtype, window: int | None = None, *, causal: bool = False
    ) -> Tensor | None:
        """Scores to add, [R, C, C]: 0 within a sequence, MASKED across; None where all may meet.

        With a `window`, tokens further apart than that are MASKED too, and with `causal` those that
        come later; of plain rows the mask is then [1, C, C]. Empty slots attend to one another
        only, so whatever stands in them reaches no token, forward or backward.
        """
        reach = self.capacity if window is None else window
        near = reach < self.capacity - 1
        if self.plain and not near and not causal:
            return None
        owner = self.owner[:1] if self.plain else self.owner
        meets = owner[:, :, None] == owner[:, None, :]
        if near:
            slot = torch.arange(self.capacity, device=meets.device)
            meets &= (slot[:, None] - slot).abs() <= reach
        if causal:
            meets = meets.tril()  # a sequence's tokens stand in their order
        return torch.zeros(meets.shape, dtype=dtype, device=meets.device).masked_fill_(
            ~meets, MASKED
        )

    def spread(self, x: Tensor) -> Tensor:
        """Tokens [T, …] → slots [R * C, …]."""
        return x if self.plain else x.index_select(0, self.source)

    def gather(self, x: Tensor) -> Tensor:
        """Slots [R * C, …] → tokens [T, …]."""
        return x if self.plain else x.index_select(0, self.slots)


class _Places(NamedTuple):
    source: Tensor
    slots: Tensor
    owner: Tensor


def _first_fit(lengths: list[int], capacity: int) -> tuple[list[int], int]:
    """Put each length, longest first, in the first row with room; return start slots and rows."""
    room: list[int] = []
    open_: list[int] = []  # rows that the shortest would fit into
    starts, least = [0] * len(lengths), min(lengths, default=0)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r in open_ if room[r] >= lengths[i]), len(room))
        if row == len(room):
            room.append(capacity)
            open_.append(row)
        starts[i] = row * capacity + capacity - room[row]
        room[row] -= lengths[i]
        if room[row] < least:
            open_.remove(row)
    return starts, len(room)


@dataclass(frozen=True)
class View:
    """How the tokens of one kind of layer see each other: global, or local."""

    layout: Layout
    mask: Tensor | None
    """Scores to add, as `Layout.mask` makes them, or `band_mask` for rows computed in blocks."""
    turn: tuple[Tensor, Tensor] | None = None
    """Cosines and sines of the tokens' positions, where queries and keys are turned."""
    blocks: bool = False
    """Whether rows are computed in blocks, each meeting its neighbours alone."""
    varlen: bool = False
    """Whether torch's kernel for sequences end to end computes it, which needs no rows or mask."""

    @classmethod
    def everywhere(
        cls,
        layout: Layout,
        x: Tensor,
        heads: int,
        turn: tuple[Tensor, Tensor] | None = None,
        share: float = 0.0,
    ) -> "View":
        """Each of the tokens `x` [T, H] sees all of its sequence; `share` of that is dropped."""
        if takes_varlen(x, x.shape[-1] // heads, share):
            return cls(layout, None, turn, varlen=True)
        return cls(layout, layout.mask(x.dtype), turn)

    @classmethod
    def local(
        cls,
        layout: Layout,
        dtype: torch.dtype,
        window: int,
        turn: tuple[Tensor, Tensor] | None = None,
    ) -> "View":
        """Each token sees `window` tokens to either side; long rows are computed in blocks."""
        if not banded(layout.capacity, window):
            return cls(layout, layout.mask(dtype, window), turn)
        return cls(layout, band_mask(layout.owner, window, dtype, MASKED), turn, blocks=True)


@dataclass(frozen=True)
class Drop:
    """Dropout of attention probabilities: its share (0 outside training) and its noise."""

    share: float
    noise: Noise


def takes_varlen(x: Tensor, width: int, share: float) -> bool:
    """Whether `varlen_attn` can serve: on a GPU since Ampere, in half precision, without dropout,
    with heads whose width it need not pad."""
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16) or share:
        return False
    fits = width % 8 == 0 and width <= WIDEST
    return fits and torch.cuda.get_device_capability(x.device) >= (8, 0)


def attend(qkv: Tensor, view: View, heads: int, drop: Drop) -> Tensor:
    """Scaled dot-product attention within each sequence: [T, 3H] → [T, H].

    On a GPU one of torch's fused kernels runs, on the sequences as they lie or on the rows; on a
    CPU its bf16 backward is five times slower than three matrix products with their own backward,
    which run instead unless rows are LONG (Vaswani et al. 2017, section 3.2.1, for the method).
    """
    if view.turn is not None:
        qkv = turned(qkv, view.turn, heads)
    if view.varlen:
        return attend_end_to_end(qkv, view, heads)
    if view.blocks:
        return attend_locally(qkv, view, heads, drop)
    layout, mask = view.layout, view.mask
    if qkv.is_cuda or layout.capacity > LONG:
        return attend_fused(qkv, view, heads, drop)
    out: Tensor = _Attend.apply(qkv, layout, mask, heads, drop)  # type: ignore[no-untyped-call]
    return out


def attend_end_to_end(qkv: Tensor, view: View, heads: int) -> Tensor:
    """The same, turned already, through `varlen_attn`: sequences as they lie, without rows."""
    # it brings torch's compiler along: seconds and 75 MB, which a CPU has no use for
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = qkv.view(len(qkv), 3, heads, -1).unbind(1)
    bounds, longest = view.layout.bounds, view.layout.longest
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest)
    assert isinstance(out, Tensor)
    return out.reshape(len(qkv), -1)


def attend_fused(qkv: Tensor, view: View, heads: int, drop: Drop) -> Tensor:
    """The same, turned already, through `scaled_dot_product_attention`."""
    layout, mask = view.layout, view.mask
    q, k, v = _by_head(layout.spread(qkv), layout, heads).unflatten(1, (layout.rows, heads))
    bias = None if mask is None else mask[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop.share)
    return layout.gather(out.transpose(1, 2).reshape(layout.rows * layout.capacity, -1))


def attend_locally(qkv: Tensor, view: View, heads: int, drop: Drop) -> Tensor:
    """The same in blocks, for a view that is local."""
    layout, mask = view.layout, view.mask
    assert mask is not None and view.blocks
    q, k, v = _by_head(layout.spread(qkv), layout, heads)
    shape = (layout.rows, heads, *mask.shape[2:])
    keep = drop.noise.keep(mask.expand(shape), drop.share) if drop.share else None
    return layout.gather(_by_token(attend_in_blocks(q, k, v, mask, keep), layout))


def attend_plainly(qkv: Tensor, view: View, heads: int) -> tuple[Tensor, Tensor]:
    """The same, step by step, without dropout: outputs [T, H] and probabilities [R, h, C, C]."""
    layout, mask = view.layout, view.mask
    if view.turn is not None:
        qkv = turned(qkv, view.turn, heads)
    q, k, v = _by_head(layout.spread(qkv), layout, heads)
    scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
    scores = scores.unflatten(0, (layout.rows, heads))
    probs = torch.softmax(scores if mask is None else scores + mask[:, None], -1)
    return layout.gather(_by_token(torch.bmm(probs.flatten(0, 1), v), layout)), probs


def _by_head(x: Tensor, layout: Layout, heads: int) -> Tensor:
    """Slots [R * C, 3H] → contiguous queries, keys and values [3, R * h, C, d]."""
    split = x.view(layout.rows, layout.capacity, 3, heads, -1).permute(2, 0, 3, 1, 4)
    # of a single row, reshape alone would give a view of `x`, and `_Attend` writes into it
    return split.reshape(3, layout.rows * heads, layout.capacity, -1).contiguous()


def _by_token(x: Tensor, layout: Layout) -> Tensor:
    """[R * h, C, d] → slots [R * C, H]."""
    split = x.view(layout.rows, -1, layout.capacity, x.shape[-1])
    return split.transpose(1, 2).reshape(layout.rows * layout.capacity, -1)


def before_softmax(grad: Tensor, probs: Tensor) -> Tensor:
    """The gradient before a softmax over the last dimension: of what it gave [.., C] → [.., C].

    It takes the place of `grad`: a fresh square of tens of megabytes costs more than the kernel.
    """
    if _PRIVATE is None or not grad.is_contiguous():  # of its own gradient it then writes amiss
        return grad.sub_((grad * probs).sum(-1, keepdim=True)).mul_(probs)
    found: Tensor = _PRIVATE(grad, probs, -1, probs.dtype, grad_input=grad)
    return found


class _Attend(torch.autograd.Function):
    """Attention by matrix products, its backward written out; keeps the probabilities."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        layout: Layout,
        mask: Tensor | None,
        heads: int,
        drop: Drop,
    ) -> Tensor:
        qkv = _by_head(layout.spread(qkv), layout, heads)
        q, k, v = qkv
        scale = 1 / math.sqrt(q.shape[-1])
        q.mul_(scale)  # `qkv` is our own copy, so this changes nothing outside
        scores = torch.bmm(q, k.transpose(1, 2))
        if mask is not None:
            scores.view(layout.rows, heads, *mask.shape[1:]).add_(mask[:, None])
        probs = torch.softmax(scores, -1, out=scores)
        keep = drop.noise.keep(probs, drop.share) if drop.share else None
        out = torch.bmm(probs if keep is None else probs * keep, v)
        ctx.save_for_backward(qkv, probs, keep)
        ctx.layout, ctx.scale = layout, scale
        return layout.gather(_by_token(out, layout))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        qkv, probs, keep = ctx.saved_tensors
        layout: Layout = ctx.layout
        q, k, v = qkv
        split = layout.spread(grad).view(layout.rows, layout.capacity, -1, q.shape[-1])
        grad = split.transpose(1, 2).reshape(q.shape)
        grads = torch.empty_like(qkv)
        torch.bmm((probs if keep is None else probs * keep).transpose(1, 2), grad, out=grads[2])
        scores = torch.bmm(grad, v.transpose(1, 2))
        if keep is not None:
            scores.mul_(keep)
        scores = before_softmax(scores, probs)
        torch.bmm(scores, k, out=grads[0])
        grads[0].mul_(ctx.scale)
        torch.bmm(scores.transpose(1, 2), q, out=grads[1])
        split = grads.view(3, layout.rows, -1, layout.capacity, q.shape[-1])
        slots = split.permute(1, 3, 0, 2, 4).reshape(layout.rows * layout.capacity, -1)
        return layout.gather(slots), None, None, None, None
