"""Row counts rounded up, so that the matrix library meets few shapes."""

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 32
"""Rows of a packed batch are computed in multiples of this.

The CPU's matrix library prepares and keeps a kernel for every shape it meets: on batches of ever
new lengths that costs half a millisecond a product and, over hundreds of shapes, gigabytes.
"""


def missing_rows(count: int) -> int:
    """How many rows are missing to the next multiple of STEP."""
    return -count % STEP


def rounded(x: Tensor) -> Tensor:
    """[M, H] with rows of zeros appended up to a multiple of STEP."""
    extra = missing_rows(len(x))
    return F.pad(x, (0, 0, 0, extra)) if extra else x


def rounded_index(rows: Tensor) -> Tensor:
    """Row numbers [M] with zeros appended up to a multiple of STEP."""
    extra = missing_rows(len(rows))
    return F.pad(rows, (0, extra)) if extra else rows


def rounded_offsets(offsets: Tensor) -> Tensor:
    """Bounds [N + 1] of sequences, with one more for the rows appended after the last, if any."""
    extra = missing_rows(int(offsets[-1]))
    return torch.cat([offsets, offsets[-1:] + extra]) if extra else offsets
