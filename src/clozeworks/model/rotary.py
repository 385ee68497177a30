"""Positions as functions: waves added to vectors, and queries and keys turned by angles."""

import torch
from torch import Tensor


def waves(count: int, width: int) -> Tensor:
    """Sines at even and cosines at odd columns, [count, width] fp32 (Vaswani et al. 2017, 3.5)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    out = torch.empty(count, width, dtype=torch.float64)
    out[:, 0::2] = angles.sin()
    out[:, 1::2] = angles.cos()[:, : width // 2]
    return out.float()


def turns(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions [T], [T, 1, width / 2] fp32 each (Su et al. 2021)."""
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = positions[:, None].float() * (1.0 / theta**steps)
    return angles.cos()[:, None], angles.sin()[:, None]


def turned(qkv: Tensor, turn: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Queries and keys of `qkv` [T, 3H] turned by their positions, values left as they are.

    Column i of a head turns together with column i + d / 2, as released RoPE models have it; in
    fp32, whatever the dtype.
    """
    cos, sin = turn
    parts = qkv.view(len(qkv), 3 * heads, -1)
    a, b = parts[:, : 2 * heads].float().chunk(2, -1)
    both = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(qkv.dtype)
    return torch.cat([both, parts[:, 2 * heads :]], 1).view(len(qkv), -1)
