"""Plans what to cut from a corpus, knowing only sentence lengths: segment pairs, or windows."""

from dataclasses import dataclass

import numpy as np

from clozeworks.core.records import Ints
from clozeworks.data.draw import uniform

SHORT_SHARE = 0.1
"""Share of pairs cut to a random shorter length, so that short inputs are seen too."""


@dataclass(frozen=True)
class Plan:
    """What one epoch cuts: token ranges [start, end) of first and second segments.

    first, second [n, 2] int64 (second is empty for windows); random [n] int64: 1 where the second
    segment is of another document; trimmed: tokens cut off because a pair was too long, or left
    alone at the end of a corpus of one document.
    """

    first: Ints
    second: Ints
    random: Ints
    trimmed: int = 0

    @property
    def lengths(self) -> Ints:
        """Tokens of each item with its special tokens, [n] int64."""
        tokens = np.diff(self.first, axis=1) + np.diff(self.second, axis=1)
        special = np.where(self.second[:, 1] > self.second[:, 0], 3, 2)
        return tokens[:, 0] + special


def windows(sentences: Ints, documents: Ints, chosen: Ints, max_length: int) -> Plan:
    """Cut each chosen document into full windows, end to end; the last one takes what is left."""
    starts, ends = sentences[documents[chosen]], sentences[documents[chosen + 1]]
    room = max_length - 2
    pieces = -(-(ends - starts) // room)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.repeat(starts, pieces) + within * room
    first = np.stack([begin, np.minimum(begin + room, np.repeat(ends, pieces))], 1)
    nothing = np.zeros_like(first)
    return Plan(first, nothing, nothing[:, 0])


def pairs(
    sentences: Ints, documents: Ints, chosen: Ints, max_length: int, key: tuple[int, int]
) -> Plan:
    """Cut the chosen documents into pairs of segments (Devlin et al. 2018, appendix A.2).

    sentences [S + 1] token bounds, documents [D + 1] sentence bounds, chosen [C] document numbers,
    key = (seed, epoch). Half the second segments follow the first; the others come from another
    chosen document, and the sentences they displace are put back and used next. A pair too long
    is trimmed at random ends of its longer side. Where a document is cut depends on the key and
    its own number alone; whom it is paired with, on who else is chosen.
    """
    cutter = _Cutter(sentences.tolist(), documents.tolist(), chosen.tolist(), max_length - 3)
    for document in chosen.tolist():
        cutter.cut(document, key)
    shape = (-1, 2)
    return Plan(
        np.array(cutter.first, dtype=np.int64).reshape(shape),
        np.array(cutter.second, dtype=np.int64).reshape(shape),
        np.array(cutter.random, dtype=np.int64),
        cutter.trimmed,
    )


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
        self.random: list[int] = []
        self.trimmed = 0

    def cut(self, document: int, key: tuple[int, int]) -> None:
        """Add the pairs of one document."""
        begin, end = self.documents[document], self.documents[document + 1]
        # at most one pair a sentence, eight draws a pair
        draws = uniform("pairs", *key, document, np.arange(8 * (end - begin))).tolist()
        at = 0
        while begin < end:
            begin = self._one(document, begin, end, draws[at : at + 8])
            at += 8

    def _one(self, document: int, begin: int, end: int, draws: list[float]) -> int:
        """Cut one pair from sentences [begin, end); return where the next one begins."""
        target = self.room
        if draws[0] < SHORT_SHARE:
            target = 2 + int(draws[1] * (self.room - 1))
        chunk = min(end, begin + (2 if self.alone else 1))
        while chunk < end and self.sentences[chunk] - self.sentences[begin] < target:
            chunk += 1
        size = chunk - begin
        if self.alone and size == 1:  # a last sentence, and nothing to pair it with
            self.trimmed += self.sentences[chunk] - self.sentences[begin]
            return chunk
        split = begin + 1 + int(draws[2] * (size - 1)) if size > 1 else chunk
        first = (self.sentences[begin], self.sentences[split])
        follows = size > 1 and (draws[3] < 0.5 or self.alone)
        if follows:
            second = (self.sentences[split], self.sentences[chunk])
        else:
            second = self._elsewhere(document, target - (first[1] - first[0]), draws[4:6])
        self._add(first, second, not follows, draws[6:8])
        return chunk if follows else split

    def _elsewhere(self, document: int, target: int, draws: list[float]) -> tuple[int, int]:
        """Sentences of another document, from a random one on, until `target` tokens or its end."""
        other = int(draws[0] * (len(self.chosen) - 1))
        other = self.chosen[other + (other >= self.place[document])]
        begin, end = self.documents[other], self.documents[other + 1]
        start = begin + int(draws[1] * (end - begin))
        stop = start + 1
        while stop < end and self.sentences[stop] - self.sentences[start] < target:
            stop += 1
        return self.sentences[start], self.sentences[stop]

    def _add(
        self, first: tuple[int, int], second: tuple[int, int], random: bool, draws: list[float]
    ) -> None:
        """Trim the longer segment to what fits, cutting a drawn share of it at the front."""
        a, b = first[1] - first[0], second[1] - second[0]
        over = max(0, a + b - self.room)
        cut_a, cut_b = _shares(a, b, over)
        self.trimmed += over
        self.first.append(_trim(first, cut_a, draws[0]))
        self.second.append(_trim(second, cut_b, draws[1]))
        self.random.append(int(random))


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
