"""Embedding lookup whose gradient is summed in fp32, whatever the dtype of the weights."""

import warnings
from typing import Any

import torch
from torch import Tensor

# torch 2.11 and 2.12 say so even where the checks are turned off by name (pytorch#184610)
warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled", UserWarning)

_DENSE = torch.ops.aten.embedding_dense_backward


def lookup(weight: Tensor, ids: Tensor, sparse: bool = False) -> Tensor:
    """Rows of `weight` [V, H] at `ids` [T] → [T, H]; a `sparse` gradient holds only those rows.

    A common id (a segment, [CLS]) gathers thousands of small gradients; summed in bf16, the sum
    would stop growing once it outweighs them, so they are summed in fp32 and rounded once.
    """
    out: Tensor = _Lookup.apply(weight, ids, sparse)  # type: ignore[no-untyped-call]
    return out


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.sparse = weight.shape, sparse
        return weight.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        if grad.is_cuda and not ctx.sparse:
            # given bf16, torch's kernel for few ids adds up their sums in bf16
            summed = _DENSE(grad.float().contiguous(), ids, ctx.shape[0], -1, False)
            return summed.to(grad.dtype), None, None
        seen, place = torch.unique(ids, return_inverse=True)
        sums = torch.zeros(len(seen), grad.shape[1], dtype=torch.float32, device=grad.device)
        sums.index_add_(0, place, grad.float())
        if ctx.sparse:
            rows = sums.to(grad.dtype)
            made = torch.sparse_coo_tensor(
                seen[None], rows, ctx.shape, check_invariants=False, is_coalesced=True
            )
            return made, None, None
        whole = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device)
        whole[seen] = sums.to(grad.dtype)
        return whole, None, None
