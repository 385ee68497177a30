"""Which tokens are to be given back: single ones, words, spans, n-grams; pure numpy.

Every choice is a function of (seed, epoch, index of the group, sequence in it, place in that), so
neither the batch nor what was drawn before plays a part.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from clozeworks.core.records import Bools, Ints
from clozeworks.data.batches import Batch
from clozeworks.data.draw import uniform, words

Unit = Literal["token", "word", "span", "ngram", "entity"]
"""What is hidden together; an entity is a word once its pieces are joined (`data.names`)."""

LONGEST: dict[Unit, int] = {"span": 10, "ngram": 3}
"""Most words of a span (Joshi et al. 2019) and of an n-gram (Lan et al. 2019)."""

_OWNER_SHIFT = np.uint64(40)
"""Bits of a draw that order the words of a sequence; the sequence's number lies above them."""


class Counters(NamedTuple):
    """The key of every draw over N packed sequences."""

    seed: int
    epoch: int
    groups: Ints
    """[N] number of each sequence's group."""
    within: Ints
    """[N] each sequence's place in its group."""
    offsets: Ints
    """[N + 1] token bounds of the sequences."""

    @property
    def of_sequences(self) -> tuple[int | Ints, ...]:
        """Counters of the sequences."""
        return self.seed, self.epoch, self.groups, self.within

    def owners(self, rows: Ints) -> Ints:
        """The sequence each token is of."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def of_tokens(self, rows: Ints) -> tuple[int | Ints, ...]:
        """Counters of some tokens."""
        owner = self.owners(rows)
        place = rows - self.offsets[owner]
        return self.seed, self.epoch, self.groups[owner], self.within[owner], place

    @classmethod
    def of(cls, batch: Batch, seed: int, epoch: int) -> "Counters":
        """The counters of a batch's sequences."""
        sizes = np.diff(batch.groups.numpy())
        within = np.arange(sizes.sum()) - np.repeat(batch.groups.numpy()[:-1], sizes)
        index = np.repeat(batch.index.numpy(), sizes)
        return cls(seed, epoch, index, within, batch.offsets.numpy())


@dataclass(frozen=True)
class Rule:
    """What is hidden together, and how much of it."""

    unit: Unit
    rate: float
    """Share of the ordinary tokens."""
    longest: int = 1
    """Most words of a span or an n-gram."""
    stop: float = 0.2
    """Chance that a span ends with each of its words: p of the geometric distribution."""
    most_pieces: int = 16
    """Most tokens of a word that may be hidden."""


class Chosen(NamedTuple):
    """The tokens to predict, ascending [M], and the first token of what each was hidden with."""

    rows: Ints
    units: Ints


class _Words(NamedTuple):
    """The words masks are chosen among, W of them, in order."""

    first: Ints
    """First token of each."""
    size: Ints
    """How many of its tokens may be hidden; 0 for special tokens."""
    owner: Ints
    """The sequence it is of."""
    lead: Ints
    """First token of the span it is in: `first` itself where words stand alone."""


def choose(rule: Rule, maskable: Bools, begins: Bools, breaks: Bools, key: Counters) -> Chosen:
    """Choose about `rate` of the maskable tokens of each sequence, whole words at a time.

    maskable, begins, breaks [T]: which tokens may be hidden, begin a word, follow a bound that no
    word or span crosses. Each sequence's quota is rate · n, rounded up or down by chance so that
    its mean is exact, at least 1 and, where long words may not be hidden, at most twice that share
    of what may; words fill it in random order, and the one that would overfill it
    is taken with the chance that keeps the mean. Where only words of more than `most_pieces`
    tokens are left to choose from, their tokens stand alone.
    """
    begins = begins | breaks
    if rule.unit == "token":
        begins = np.ones_like(maskable)
    first = np.flatnonzero(begins)
    size = np.add.reduceat(maskable.astype(np.int64), first) if len(first) else first
    owner = key.owners(first)
    count = len(key.offsets) - 1
    totals = np.bincount(owner, weights=size, minlength=count).astype(np.int64)
    if (huge := size > rule.most_pieces).any():
        fits = np.bincount(owner[(size > 0) & ~huge], minlength=count) > 0
        if (alone := huge & ~fits[owner]).any():
            single = np.repeat(alone, np.diff(first, append=len(begins)))
            return choose(rule, maskable, begins | single, breaks, key)
        size = np.where(huge, 0, size)
        allowed = np.bincount(owner, weights=size, minlength=count).astype(np.int64)
        totals = np.minimum(totals, 2 * allowed)
    spans = _Words(first, size, owner, _leads(rule, first, breaks, key))
    taken = _filled(spans, _quotas(rule.rate, totals, key), key)
    tokens = np.repeat(taken, np.diff(first, append=len(begins))) & maskable
    lead = np.repeat(spans.lead, np.diff(first, append=len(begins)))
    rows = np.flatnonzero(tokens)
    return Chosen(rows, lead[rows])


