"""Losses of whole texts, each a sum over rows in fp32: one class, several labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

SURE = 1e-7
"""Least that is left of a probability in focal losses: at 0 a root has no gradient."""


def class_loss(
    logits: Tensor,
    gold: Tensor,
    weights: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    focus: float = 0.0,
) -> Tensor:
    """Sum of cross-entropies: logits [N, K], gold [N] int64, weights [K] of the classes.

    `smoothing` spreads that share of the gold class's probability over all classes alike (Szegedy
    et al. 2016). `focus` is the exponent of the focal loss (Lin et al. 2017): a row counts for
    (1 - p) ** focus, p being the probability its class is given.
    """
    if not focus:
        return F.cross_entropy(logits, gold, weights, reduction="sum", label_smoothing=smoothing)
    each = F.cross_entropy(logits, gold, weights, reduction="none", label_smoothing=smoothing)
    p = torch.softmax(logits, -1).gather(1, gold[:, None])[:, 0]
    return (each * (1 - p).clamp_min(SURE) ** focus).sum()


def label_loss(
    logits: Tensor,
    gold: Tensor,
    weights: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    focus: float = 0.0,
) -> Tensor:
    """Sum of binary cross-entropies over rows and labels: logits and gold [N, K], gold 0 or 1.

    `weights` [K] multiply what a label that is there counts; `smoothing` moves gold that share of
    the way to one half; `focus` as for `class_loss`, for each label.
    """
    wanted = gold * (1 - smoothing) + smoothing / 2 if smoothing else gold
    how = "none" if focus else "sum"
    each = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction=how)
    if not focus:
        return each
    p = torch.sigmoid(logits)
    p = torch.where(gold > 0, p, 1 - p)
    return (each * (1 - p).clamp_min(SURE) ** focus).sum()


def balanced_classes(gold: Tensor, classes: int) -> Tensor:
    """Weights [K] under which every class counts alike: N / (K · rows of the class), 1 for none."""
    counts = torch.bincount(gold, minlength=classes).float()
    return torch.where(counts > 0, len(gold) / (classes * counts), torch.ones_like(counts))


MOST = 100.0
"""A label that is hardly ever there counts at most so many times."""


def balanced_labels(gold: Tensor) -> Tensor:
    """Weights [K] under which a label there counts as much as the label not there: gold [N, K]."""
    there = gold.sum(0)
    weights = (len(gold) - there) / there.clamp_min(1)
    return torch.where(there > 0, weights.clamp(1 / MOST, MOST), torch.ones_like(weights))


def log_sums(logits: Tensor, ends: Tensor) -> Tensor:
    """The log of the sum of exponentials of each sequence's rows: [M, K] → [N, K]."""
    sizes = ends.diff()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=logits.device), sizes)
    owners = owner[:, None].expand_as(logits)
    shape = (len(sizes), logits.shape[1])
    most = logits.new_full(shape, -torch.inf).scatter_reduce(0, owners, logits.detach(), "amax")
    sums = logits.new_zeros(shape).index_add(0, owner, (logits - most[owner]).exp())
    return most + sums.log()
