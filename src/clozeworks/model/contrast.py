"""Losses that compare vectors: with the others of a batch, by their order, by their distance."""

import torch
import torch.nn.functional as F
from torch import Tensor


def in_batch(anchors: Tensor, candidates: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each anchor's own candidate among all, summed: InfoNCE.

    anchors [B, H] and candidates [C, H] are of length 1; the own one of anchor i is candidate i.
    `hidden` [B, C] bool are no candidates for an anchor, because they are right too (van den Oord
    et al. 2018; Henderson et al. 2017, as multiple negatives ranking).
    """
    scores = (anchors @ candidates.t() / temperature).masked_fill(hidden, -torch.inf)
    own = torch.arange(len(anchors), device=anchors.device)
    return F.cross_entropy(scores, own, reduction="sum")


def no_negatives(anchors: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Which candidates are not wrong for an anchor [B, B + K], nor anchors for a positive [B, B].

    Given are numbers [B], [B] and [K] int64 that are equal where texts are; candidates are the
    positives, then the negatives. Nothing is wrong that is the anchor word for word, or a positive
    of the same anchor, whichever row says so. Bool; an anchor's own positive is never hidden.
    """
    numbers = torch.cat([anchors, positives, negatives]).unique(return_inverse=True)[1]
    anchors, candidates = numbers.split([len(anchors), len(numbers) - len(anchors)])
    positives = candidates[: len(anchors)]
    right = torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
    right[anchors, positives] = True
    hidden, back = right[anchors][:, candidates], right[anchors][:, positives].t().contiguous()
    hidden.fill_diagonal_(False)
    back.fill_diagonal_(False)
    return hidden, back


def cosent(similarities: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ exp((s_j - s_i) / temperature)) over all i scored above j (Su 2022): a scalar.

    similarities, scores [B]. Only the order of the scores counts.
    """
    scaled = similarities / temperature
    gaps = scaled[None] - scaled[:, None]
    wrong = gaps.masked_fill(scores[:, None] <= scores[None], -torch.inf)
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong.flatten()]), 0)


def cosine_distance(similarities: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of cosines [B] from the cosines they should be, summed."""
    return F.mse_loss(similarities, targets, reduction="sum")
