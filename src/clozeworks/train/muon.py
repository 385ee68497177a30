"""Muon: matrices move by their orthogonalised momentum, all of one shape at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that brings singular values near 1 in few rounds (Jordan et al. 2024)."""
ROUNDS = 5
LEAST = 1e-7
"""No matrix is divided by less."""
RMS = 0.2
"""Root mean square of what AdamW moves a matrix by, for each of its learning rate (Liu et al.
2025): so one rate serves both."""


@dataclass(frozen=True)
class Turned:
    """A parameter that consists of so many matrices, one below the other; all tensors fp32."""

    master: Tensor
    momentum: Tensor
    parts: int
    decay: float


def turn(turned: Sequence[Turned], gradients: list[Tensor], rate: float) -> None:
    """One step of all of them, in place; the gradients (fp32, of the same shapes) are used up.

    Matrices of one shape are turned in one batch of products: few large ones instead of many small
    ones, each of which a GPU would have to be asked for.
    """
    if not turned:
        return
    momenta = [one.momentum for one in turned]
    torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
    torch._foreach_lerp_(gradients, momenta, MOMENTUM)  # Nesterov's: a step ahead
    alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    torch._foreach_mul_([one.master for one in turned], [1 - rate * one.decay for one in turned])
    for one, gradient in zip(turned, gradients, strict=True):
        cut = zip(one.master.chunk(one.parts), gradient.chunk(one.parts), strict=True)
        for master, part in cut:
            alike.setdefault(part.shape, []).append((master, part))
    for shape, pairs in alike.items():
        made = orthogonal(torch.stack([part for _, part in pairs])).unbind()
        step = -rate * RMS * math.sqrt(max(shape))
        torch._foreach_add_([master for master, _ in pairs], made, alpha=step)


def orthogonal(matrices: Tensor) -> Tensor:
    """Each of [N, A, B] with its singular values brought near 1: between about 0.7 and 1.2.

    Newton and Schulz's iteration in bf16, whichever dtype they come in and leave in.
    """
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(LEAST)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype).contiguous()
