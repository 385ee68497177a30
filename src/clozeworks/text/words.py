"""Where words begin among the tokens of a text, English and Chinese mixed as they come."""

import re
import unicodedata
from collections.abc import Sequence as Many
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from clozeworks.core.records import Bools, Ints
from clozeworks.text.fold import HAN
from clozeworks.text.segmenters.base import Segmenter
from clozeworks.text.tokenizer import Tokenizer

OTHER, SPACE, PUNCTUATION, CHINESE, NOTHING = range(5)
"""Kinds of characters; NOTHING stands for controls and combining marks, which part no word."""

Kinds = npt.NDArray[np.uint8]
_CHINESE = re.compile("[" + "".join(f"{chr(block[0])}-{chr(block[-1])}" for block in HAN) + "]")


class WordBounds:
    """Tells which tokens begin a word.

    A WordPiece begins one unless it is marked `##`; with other tokenizers, words are what white
    space separates. Punctuation (as BERT defines it) is always a word of its own, and a change
    between Chinese characters and anything else begins one. Runs of Chinese characters are cut by
    a segmenter; a token that reaches over its cut joins the words on both sides.
    """

    def __init__(self, tokenizer: Tokenizer, segmenter: Segmenter) -> None:
        self._tokenizer, self._segmenter = tokenizer, segmenter
        self._begins = np.array([not piece.startswith("##") for piece in tokenizer.pieces])

    def tokenize(self, texts: Many[str]) -> list[tuple[Ints, Bools]]:
        """The token ids of each text without special tokens, [n] int64, and which begin a word."""
        close = [i for i, text in enumerate(texts) if self._by_characters(text)]
        plain = sorted(set(range(len(texts))) - set(close))
        out: dict[int, tuple[Ints, Bools]] = {}
        for i, ids in zip(plain, self._tokenizer.tokenize([texts[i] for i in plain]), strict=True):
            out[i] = ids, self._begins[ids]
        out |= zip(close, self._found([texts[i] for i in close]), strict=True)
        for _, begins in out.values():
            begins[:1] = True
        return [out[i] for i in range(len(texts))]

    def _by_characters(self, text: str) -> bool:
        """Whether marks of the pieces are not enough; looking at characters takes longer."""
        return not self._tokenizer.is_wordpiece or _CHINESE.search(text) is not None

    def _found(self, texts: Many[str]) -> list[tuple[Ints, Bools]]:
        """Ids and bounds of texts, found all at once in one long text of a line each."""
        pairs = self._tokenizer.tokenize_with_spans(texts)
        if not pairs:
            return []
        whole = "".join([f"{self._tokenizer.folded(text)}\n" for text in texts])
        before = np.cumsum([0, *(len(text) + 1 for text in texts)])
        starts = [spans[:, 0] + b for (_, spans), b in zip(pairs, before[:-1], strict=True)]
        ids = np.concatenate([ids for ids, _ in pairs])
        begins = self._begin(whole, ids, np.concatenate(starts))
        ends = np.cumsum([len(ids) for ids, _ in pairs])
        parts = np.split(begins, ends[:-1])
        return [(ids, part) for (ids, _), part in zip(pairs, parts, strict=True)]

    def _begin(self, text: str, ids: Ints, starts: Ints) -> Bools:
        """Which tokens begin a word, from the character each of them starts at."""
        kinds = _kinds()[_codes(text)]
        seen = np.flatnonzero((kinds != SPACE) & (kinds != NOTHING))
        if not len(seen):
            return np.ones(len(ids), dtype=np.bool_)
        bounds = self._bounds(text, kinds, seen)
        # a token that starts at a space means the character after it; at NOTHING, the one before
        at = np.searchsorted(seen, starts) - (kinds[starts] == NOTHING)
        at = np.clip(at, 0, len(seen) - 1)
        before = np.concatenate([[-1], at[:-1]])
        if not self._tokenizer.is_wordpiece:
            apart: Bools = bounds[at] & (at != before)  # not within the pieces of one character
            return apart
        chinese = kinds[seen[at]] == CHINESE
        after = np.concatenate([[False], chinese[:-1]])
        begins: Bools = np.where(chinese, bounds[at], self._begins[ids] | after)
        return begins

    def _bounds(self, text: str, kinds: Kinds, seen: Ints) -> Bools:
        """Whether a word begins at each of the `seen` characters, [len(seen)] bool."""
        kind = kinds[seen]
        gap = np.diff(np.cumsum(kinds == SPACE)[seen], prepend=-1) > 0
        changes = np.diff(kind, prepend=NOTHING) != 0
        bounds = gap | changes | (kind == PUNCTUATION)
        chinese = kind == CHINESE
        starts = np.flatnonzero(chinese & (gap | changes))
        ends = np.flatnonzero(chinese & np.append((gap | changes)[1:], True)) + 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if end - start > 1:
                run = "".join([text[i] for i in seen[start:end].tolist()])
                words = accumulate(map(len, self._segmenter.cut(run)))
                bounds[[start + length for length in words][:-1]] = True
        return np.asarray(bounds)


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


@lru_cache
def _kinds() -> Kinds:
    """The kind of every code point, [0x110000] uint8."""
    kinds = np.full(0x110000, OTHER, dtype=np.uint8)
    for code in (*range(0x20000), *range(0xE0000, 0xE1000)):
        kinds[code] = _kind(chr(code))
    for block in HAN:
        kinds[block.start : block.stop] = CHINESE
    return kinds


def _kind(character: str) -> int:
    category = unicodedata.category(character)
    if character.isspace():
        return SPACE
    if category[0] == "P" or ("!" <= character <= "~" and not character.isalnum()):
        return PUNCTUATION
    if category in ("Cc", "Cf", "Co", "Cs", "Mn", "Me") or character == "\ufffd":
        return NOTHING
    return OTHER
