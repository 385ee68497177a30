"""A linear-chain conditional random field over packed tokens (Lafferty et al. 2001).

Shapes: T tokens, N sequences, K labels. A sequence's score is the sum of its emissions, of the
scores between neighbours, and of a start and an end score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

BARRED = -1e9
"""The score of a move that is not legal: exp gives 0, and no sum is ever all -inf."""


class Crf(nn.Module):
    """Scores of whole label sequences, trained by their likelihood and decoded by Viterbi.

    `legal` [K + 1, K + 1] bool says which label (down) may come before which (across); row K is
    the start of a sequence, column K its end, and a path of every length must be left. Barred
    moves get no gradient and are never decoded. Everything is computed in fp32, whatever the
    emissions are.
    """

    legal: Tensor

    def __init__(self, legal: Tensor) -> None:
        super().__init__()
        labels = len(legal) - 1
        if legal.dtype != torch.bool or legal.shape != (labels + 1, labels + 1) or labels < 1:
            raise ValueError(f"{legal.dtype} {tuple(legal.shape)} is not bool [K + 1, K + 1]")
        self.start = nn.Parameter(torch.zeros(labels))
        self.transitions = nn.Parameter(torch.zeros(labels, labels))
        self.end = nn.Parameter(torch.zeros(labels))
        self.register_buffer("legal", legal.clone(), persistent=False)

    def log_likelihood(self, emissions: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        """The sum over sequences of log p(labels | emissions), a scalar.

        emissions [T, K]; labels [T] int64; offsets [N + 1] int64, sequences without a token count
        nothing. Raises ValueError if the labels make a move that is barred.
        """
        steps = _Steps.of(offsets)
        emissions = emissions.float()
        if not steps.sizes:
            # every parameter stays in the graph, for processes that share gradients
            return emissions.sum() + 0 * sum(p.sum() for p in self.parameters())
        gold = self._path_scores(emissions, labels, offsets)
        return gold.sum() - self._log_partition(emissions, steps).sum()

    def score(self, emissions: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        """The score of each sequence's labels, not normalised: [N], 0 for one without tokens."""
        return self._path_scores(emissions.float(), labels, offsets)

    def marginals(self, emissions: Tensor, offsets: Tensor) -> Tensor:
        """How likely each token has each label, over all paths of its sequence: [T, K] fp32.

        The derivative of the log partition by the emissions, so one forward and one backward pass.
        """
        with torch.inference_mode(False), torch.enable_grad():
            steps = _Steps.of(offsets)
            leaf = emissions.detach().float().clone().requires_grad_()
            if not steps.sizes:
                return leaf.detach()
            (found,) = torch.autograd.grad(self._log_partition(leaf, steps).sum(), leaf)
        return found

    @torch.no_grad()
    def decode(self, emissions: Tensor, offsets: Tensor) -> Tensor:
        """The labels of each sequence's best path: emissions [T, K] → [T] int64 (Viterbi 1967)."""
        steps = _Steps.of(offsets)
        path = torch.zeros(len(emissions), dtype=torch.int64, device=emissions.device)
        if not steps.sizes:
            return path
        table = self._table()
        split = emissions.float()[steps.rows].split(steps.sizes)
        best = table[-1, :-1] + split[0]
        came: list[Tensor] = []
        for scores in split[1:]:
            reached, source = (best[: len(scores), :, None] + table[:-1, :-1]).max(1)
            came.append(source)
            best = torch.cat([reached + scores, best[len(scores) :]])
        label = (best + table[:-1, -1]).argmax(1)
        rows = steps.rows.split(steps.sizes)
        for step in range(len(rows) - 1, -1, -1):
            count = len(rows[step])
            path[rows[step]] = label[:count]
            if step:
                back = came[step - 1].gather(1, label[:count, None]).squeeze(1)
                label = torch.cat([back, label[count:]])
        return path

    def _table(self) -> Tensor:
        """The score of every move, [K + 1, K + 1] fp32 as `legal`, the barred ones out of reach."""
        moves = torch.cat([self.transitions, self.start[None]])
        ends = torch.cat([self.end, self.end.new_zeros(1)])
        return torch.cat([moves, ends[:, None]], 1).float().masked_fill(~self.legal, BARRED)

    def _path_scores(self, emissions: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        totals = emissions.new_zeros(len(offsets) - 1)
        if not len(labels):
            return totals
        owner = torch.repeat_interleave(torch.arange(len(totals)).to(labels), offsets.diff())
        edge = labels.new_full((1,), len(self.start))
        inside = owner[1:] == owner[:-1]
        before = torch.cat([edge, torch.where(inside, labels[:-1], edge)])
        after = torch.cat([torch.where(inside, labels[1:], edge), edge])
        if not (self.legal[before, labels] & self.legal[labels, after]).all():
            raise ValueError("the labels make a barred move: two neighbours that may not meet")
        table = self._table()
        last = table[labels, after].masked_fill(after != edge, 0.0)
        own = emissions.gather(1, labels[:, None]).squeeze(1) + table[before, labels] + last
        return totals.index_add(0, owner, own)

    def _log_partition(self, emissions: Tensor, steps: "_Steps") -> Tensor:
        """log Σ exp(score) over the paths of each sequence that has tokens, in no order."""
        table = self._table()
        split = emissions[steps.rows].split(steps.sizes)
        forward = table[-1, :-1] + split[0]
        done: list[Tensor] = []
        for scores in split[1:]:
            done.append(forward[len(scores) :])
            forward = (forward[: len(scores), :, None] + table[:-1, :-1]).logsumexp(1) + scores
        return (torch.cat([*done, forward]) + table[:-1, -1]).logsumexp(1)


@dataclass(frozen=True)
class _Steps:
    """Tokens in the order a recurrence takes them: the first of each sequence, the second, …

    rows [T] int64: packed tokens by step, at each step the longest sequence first; sizes: how many
    sequences still have a token at each step, never rising. Empty sequences have no place.
    """

    rows: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, offsets: Tensor) -> "_Steps":
        lengths = offsets.diff()
        order = torch.argsort(lengths, descending=True, stable=True)
        longest = int(lengths.max()) if len(lengths) else 0
        step = torch.arange(longest, device=offsets.device)[:, None]
        there = step < lengths[order]
        return cls((offsets[:-1][order] + step)[there], there.sum(1).tolist())
