"""Row counts rounded up, so that the matrix library meets few shapes."""

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 32
"""Rows of a packed batch are computed in multiples of this, or of a coarser step (`step_of`).

The CPU's matrix library prepares and keeps a kernel for every shape it meets: on batches of ever
new lengths that costs half a millisecond and two megabytes a product, over hundreds of shapes
gigabytes. A GPU's has no such cost, so there nothing is appended.
"""
OCTAVE = 16
"""How many sizes there are between a power of two and the next."""


def step_of(count: int) -> int:
    """The step of a count of rows: a power of two, OCTAVE of which lead to the next octave."""
    octave = 1 << max(count - 1, 1).bit_length()
    return max(1, octave // (2 * OCTAVE))


def missing_rows(count: int) -> int:
    """How many rows are missing to the next multiple of the step."""
    return -count % max(STEP, step_of(count))


def rounded(x: Tensor) -> Tensor:
    """[M, H] with rows of zeros appended up to a multiple of the step."""
    extra = 0 if x.is_cuda else missing_rows(len(x))
    return F.pad(x, (0, 0, 0, extra)) if extra else x


def rounded_index(rows: Tensor) -> Tensor:
    """Row numbers [M] with zeros appended up to a multiple of the step."""
    extra = 0 if rows.is_cuda else missing_rows(len(rows))
    return F.pad(rows, (0, extra)) if extra else rows


def rounded_offsets(offsets: Tensor) -> Tensor:
    """Bounds [N + 1] of sequences, with more for the rows appended after the last, if any.

    These count as sequences of at most STEP tokens, which never make a batch's rows longer.
    """
    if offsets.is_cuda:
        return offsets
    end = int(offsets[-1])
    extra = missing_rows(end)
    ends = [*range(end + STEP, end + extra, STEP), end + extra]
    return torch.cat([offsets, offsets.new_tensor(ends)]) if extra else offsets
