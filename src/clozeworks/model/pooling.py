"""One vector for a text, from the vectors of its tokens."""

from typing import Literal

import torch
from torch import Tensor

from clozeworks.model.encoder import Packed
from clozeworks.model.heads import means

Pooling = Literal["mean", "cls", "max"]
"""What stands for a text: its tokens' mean, its first token, or the largest of each number."""


def rows_of(batch: Packed, pooling: Pooling) -> Tensor:
    """The rows that `pooled` needs: each sequence's first, or all of them."""
    if pooling == "cls":
        return batch.offsets[:-1]
    return torch.arange(len(batch.input_ids), device=batch.offsets.device)


def pooled(x: Tensor, batch: Packed, pooling: Pooling) -> Tensor:
    """A vector for each sequence, [N, H] fp32, from the rows that `rows_of` names."""
    x = x.float()
    if pooling == "cls":
        return x
    if pooling == "mean":
        return means(x, batch.offsets)
    lengths = batch.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=x.device), lengths)
    least = x.new_full((len(lengths), x.shape[1]), -torch.inf)
    return least.scatter_reduce(0, owner[:, None].expand_as(x), x, "amax")


def joined(vectors: Tensor, lengths: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Vectors of windows [N, H] as those of their texts [M, H]: means weighed by `lengths` [N].

    `owner` [N] int64 says which of the M texts each window is of.
    """
    if len(vectors) == texts:
        return vectors
    weights = lengths.to(vectors.dtype)
    sums = vectors.new_zeros(texts, vectors.shape[1])
    totals = weights.new_zeros(texts).index_add(0, owner, weights)
    return sums.index_add(0, owner, vectors * weights[:, None]) / totals[:, None]
