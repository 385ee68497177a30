"""Documents as sentences, and sentences as Sequences that hold several of them whole."""

from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np

from clozeworks.core.records import Ints, Sequence
from clozeworks.text.tokenizer import Tokenizer

_WIDE = 0x2E80
"""From here on, characters are as wide as Chinese ones, most of their signs included."""
_EITHER = "\u2018\u2019\u201c\u201d\u2026\u2014\u00b7"
"""Signs of Chinese and of English: quotation marks, ellipsis, dash, middle dot."""


class Limits(NamedTuple):
    """Tokens at most."""

    window: int
    """Of a Sequence, special tokens included."""
    shared: int
    """That two neighbouring Sequences share, in whole sentences."""
    sentence: int
    """Of one sentence; of longer ones the rest is cut, and counted."""


def as_one(sentences: Many[str]) -> tuple[str, Ints]:
    """Sentences as one text, and the characters of each in it, [n, 2] int64.

    A space stands between two, but not after a Chinese character or sign.
    """
    text, bounds = "", []
    for number, sentence in enumerate(sentences):
        before = sentences[number - 1].rstrip(_EITHER)[-1:] if number and sentence else ""
        wide = bool(before) and ord(before) >= _WIDE
        text += " " if number and not wide else ""
        bounds.append((len(text), len(text) + len(sentence)))
        text += sentence
    return text, np.array(bounds, dtype=np.int64).reshape(-1, 2)


def sentence_windows(lengths: Many[int], room: int, shared: int) -> list[tuple[int, int]]:
    """Ranges of sentences of at most `room` tokens that cover them all; one, empty, of none.

    Neighbours share whole sentences of at most `shared` tokens. No sentence may be over `room`.
    """
    found = [(0, _stop(lengths, 0, room))]
    while found[-1][1] < len(lengths):
        start, stop = found[-1]
        back, size = stop, 0
        while back - 1 > start:
            size += lengths[back - 1]
            if size > shared or size + lengths[stop] > room:
                break
            back -= 1
        found.append((back, _stop(lengths, back, room)))
    return found


def _stop(lengths: Many[int], start: int, room: int) -> int:
    """One past the last sentence that fits into a window that begins with one."""
    stop, size = start, 0
    while stop < len(lengths) and (size + lengths[stop] <= room or stop == start):
        size += lengths[stop]
        stop += 1
    return stop


def sentences_in_windows(
    documents: Many[tuple[str, Ints]], tokenizer: Tokenizer, limits: Limits
) -> list[list[Sequence]]:
    """The Sequences of each document: its text, and the characters [n, 2] of its sentences.

    Each sentence has its own special tokens, and segments alternate where the tokenizer knows two
    (Liu 2019, "Fine-tune BERT for Extractive Summarization"). Rows [k] are the first tokens of the
    sentences, units [k, 2] their characters.
    """
    texts = [text[a:b] for text, spans in documents for a, b in spans.tolist()]
    pieces = iter(tokenizer.tokenize(texts))
    return [
        _windows([next(pieces) for _ in range(len(spans))], spans, tokenizer, limits)
        for _, spans in documents
    ]


def _windows(
    pieces: list[Ints], spans: Ints, tokenizer: Tokenizer, limits: Limits
) -> list[Sequence]:
    head, tail = _around(tokenizer)
    most = min(limits.sentence, limits.window - len(head) - len(tail))
    second = max(part.segment for part in tokenizer.form.pair)
    lengths = [len(head) + min(len(ids), most) + len(tail) for ids in pieces]
    found: list[Sequence] = []
    reached = 0
    for start, stop in sentence_windows(lengths, limits.window, limits.shared):
        ids = [np.concatenate([head, own[:most], tail]) for own in pieces[start:stop]]
        sizes = np.array(lengths[start:stop], dtype=np.int64)
        new = pieces[max(start, reached) : stop]
        reached = stop
        found.append(
            Sequence(
                np.concatenate(ids or [head, tail]).astype(np.int64),
                np.repeat(np.arange(len(ids)) % 2 * second, sizes)
                if ids
                else np.zeros(len(head) + len(tail), dtype=np.int64),
                truncated=sum(max(0, len(own) - most) for own in new),
                rows=np.cumsum(sizes) - sizes,
                units=spans[start:stop],
            )
        )
    return found


def _around(tokenizer: Tokenizer) -> tuple[Ints, Ints]:
    """The special tokens before a text and after it."""
    parts = tokenizer.form.single
    place = next(i for i, part in enumerate(parts) if part.text == 0)
    sides = (parts[:place], parts[place + 1 :])
    before, after = ([i for part in side for i in part.ids] for side in sides)
    return np.array(before, dtype=np.int64), np.array(after, dtype=np.int64)