def _quotas(rate: float, totals: Ints, key: Counters) -> Ints:
    """How many tokens to choose in each sequence, [N]: 0 only where there are none."""
    drawn = np.floor(rate * totals + uniform("mlm.quota", *key.of_sequences))
    return np.minimum(totals, np.maximum(1, drawn)).astype(np.int64)


def _leads(rule: Rule, first: Ints, breaks: Bools, key: Counters) -> Ints:
    """The first token of each word's span: the words cut into spans of random lengths, end to end.

    Spans begin anew after every break. The k-th length a stretch uses is drawn with its k-th word.
    """
    if rule.unit not in LONGEST:
        return first
    lengths = 1 + np.searchsorted(_chances(rule), uniform("mlm.length", *key.of_tokens(first)))
    numbers = np.arange(len(first))
    opens = breaks[first]
    opener = np.maximum.accumulate(np.where(opens, numbers, 0))
    ends = np.append(numbers[opens][1:], len(first))[np.cumsum(opens) - 1]
    before = np.cumsum(lengths) - lengths
    starts = opener + before - before[opener]
    heads = np.zeros_like(numbers)
    inside = starts[starts < ends]
    heads[inside] = inside
    return np.asarray(first[np.maximum.accumulate(heads)])


def _chances(rule: Rule) -> npt.NDArray[np.float64]:
    """Chances that a span has at most 1, 2, … words; the last, which is 1, left out."""
    words_in = np.arange(1, rule.longest + 1)
    weights = 1 / words_in if rule.unit == "ngram" else (1 - rule.stop) ** (words_in - 1.0)
    return np.asarray(np.cumsum(weights / weights.sum())[:-1])


def _filled(spans: _Words, quotas: Ints, key: Counters) -> Bools:
    """Which words are taken, [W]: in random order of spans, until their quota is filled."""
    free = np.flatnonzero(spans.size > 0)
    size, owner, lead = spans.size[free], spans.owner[free], spans.lead[free]
    drawn = words("mlm.place", *key.of_tokens(lead)) >> np.uint64(64 - int(_OWNER_SHIFT))
    order = np.argsort((owner.astype(np.uint64) << _OWNER_SHIFT) | drawn, kind="stable")
    size, owner = size[order], owner[order]
    totals = np.bincount(owner, weights=size, minlength=len(quotas)).astype(np.int64)
    spent = np.cumsum(size) - size - (np.cumsum(totals) - totals)[owner]
    room = quotas[owner] - spent
    lucky = uniform("mlm.last", *key.of_sequences)[owner] * size < room
    taken = (size <= room) | ((room > 0) & lucky)
    empty = (np.bincount(owner[taken], minlength=len(quotas)) == 0) & (totals > 0)
    if empty.any():
        # nothing fitted and luck failed: the shortest word, of several the first in random order
        left = np.flatnonzero(empty[owner])
        left = left[np.lexsort((size[left], owner[left]))]
        taken[left[np.diff(owner[left], prepend=-1) > 0]] = True
    out = np.zeros(len(spans.size), dtype=np.bool_)
    out[free[order[taken]]] = True
    return out
