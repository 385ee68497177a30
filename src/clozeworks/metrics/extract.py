"""Sentences of a document chosen by what they share with a reference, and what to compare with."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from clozeworks.metrics.generate import Cut, rouge_words

Words = Sequence[str]

_KNOWN: dict[bytes, tuple[int, ...]] = {}
"""Choices made before, by a hash of what they were made of: training asks for them again."""
_HELD = 1 << 20
"""Choices kept at most, some 200 bytes each."""


def oracle(
    sentences: Sequence[str], references: Sequence[str], most: int, cut: Cut = rouge_words
) -> tuple[int, ...]:
    """The places of the sentences nearest to a reference, in order: a greedy choice.

    One after another the sentence is taken that adds most to the sum of ROUGE-1 and ROUGE-2 F1
    (Nallapati et al. 2017, 3.2), up to `most` and as long as one adds anything; of several
    references, for the one that comes out best. None where no sentence shares a word.
    """
    key = _key(sentences, references, most)
    if key not in _KNOWN:
        words = [cut(sentence) for sentence in sentences]
        found = [_Greedy(cut(reference)).choose(words, most) for reference in references]
        best = max(found, key=lambda one: one[0], default=(0.0, ()))
        if len(_KNOWN) < _HELD:
            _KNOWN[key] = best[1]
        return best[1]
    return _KNOWN[key]


def _key(sentences: Sequence[str], references: Sequence[str], most: int) -> bytes:
    total = hashlib.blake2b(str(most).encode(), digest_size=16)
    for texts in (sentences, references):
        for text in texts:
            raw = text.encode("utf-8", "surrogatepass")
            total.update(len(raw).to_bytes(8, "little") + raw)
        total.update(b"\xff" * 8)
    return total.digest()


class _Greedy:
    """What a reference holds, and how much of it the sentences taken so far hold."""

    def __init__(self, reference: Words) -> None:
        self._wanted = [_runs(reference, n) for n in (1, 2)]
        self._sizes = [runs.total() for runs in self._wanted]

    def choose(self, sentences: Sequence[Words], most: int) -> tuple[float, tuple[int, ...]]:
        """The score of the sentences taken, and their places in order."""
        runs = [[_runs(words, n) for n in (1, 2)] for words in sentences]
        held, lengths = [Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()], [0, 0]
        shared, score = [0, 0], 0.0
        taken: list[int] = []
        while len(taken) < most:
            best = None
            for i, own in enumerate(runs):
                if i in taken:
                    continue
                more = [shared[n] + self._gain(n, held[n], own[n]) for n in (0, 1)]
                sizes = [lengths[n] + own[n].total() for n in (0, 1)]
                worth = sum(self._f1(n, more[n], sizes[n]) for n in (0, 1))
                if worth > score + 1e-12:
                    best, score, kept = i, worth, (more, sizes)
            if best is None:
                break
            taken.append(best)
            shared, lengths = kept
            for n in (0, 1):
                held[n].update(runs[best][n])
        return score, tuple(sorted(taken))

    def _gain(self, n: int, held: Counter[tuple[str, ...]], own: Counter[tuple[str, ...]]) -> int:
        """How many more runs of the reference a sentence brings."""
        total = 0
        for run, count in own.items():
            if wanted := self._wanted[n].get(run, 0):
                total += min(wanted, held[run] + count) - min(wanted, held[run])
        return total

    def _f1(self, n: int, shared: int, size: int) -> float:
        return 2 * shared / (self._sizes[n] + size) if shared else 0.0


def _runs(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


RUN = 6
"""Length of a run that counts as said again, in halves of words: three words, or six Chinese
characters."""


def said_again(sentence: Words, others: set[Words]) -> bool:
    """Whether a sentence has a run of words in common with `others`, which `repeatable` gave."""
    return not repeatable(sentence).isdisjoint(others)


def repeatable(sentence: Words) -> set[Words]:
    """The shortest runs of words, each begun at another word, that count as said again."""
    found: set[Words] = set()
    for start in range(len(sentence)):
        size = 0
        for end in range(start, len(sentence)):
            size += 1 if _is_character(sentence[end]) else 2
            if size >= RUN:
                found.add(tuple(sentence[start : end + 1]))
                break
    return found


def _is_character(word: str) -> bool:
    """Whether a word is a single Chinese character."""
    return len(word) == 1 and ord(word) >= 0x3400
