"""Plans what to cut from a corpus, knowing only sentence lengths: segment pairs, or windows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from clozeworks.core.records import Ints
from clozeworks.data.draw import uniform

Pairs = Literal["none", "next", "order"]
"""What a task wants of a corpus: windows, pairs half of which follow, or pairs half swapped."""
SHORT_SHARE = 0.1
"""Share of pairs cut to a random shorter length, so that short inputs are seen too."""


@dataclass(frozen=True)
class Plan:
    """What one epoch cuts: token ranges [start, end) of first and second segments.

    first, second [n, 2] int64 (second is empty where a segment stands alone); labels [n] int64: 1
    where the second segment is of another document, or the two are swapped, 0 where it follows, -1
    where there is nothing to tell; trimmed: tokens cut off because a pair was too long, or left
    alone at the end of a corpus of one document.
    """

    first: Ints
    second: Ints
    labels: Ints
    trimmed: int = 0

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each item with its special tokens, [n] int64."""
        tokens = np.diff(self.first, axis=1) + np.diff(self.second, axis=1)
        special = np.where(self.second[:, 1] > self.second[:, 0], 3, 2)
        return tokens[:, 0] + special

    @property
    def share(self) -> float | None:
        """Share of label 1 among the labelled; None where nothing is."""
        known = self.labels[self.labels >= 0]
        return float(known.mean()) if len(known) else None


def uses_all(plan: Plan, kind: Pairs, sentences: Ints, documents: Ints, chosen: Ints) -> bool:
    """Whether a plan cuts each token of the chosen documents once, or counts it as trimmed.

    A second segment from elsewhere is a copy: its tokens count where they are cut as their own.
    """
    own = plan.labels == 0 if kind == "next" else plan.second[:, 1] > plan.second[:, 0]
    parts = np.concatenate([plan.first, plan.second[own]])
    parts = parts[np.argsort(parts[:, 0])]
    bounds, is_chosen = sentences[documents], np.zeros(len(documents), dtype=np.bool_)
    is_chosen[chosen] = True
    owners = np.searchsorted(bounds, parts[:, 0], side="right") - 1
    once = (parts[1:, 0] >= parts[:-1, 1]).all() and is_chosen[owners].all()
    within = (parts[:, 1] <= bounds[owners + 1]).all()
    tokens = (bounds[chosen + 1] - bounds[chosen]).sum()
    return bool(once and within and np.diff(parts).sum() + plan.trimmed == tokens)


