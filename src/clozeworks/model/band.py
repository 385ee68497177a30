"""Local attention over long rows: blocks of queries meet their own and the neighbouring keys only.

The whole square of scores of a row of 8,192 tokens takes gigabytes, of which a layer that sees 64
tokens to either side reads a fiftieth.

Shapes: R rows of C slots, h heads, d = H / h; w, the window, is also the length of a block; n
blocks a row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BEYOND = -2
"""Owner of the keys that stand before the first block and after the last: nobody meets them."""


def banded(capacity: int, window: int) -> bool:
    """Whether rows of this length are computed in blocks: where those hold at most half of it."""
    return capacity >= 6 * window


def band_mask(owner: Tensor, window: int, dtype: torch.dtype, masked: float) -> Tensor:
    """Scores to add, [R, 1, n, w, 3w]: 0 within a sequence and the window, else `masked`.

    `owner` [R, C] is the sequence in each slot, -1 where empty; empty slots meet one another.
    """
    rows, capacity = owner.shape
    queries = F.pad(owner, (0, -capacity % window), value=-1).view(rows, -1, window)
    keys = F.pad(queries.flatten(1), (window, window), value=BEYOND).unfold(1, 3 * window, window)
    place = torch.arange(3 * window, device=owner.device) - window
    near = (torch.arange(window, device=owner.device)[:, None] - place).abs() <= window
    meets = (queries[..., None] == keys[:, :, None]) & near
    mask = torch.zeros(meets.shape, dtype=dtype, device=owner.device)
    return mask.masked_fill_(~meets, masked)[:, None]


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, keep: Tensor | None) -> Tensor:
    """Attention of q, k, v [R * h, C, d] under `mask` of `band_mask` → [R * h, C, d].

    `keep` [R, h, n, w, 3w] multiplies the probabilities: their dropout, if any.
    """
    capacity, width = q.shape[1:]
    rows, _, _, window, _ = mask.shape
    q = F.pad(q, (0, 0, 0, -capacity % window)).unflatten(1, (-1, window))
    scores = torch.einsum("bnqd,bndk->bnqk", q / math.sqrt(width), _neighbours(k, window))
    scores = scores.unflatten(0, (rows, -1)) + mask
    probs = torch.softmax(scores, -1)
    probs = (probs if keep is None else probs * keep).flatten(0, 1)
    out = torch.einsum("bnqk,bndk->bnqd", probs, _neighbours(v, window))
    return out.flatten(1, 2)[:, :capacity]


def _neighbours(x: Tensor, window: int) -> Tensor:
    """Each block's own slots with those of the blocks beside it: [B, C, d] → [B, n, d, 3w]."""
    extra = -x.shape[1] % window
    return F.pad(x, (0, 0, window, window + extra)).unfold(1, 3 * window, window)
