"""The masked-token loss: softmax over the vocabulary, with its gradient made in the forward."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_AT_ONCE = 512
"""Rows of logits held in fp32 at a time when only the loss is asked for."""
DRAWN_AT_ONCE = 64
"""Rows of probabilities added up in fp32 at a time to draw from: few enough for the cache."""
DRAWN_ON_GPU = 1 << 27
"""On a GPU, which would only wait for so many small kernels: so many probabilities, 0.5 GB."""
ALIGNED = 64
"""On a GPU the vocabulary is rounded up to a multiple of this by tokens that have no probability:
of rows that begin just anywhere, as those of 30,522 do, products take three times as long."""


class Workspace:
    """One buffer of logits, used again at every step: fresh ones cost more than the product."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def logits(self, rows: int, like: Tensor) -> Tensor:
        """An uninitialised [rows, V] view, V and dtype those of `like` [V, H]; grows if need be."""
        size = rows * like.shape[0]
        held = self._buffer
        fits = held is not None and held.numel() >= size
        if held is None or not fits or (held.dtype, held.device) != (like.dtype, like.device):
            held = self._buffer = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(rows, like.shape[0])


class How(NamedTuple):
    """What besides the rows a loss is made from, and with."""

    space: Workspace
    lots: "Lots | None" = None
    smoothing: float = 0.0


class Lots(NamedTuple):
    """What decides the tokens that are drawn from a softmax."""

    places: Tensor
    """[M] float64 in [0, 1): how far up the row's running total its token lies."""
    barred: Tensor
    """Ids [n] int64 that are never drawn."""


def cloze_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    space: Workspace,
    smoothing: float = 0.0,
) -> Tensor:
    """Sum over rows of -log p(label): x [M, H], weight [V, H], bias [V], labels [M] → scalar fp32.

    Rows of `x` past the labels are there to round the shape; they count for nothing. `smoothing`
    spreads that share of the label's probability over all tokens alike (Szegedy et al. 2016).

    With gradients wanted, the softmax overwrites the logits and becomes their gradient, so memory
    holds one [M, V] buffer in the weights' dtype; in bf16 the loss value then carries the rounding
    of one probability a row (a few 1e-3, without bias). Without gradients it is exact in fp32.
    """
    return _loss_and_draws(x, weight, bias, labels, How(space, smoothing=smoothing))[0]


def cloze_loss_and_draws(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, space: Workspace, lots: Lots
) -> tuple[Tensor, Tensor]:
    """As `cloze_loss`, and for each row a token [M] drawn from its softmax, without gradient.

    A draw is a function of the probabilities and the row's place alone: no generator is consumed.
    """
    return _loss_and_draws(x, weight, bias, labels, How(space, lots))


def cloze_right(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """For how many rows the label is the likeliest token; arguments as for `cloze_loss`."""
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    x = x[: len(labels)]
    for rows, gold in zip(x.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE), strict=True):
        total += (F.linear(rows, weight, bias).argmax(1) == gold).sum()
    return total


def _loss_and_draws(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, how: How
) -> tuple[Tensor, Tensor]:
    if len(labels) == 0:
        # so that every parameter has a gradient
        return ((x.sum() + bias.sum()) * 0).float(), labels
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return _plainly(x[: len(labels)], weight, bias, labels, how)
    loss, drawn = _ClozeLoss.apply(x, weight, bias, labels, *how)  # type: ignore[no-untyped-call]
    return loss, drawn


def _plainly(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, how: How
) -> tuple[Tensor, Tensor]:
    lots, smoothing = how.lots, how.smoothing
    total = torch.zeros((), device=x.device)
    drawn = []
    for start in range(0, len(labels), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        logits = F.linear(x[rows], weight, bias).float()
        total += F.cross_entropy(logits, labels[rows], reduction="sum", label_smoothing=smoothing)
        if lots is not None:
            drawn.append(_drawn(torch.softmax(logits, 1), Lots(lots.places[rows], lots.barred)))
    return total, torch.cat(drawn) if drawn else labels.new_empty(0)


def _drawn(probs: Tensor, lots: Lots) -> Tensor:
    """For each row of probabilities [M, V] the token at which their running total passes its place.

    That is a draw with these probabilities (the inverse of their distribution function), and needs
    one random number a row where Gumbel's way needs one a token.
    """
    found = []
    size = max(DRAWN_AT_ONCE, DRAWN_ON_GPU // probs.shape[1]) if probs.is_cuda else DRAWN_AT_ONCE
    for rows, places in zip(probs.split(size), lots.places.split(size), strict=True):
        shares = rows.to(torch.float32, copy=True).index_fill_(1, lots.barred, 0.0)
        totals = shares.cumsum_(1)
        whole = totals[:, -1:]
        # a place just under 1 may be rounded up to the whole, where there is no token any more
        wanted = (places[:, None] * whole).float().minimum(whole.nextafter(torch.zeros_like(whole)))
        found.append(torch.searchsorted(totals, wanted, right=True).flatten())
    return torch.cat(found).clamp_max(probs.shape[1] - 1)


def _below(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the mean logit of a row is below its label's, summed: what smoothing adds, times its
    share."""
    own = logits[: len(labels)]
    return own.gather(1, labels[:, None]).float().sum() - own.mean(1, dtype=torch.float32).sum()


def _multiple(device: torch.device) -> int:
    """What the vocabulary's size has to be a multiple of, to be fast there."""
    return ALIGNED if device.type == "cuda" else 1


def _aligned(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Both, with tokens of probability 0 appended where their number is no such multiple."""
    extra = -len(bias) % _multiple(weight.device)
    if not extra:
        return weight, bias
    return F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra), value=-math.inf)


def _first(grad: Tensor, size: int) -> Tensor:
    """So many first rows of a gradient; of a view torch would add no other in place."""
    return grad if len(grad) == size else grad[:size]


class _ClozeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        space: Workspace,
        lots: Lots | None,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        size = len(weight)
        weight, bias = _aligned(weight, bias)
        logits = torch.addmm(bias, x, weight.t(), out=space.logits(len(x), weight))
        below = _below(logits[:, :size], labels) if smoothing else None
        whole = torch.softmax(logits, 1, out=logits)
        probs = whole[:, :size]
        drawn = labels.new_empty(0) if lots is None else _drawn(probs[: len(labels)], lots)
        gold = probs[: len(labels)].gather(1, labels[:, None]).float()
        loss = -gold.clamp_min(torch.finfo(torch.float32).tiny).log().sum()
        if below is not None:
            loss += smoothing * below
            probs[: len(labels)] -= smoothing / size
        probs[torch.arange(len(labels), device=x.device), labels] -= 1 - smoothing
        probs[len(labels) :] = 0
        own = (_first(grad, size) for grad in (whole.t() @ x, whole.sum(0)))
        ctx.save_for_backward(whole @ weight, *own)
        return loss, drawn

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        dx, dweight, dbias = ctx.saved_tensors
        # the saved gradients are ours alone and used once, so they are scaled where they stand
        return dx.mul_(grad), dweight.mul_(grad), dbias.mul_(grad), None, None, None, None