def windows(sentences: Ints, documents: Ints, chosen: Ints, max_length: int) -> Plan:
    """Cut each chosen document into full windows, end to end; the last one takes what is left."""
    starts, ends = sentences[documents[chosen]], sentences[documents[chosen + 1]]
    room = max_length - 2
    pieces = -(-(ends - starts) // room)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.repeat(starts, pieces) + within * room
    first = np.stack([begin, np.minimum(begin + room, np.repeat(ends, pieces))], 1)
    return Plan(first, np.zeros_like(first), np.full(len(first), -1))


def pairs(
    sentences: Ints, documents: Ints, chosen: Ints, max_length: int, key: tuple[int, int]
) -> Plan:
    """Cut the chosen documents into pairs of segments (Devlin et al. 2018, appendix A.2).

    sentences [S + 1] token bounds, documents [D + 1] sentence bounds, chosen [C] document numbers,
    key = (seed, epoch). Half the second segments follow the first; the others come from another
    chosen document, and the sentences they displace are put back and used next, as is what is left
    of a sentence that does not fit. A sentence that fills more than half a pair by itself may be
    cut within. Every token is used once, but for a last sentence where one document is chosen.
    Where a document is cut depends on the key and its own number alone; whom it is paired with, on
    who else is chosen.
    """
    tokens, bounds = sentences.tolist(), documents.tolist()
    return _Cutter(tokens, bounds, chosen.tolist(), max_length - 3).plan(key)


def orders(
    sentences: Ints, documents: Ints, chosen: Ints, max_length: int, key: tuple[int, int]
) -> Plan:
    """Cut the chosen documents into pairs that follow each other, half of them swapped (Lan et al.
    2020, 3.1); arguments as for `pairs`.

    A pair has as many whole sentences as fit; where two do not fit, the longer is trimmed at random
    ends, then both.
    Every token is used once, or counted as trimmed. A sentence that has no other beside it (a
    document's only one, or a last one left over) stands alone, in as many windows as it needs, with
    nothing to tell. What is cut from a document depends on the key and its own number alone.
    """
    tokens, bounds = sentences.tolist(), documents.tolist()
    return _Swapper(tokens, bounds, chosen.tolist(), max_length - 3).plan(key)


class _Cutter:
    """Collects pairs document by document; lists, because its steps are too small for arrays."""

    def __init__(
        self, sentences: list[int], documents: list[int], chosen: list[int], room: int
    ) -> None:
        self.sentences, self.documents, self.chosen, self.room = sentences, documents, chosen, room
        self.alone = len(chosen) < 2
        self.place = {document: i for i, document in enumerate(chosen)}
        self.first: list[tuple[int, int]] = []
        self.second: list[tuple[int, int]] = []
        self.labels: list[int] = []
        self.trimmed = 0

    def plan(self, key: tuple[int, int]) -> Plan:
        """The pairs of all chosen documents."""
        for document in self.chosen:
            self.cut(document, key)
        first, second, labels = (
            np.array(found, dtype=np.int64) for found in (self.first, self.second, self.labels)
        )
        return Plan(first.reshape(-1, 2), second.reshape(-1, 2), labels, self.trimmed)

    def cut(self, document: int, key: tuple[int, int]) -> None:
        """Add the pairs of one document."""
        bounds, last = self.sentences, self.documents[document + 1]
        sentence = self.documents[document]
        start, draws, at = bounds[sentence], list[float](), 0
        while start < bounds[last]:
            if at == len(draws):  # six draws a pair; how many pairs there will be, nobody knows
                more = 6 * (2 + 2 * (bounds[last] - start) // self.room)
                draws += uniform("pairs", *key, document, np.arange(at, at + more)).tolist()
            start = self._one(document, start, sentence, draws[at : at + 6])
            while sentence < last and bounds[sentence + 1] <= start:
                sentence += 1
            at += 6

    def _one(self, document: int, start: int, sentence: int, draws: list[float]) -> int:
        """Cut one pair from `start`, a token of `sentence`; return where the next one begins."""
        bounds, last = self.sentences, self.documents[document + 1]
        target, left = self._target(draws[:2]), bounds[sentence + 1] - start
        if target <= left:  # too short a pair for its first sentence: cut none that would fit
            target = left + target if 2 * left <= self.room else self.room
        stop = min(start + target, bounds[last])
        chunk = sentence + 1
        while chunk < last and bounds[chunk] < stop:
            chunk += 1
        size = chunk - sentence
        within = size == 1 and 2 * (stop - start) > self.room
        if within:
            split = start + 1 + int(draws[2] * (stop - start - 1))
        else:
            split = bounds[sentence + 1 + int(draws[2] * (size - 1))]
        if split == stop and self.alone:  # a last sentence, and nothing to pair it with
            self.trimmed += stop - start
            return stop
        follows = split < stop and (draws[3] < 0.5 or self.alone)
        length = start + target - split
        second = (split, stop) if follows else self._elsewhere(document, length, within, draws)
        self.first.append((start, split))
        self.second.append(second)
        self.labels.append(int(not follows))
        return stop if follows else split

    def _target(self, draws: list[float]) -> int:
        """How many tokens a pair is to have: all there is room for, now and then fewer."""
        return self.room if draws[0] >= SHORT_SHARE else 2 + int(draws[1] * (self.room - 1))

    def _elsewhere(
        self, document: int, length: int, within: bool, draws: list[float]
    ) -> tuple[int, int]:
        """`length` tokens of another document, or what is left of it.

        From the start of a random sentence on, or from within one, as what follows the first
        segment does: so that where a segment begins does not tell where it is from.
        """
        other = int(draws[4] * (len(self.chosen) - 1))
        other = self.chosen[other + (other >= self.place[document])]
        begin, last = self.documents[other], self.documents[other + 1]
        end = self.sentences[last]
        if within:
            start = self.sentences[begin]
            start += int(draws[5] * (end - start))
        else:
            start = self.sentences[begin + int(draws[5] * (last - begin))]
        return start, min(start + length, end)


class _Swapper(_Cutter):
    """The same, with both segments from one place, the later one first in half of the pairs."""

    def cut(self, document: int, key: tuple[int, int]) -> None:
        begin, end = self.documents[document], self.documents[document + 1]
        draws = uniform("pairs", *key, document, np.arange(8 * (end - begin) + 1)).tolist()
        # Where a pair ends, a long sentence waits, since it did not fit: the next pair's first.
        # Half the documents are cut from their end, so that length does not tell what was first.
        forward, at = draws[-1] < 0.5, 0
        while begin < end:
            size = self._size(begin, end, self._target(draws[at : at + 2]), forward)
            start = begin if forward else end - size
            self._pair(start, start + size, draws[at + 2 : at + 6])
            begin, end, at = (start + size, end, at + 8) if forward else (begin, start, at + 8)

    def _size(self, begin: int, end: int, target: int, forward: bool) -> int:
        """How many sentences the next pair takes: two, and as many more as fit."""
        size = min(2, end - begin)
        while size < end - begin:
            start = begin if forward else end - size - 1
            if self.sentences[start + size + 1] - self.sentences[start] > target:
                break
            size += 1
        return size

    def _pair(self, begin: int, end: int, draws: list[float]) -> None:
        """Make a pair of sentences [begin, end), or leave a single one alone."""
        if end - begin == 1:
            self._single(self.sentences[begin], self.sentences[end])
            return
        split = begin + 1 + int(draws[0] * (end - begin - 1))
        earlier = (self.sentences[begin], self.sentences[split])
        later = (self.sentences[split], self.sentences[end])
        if draws[1] < 0.5:
            self._add(earlier, later, 0, draws[2:4])
        else:
            self._add(later, earlier, 1, draws[2:4])

    def _add(
        self, first: tuple[int, int], second: tuple[int, int], label: int, draws: list[float]
    ) -> None:
        """Trim the longer segment to what fits, cutting a drawn share of it at the front."""
        a, b = first[1] - first[0], second[1] - second[0]
        over = max(0, a + b - self.room)
        cut_a, cut_b = _shares(a, b, over)
        self.trimmed += over
        self.first.append(_trim(first, cut_a, draws[0]))
        self.second.append(_trim(second, cut_b, draws[1]))
        self.labels.append(label)

    def _single(self, start: int, stop: int) -> None:
        """Windows over tokens that have no second segment; they need one special token less."""
        for begin in range(start, stop, self.room + 1):
            self.first.append((begin, min(begin + self.room + 1, stop)))
            self.second.append((0, 0))
            self.labels.append(-1)


def _shares(a: int, b: int, over: int) -> tuple[int, int]:
    """How much to cut of lengths a and b: the longer one down to the shorter, then both."""
    longer = min(over, abs(a - b))
    rest = over - longer
    cut_a = (longer if a > b else 0) + (rest + 1) // 2
    cut_b = (longer if b >= a else 0) + rest // 2
    return cut_a, cut_b


def _trim(segment: tuple[int, int], cut: int, draw: float) -> tuple[int, int]:
    front = int(draw * (cut + 1))
    return segment[0] + front, segment[1] - (cut - front)


def held_out(num_documents: int, share: float) -> tuple[Ints, Ints]:
    """Split documents into (train, held out) by a hash of their numbers; at least one held out.

    The same for every seed, so that runs are judged on the same text.
    """
    draws = uniform("held out", np.arange(num_documents))
    chosen = draws < share
    if share > 0 and not chosen.any() and num_documents > 1:
        chosen[int(draws.argmin())] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
