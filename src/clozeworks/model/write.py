"""Writing with a decoder: greedily, or by beam search; deterministic, many sources at once.

Shapes: N sources, B beams of each, V pieces, n tokens written so far.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clozeworks.model.decoder import Cache, Decoder

ROWS = 128
"""Beams of all sources that are written together: more need memory, and are no faster."""
WORTH = 0.8
"""Share of the sources still being written from which on the finished ones are taken out."""


@dataclass(frozen=True)
class Search:
    """What is looked for: the text with the highest score.

    The score is the sum of the log-probabilities of a text's tokens, the one that ends it included,
    over `((5 + n) / 6) ** penalty` (Wu et al. 2016, section 7); a penalty of 0 leaves the sum.
    """

    first: int
    """The id a target begins with; not part of the text."""
    last: int
    """The id that ends it."""
    barred: Tensor
    """Ids [n] int64 that are never written."""
    longest: int
    """Most tokens of a text, the end included; one that is as long without an end counts, too."""
    least: int = 0
    """Fewest tokens before the end."""
    beams: int = 1
    penalty: float = 0.6
    no_repeat: int = 0
    """No run of so many tokens is written twice; 0: any may be."""
    early: bool = True
    """Whether a search ends with `beams` finished texts; else, when no other can be better."""

    def divisor(self, length: int) -> float:
        """What the sum for a text of so many tokens is divided by."""
        return float(((5 + length) / 6) ** self.penalty)


class Written(NamedTuple):
    """The best text of each source: tokens [N, longest] int64 without the end, 0 after them, and
    how many there are, [N] int64; scores [N] fp32."""

    tokens: Tensor
    lengths: Tensor
    scores: Tensor


def write(decoder: Decoder, memory: Tensor, offsets: Tensor, search: Search) -> Written:
    """Write a text for each source: its vectors `memory` [S, H] at bounds `offsets` [N + 1]."""
    at_once = max(1, ROWS // search.beams)
    bounds = offsets.tolist()
    found = []
    for start in range(0, len(bounds) - 1, at_once):
        stop = min(start + at_once, len(bounds) - 1)
        own = memory[bounds[start] : bounds[stop]]
        some = _Writing(decoder, own, offsets[start : stop + 1] - bounds[start], search)
        found.append(some.run())
    return Written(*(torch.cat(parts) for parts in zip(*found, strict=True)))


class _Writing:
    """The texts of some sources, while they are written."""

    def __init__(self, decoder: Decoder, memory: Tensor, offsets: Tensor, search: Search) -> None:
        self.decoder, self.search = decoder, search
        count, beams, device = len(offsets) - 1, search.beams, memory.device
        self.cache: Cache = decoder.begin(memory, offsets, beams)
        self.tokens = torch.full((count, beams, 1), search.first, device=device)
        """What every beam has written, [N, B, 1 + n], the first id included."""
        self.sums = torch.full((count, beams), -torch.inf, device=device)
        self.sums[:, 0] = 0.0  # all beams begin alike, so that only one counts at first
        self.sources = torch.arange(count, device=device)
        """The numbers of the sources still being written."""
        self.finished = torch.zeros(count, dtype=torch.int64, device=device)
        """How many texts of each of those have ended."""
        self.best = Written(
            torch.zeros(count, search.longest, dtype=torch.int64, device=device),
            torch.zeros(count, dtype=torch.int64, device=device),
            torch.full((count,), -torch.inf, device=device),
        )

    def run(self) -> Written:
        """Write to the end of every text."""
        for length in range(1, self.search.longest + 1):
            self._advance(length)
            if length == self.search.longest:
                self._finish(self.sums / self.search.divisor(length), self.tokens[:, :, 1:])
                break
            going = ~self._done()
            if not going.any():
                break
            if going.float().mean() <= WORTH:
                self._keep(going.nonzero().flatten())
            else:
                self.sums[~going] = -torch.inf  # what is found already stays as it is
        return self.best

    def _advance(self, length: int) -> None:
        """Write one token more: take the best beams, and note the texts that end."""
        search, (count, beams) = self.search, self.sums.shape
        x = self.decoder.step(self.tokens[:, :, -1].flatten(), self.cache)
        chances = torch.log_softmax(self.decoder.logits(x), -1)
        self._bar(chances, length)
        totals = chances.view(count, beams, -1).add_(self.sums[:, :, None]).flatten(1)
        sums, places = totals.topk(2 * beams) if beams > 1 else totals.max(1, keepdim=True)
        size = len(self.decoder.weight)
        from_, ids = places // size, places % size
        # an end among the best ends a text; further down it is only passed over
        ends = ids == search.last
        told = torch.where(ends, sums, -torch.inf)[:, :beams] / search.divisor(length)
        self._finish(told, self._rows(from_[:, :beams], self.tokens)[:, :, 1:])
        self.finished += (told > -torch.inf).sum(1)
        self.sums, order = sums.masked_fill(ends, -torch.inf).topk(beams)
        from_, ids = from_.gather(1, order), ids.gather(1, order)
        if beams > 1:
            firsts = torch.arange(count, device=ids.device)[:, None] * beams
            self.cache.choose((firsts + from_).flatten())
        self.tokens = torch.cat([self._rows(from_, self.tokens), ids[:, :, None]], 2)

    @staticmethod
    def _rows(beams: Tensor, tokens: Tensor) -> Tensor:
        """The tokens [N, k, n] of these beams [N, k]."""
        return tokens.gather(1, beams[:, :, None].expand(-1, -1, tokens.shape[2]))

    def _bar(self, chances: Tensor, length: int) -> None:
        """Leave no chance [N * B, V] to what must not come next."""
        search = self.search
        chances.index_fill_(1, search.barred, -torch.inf)
        if length <= search.least:
            chances[:, search.last] = -torch.inf
        if 0 < search.no_repeat <= length - 1:
            written = self.tokens.flatten(0, 1)[:, 1:]
            runs = written.unfold(1, search.no_repeat, 1)
            begun = written[:, written.shape[1] - search.no_repeat + 1 :]
            again = (runs[:, :, :-1] == begun[:, None]).all(2)
            rows, places = again.nonzero(as_tuple=True)
            chances[rows, runs[rows, places, -1]] = -torch.inf

    def _finish(self, scores: Tensor, tokens: Tensor) -> None:
        """Note the best of each source's texts [N, k, n], where it is better than those before."""
        score, beam = scores.max(1)
        better = score > self.best.scores[self.sources]
        texts = tokens[torch.arange(len(beam), device=beam.device), beam][better]
        at = self.sources[better]
        self.best.tokens[at] = 0
        self.best.tokens[at[:, None], torch.arange(texts.shape[1], device=at.device)] = texts
        self.best.lengths[at] = texts.shape[1]
        self.best.scores[at] = score[better]

    def _done(self) -> Tensor:
        """Which sources [N] need no more."""
        best = self.sums.max(1).values
        if self.search.early or self.search.beams == 1:
            return (self.finished >= self.search.beams) | (best == -torch.inf)
        # a sum only falls, and no divisor is larger than that of the longest text
        return self.best.scores[self.sources] >= best / self.search.divisor(self.search.longest)

    def _keep(self, going: Tensor) -> None:
        self.cache.keep(going)
        self.tokens, self.sums = self.tokens[going], self.sums[going]
        self.sources, self.finished = self.sources[going], self.finished[going]
