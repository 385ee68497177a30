"""The masked-token loss: softmax over the vocabulary, with its gradient made in the forward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_AT_ONCE = 512
"""Rows of logits held in fp32 at a time when only the loss is asked for."""


class Workspace:
    """One buffer of logits, used again at every step: fresh ones cost more than the product."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def logits(self, rows: int, like: Tensor) -> Tensor:
        """An uninitialised [rows, V] view, V and dtype those of `like` [V, H]; grows if need be."""
        size = rows * like.shape[0]
        held = self._buffer
        if held is None or held.numel() < size or held.dtype != like.dtype:
            held = self._buffer = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(rows, like.shape[0])


def cloze_loss(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, space: Workspace) -> Tensor:
    """Sum over rows of -log p(label): x [M, H], weight [V, H], bias [V], labels [M] → scalar fp32.

    Rows of `x` past the labels are there to round the shape; they count for nothing.

    With gradients wanted, the softmax overwrites the logits and becomes their gradient, so memory
    holds one [M, V] buffer in the weights' dtype; in bf16 the loss value then carries the rounding
    of one probability a row (a few 1e-3, without bias). Without gradients it is exact in fp32.
    """
    if len(labels) == 0:
        return (x.sum() * 0).float()
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return _plain_loss(x[: len(labels)], weight, bias, labels)
    loss: Tensor = _ClozeLoss.apply(x, weight, bias, labels, space)  # type: ignore[no-untyped-call]
    return loss


def _plain_loss(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros((), device=x.device)
    for rows, gold in zip(x.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE), strict=True):
        logits = F.linear(rows, weight, bias).float()
        total += F.cross_entropy(logits, gold, reduction="sum")
    return total


class _ClozeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, space: Workspace
    ) -> Tensor:
        logits = torch.addmm(bias, x, weight.t(), out=space.logits(len(x), weight))
        probs = torch.softmax(logits, 1, out=logits)
        gold = probs[: len(labels)].gather(1, labels[:, None]).float()
        loss = -gold.clamp_min(torch.finfo(torch.float32).tiny).log().sum()
        probs[torch.arange(len(labels), device=x.device), labels] -= 1
        probs[len(labels) :] = 0
        ctx.save_for_backward(probs @ weight, probs.t() @ x, probs.sum(0))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        dx, dweight, dbias = ctx.saved_tensors
        # the saved gradients are ours alone and used once, so they are scaled where they stand
        return dx.mul_(grad), dweight.mul_(grad), dbias.mul_(grad), None, None
