"""Units of a text that may carry a tag: its words, or the tokens it was given in."""

import unicodedata
from collections.abc import Sequence as Many
from itertools import pairwise

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Bools, Ints, Sequence
from clozeworks.text.fold import HAN
from clozeworks.text.form import Form
from clozeworks.text.tokenizer import Tokenizer

_BLOCKS = [(block.start, block.stop) for block in HAN]


def joined(tokens: Many[str]) -> tuple[str, Ints]:
    """Tokens as one text, and the characters of each in it, [n, 2] int64.

    A space stands between two tokens unless both sides are Chinese characters.
    """
    parts: list[str] = []
    bounds, length = [], 0
    for token in tokens:
        close = bool(parts) and _is_han(parts[-1][-1:]) and _is_han(token[:1])
        if parts and not close:
            parts.append(" ")
            length += 1
        parts.append(token)
        bounds.append((length, length + len(token)))
        length += len(token)
    return "".join(parts), np.array(bounds, dtype=np.int64).reshape(-1, 2)


def _is_han(character: str) -> bool:
    return bool(character) and any(a <= ord(character) < b for a, b in _BLOCKS)


def words_of(text: str, ids: Ints, spans: Ints, tokenizer: Tokenizer) -> Ints:
    """The characters of each word of a text, [n, 2], from its pieces: ids [m], spans [m, 2].

    A WordPiece that is marked `##` goes on with a word. Of other tokenizers a piece does that
    stands where letters or digits go on; a Chinese character is a word of its own.
    """
    if not len(ids):
        return np.zeros((0, 2), dtype=np.int64)
    first = np.flatnonzero(word_begins(text, ids, spans, tokenizer))
    last = np.append(first[1:], len(ids)) - 1
    ends = [_past_marks(text, end) for end in spans[last, 1].tolist()]
    words = np.stack([spans[first, 0], np.array(ends)], 1)
    return words[words[:, 0] < words[:, 1]]


def past_spaces(text: str, spans: Ints) -> Ints:
    """Spans [m, 2] without the white space that some tokenizers count to the piece after it.

    A piece of white space alone holds nothing, and stands where what follows begins.
    """
    starts = [end - len(text[start:end].lstrip()) for start, end in spans.tolist()]
    return np.stack([np.array(starts, dtype=np.int64), spans[:, 1]], 1)


def word_begins(text: str, ids: Ints, spans: Ints, tokenizer: Tokenizer) -> Bools:
    """Whether each piece of a text begins a word, [m] bool; arguments and words as `words_of`."""
    if tokenizer.is_wordpiece:
        found = [not tokenizer.pieces[i].startswith("##") for i in ids.tolist()]
        begins = np.array(found, dtype=np.bool_)
    else:
        starts = spans[:, 0]
        begins = np.array([_begins(text, start) for start in starts.tolist()], dtype=np.bool_)
        begins[1:] |= starts[1:] > spans[:-1, 1]
        begins[1:] &= starts[1:] > starts[:-1]  # not within the pieces of one character
    begins[:1] = True
    return begins


def _past_marks(text: str, end: int) -> int:
    """The end of a word with the accents and joiners after it, which normalisation took away."""
    while end < len(text) and _is_mark(text[end]):
        end += 1
    return end


def _begins(text: str, at: int) -> bool:
    """Whether a word begins at a character of the text."""
    after, last = text[at : at + 1], at - 1
    while last > 0 and _is_mark(text[last]):
        last -= 1
    before = text[last] if last >= 0 else ""
    if before.strip() and after and _is_mark(after):
        return False  # accents, vowel signs and joiners go on with what they stand on
    return not (before.isalnum() and after.isalnum()) or _is_han(before) or _is_han(after)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


def windows(pieces: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Ranges of at most `room` pieces that cover them all, neighbours sharing `overlap`.

    One range, empty where there is nothing, if all fit. `overlap` must be less than `room`.
    """
    found = [(0, min(room, pieces))]
    while found[-1][1] < pieces:
        start = found[-1][1] - overlap
        found.append((start, min(start + room, pieces)))
    return found


def windowed(
    text: str, bounds: Ints | None, tokenizer: Tokenizer, max_length: int, overlap: int
) -> list[Sequence]:
    """The text as Sequences of at most `max_length` tokens that overlap.

    Each names the rows [k] at which a unit begins, and the units' characters [k, 2]. `bounds` are
    the units' own characters; None: the units are words. A unit without a piece has no row.
    """
    whole = tokenizer.encode(text)
    assert whole.spans is not None
    first, after = _around(tokenizer)
    stop = len(whole) - after
    head, tail = np.arange(first), np.arange(stop, len(whole))
    ids, spans = whole.ids[first:stop], past_spaces(text, whole.spans[first:stop])
    if bounds is None:
        bounds = words_of(text, ids, spans, tokenizer)
    begin, units = _rows(spans, bounds)
    room = max_length - len(head) - len(tail)
    found = []
    for start, end in windows(len(ids), room, min(overlap, room - 1)):
        kept = np.concatenate([head, np.arange(start, end) + first, tail])
        here = (begin >= start) & (begin < end)
        found.append(
            Sequence(
                whole.ids[kept],
                whole.segments[kept],
                whole.spans[kept],
                rows=begin[here] - start + len(head),
                units=units[here],
            )
        )
    return found


def split(texts: Many[str], tokenizer: Tokenizer, max_length: int) -> list[list[Sequence]]:
    """Each text as Sequences of at most `max_length` tokens that follow one another, none left out.

    Those of one text are of like lengths. Raises UserError where there is no room for text.
    """
    before, after = _around(tokenizer)
    room = max_length - before - after
    if room < 1:
        raise UserError(f"max_length {max_length} leaves no room for text; use more")
    found = []
    for whole in tokenizer.encode_batch(texts, spans=False):
        pieces = len(whole) - before - after
        if pieces <= room:
            found.append([whole])
            continue
        ends = np.linspace(0, pieces, -(-pieces // room) + 1).round().astype(np.int64) + before
        head, tail = np.arange(before), np.arange(len(whole) - after, len(whole))
        kept = [np.concatenate([head, np.arange(a, b), tail]) for a, b in pairwise(ends.tolist())]
        found.append([Sequence(whole.ids[rows], whole.segments[rows]) for rows in kept])
    return found


def _around(tokenizer: Tokenizer) -> tuple[int, int]:
    """How many special tokens stand before a text, and after it."""
    parts = tokenizer.form.single
    place = next(i for i, part in enumerate(parts) if part.text is not None)
    before, after = (sum(len(p.ids) for p in some) for some in (parts[:place], parts[place + 1 :]))
    return before, after


def token_windows(
    text: str, whole: Sequence, tokenizer: Tokenizer, max_length: int | None = None
) -> list[Sequence]:
    """A whole Sequence as windows of at most `max_length` tokens, each token asked about once.

    Neighbours share a quarter of a window. Rows [k] are the text's tokens, each in the window in
    which it stands farthest from an end, units [k, 2] their characters; words [n] as `words_of`.
    """
    assert whole.spans is not None
    first, after = _around(tokenizer)
    stop = len(whole) - after
    head, tail = np.arange(first), np.arange(stop, len(whole))
    ids, spans = whole.ids[first:stop], past_spaces(text, whole.spans[first:stop])
    begins = word_begins(text, ids, spans, tokenizer)
    room = len(ids) if max_length is None else max_length - len(head) - len(tail)
    ranges = windows(len(ids), max(room, 1), room // 4)
    owner = _owners(ranges, len(ids))
    found = []
    for number, (start, end) in enumerate(ranges):
        kept = np.concatenate([head, np.arange(start, end) + first, tail])
        mine = np.flatnonzero(owner[start:end] == number)
        words = np.ones(len(kept), dtype=np.bool_)
        words[len(head) : len(head) + end - start] = begins[start:end]
        rows, units = mine + len(head), spans[start:end][mine]
        ids_here, segments = whole.ids[kept], whole.segments[kept]
        found.append(Sequence(ids_here, segments, words=words, rows=rows, units=units))
    return found


def _owners(ranges: list[tuple[int, int]], pieces: int) -> Ints:
    """The range in which each piece lies farthest from an end, [pieces]."""
    owner, best = np.zeros(pieces, dtype=np.int64), np.full(pieces, -1)
    for number, (start, end) in enumerate(ranges):
        place = np.arange(end - start)
        room = np.minimum(place, end - start - 1 - place)
        better = room > best[start:end]
        owner[start:end][better] = number
        best[start:end] = np.maximum(best[start:end], room)
    return owner


def _rows(spans: Ints, bounds: Ints) -> tuple[Ints, Ints]:
    """The first piece of each unit that has one, and those units' characters.

    A unit without a piece of its own belongs to the one whose last piece reaches into it.
    """
    owner = np.searchsorted(bounds[:, 0], spans[:, 0], side="right") - 1
    known, first = np.unique(owner[owner >= 0], return_index=True)
    begin = np.flatnonzero(owner >= 0)[first]
    if not len(known):
        return begin, bounds[known]
    last = np.append(begin[1:], len(spans)) - 1
    reach = np.searchsorted(bounds[:, 0], spans[last, 1], side="left") - 1
    reach = np.clip(reach, known, np.append(known[1:], len(bounds)) - 1)
    return begin, np.stack([bounds[known, 0], bounds[reach, 1]], 1)


def paired(
    first: str, second: str, tokenizer: Tokenizer, limits: tuple[int, int, int]
) -> list[Sequence]:
    """Two texts as Sequences that hold all of the first and, in turn, windows of the second.

    `limits`: the most tokens of a Sequence, those that windows share, and the most tokens of the
    first text, whose end is cut beyond that (and counted). Rows [k] are the second text's tokens,
    units [k, 2] their characters.
    """
    max_length, overlap, most = limits
    (ids, _), (more, spans) = tokenizer.tokenize_with_spans([first, second])
    spans = past_spaces(second, spans)
    asked, cut = ids[:most], max(0, len(ids) - most)
    room = max_length - tokenizer.form.pair_length - len(asked)
    found: list[Sequence] = []
    for start, end in windows(len(more), room, min(overlap, room - 1)):
        ids, segments, before = tokenizer.form.pair_of(asked, more[start:end])
        found.append(
            Sequence(
                ids,
                segments,
                truncated=0 if found else cut,
                rows=np.arange(before, before + end - start),
                units=spans[start:end],
            )
        )
    return found


def alone(ids: Ints, form: Form, limits: tuple[int, int]) -> list[Sequence]:
    """Token ids of a text as Sequences that hold windows of it.

    `limits`: the most tokens of a Sequence, and those that windows share.
    """
    max_length, overlap = limits
    room = max_length - form.single_length
    ranges = windows(len(ids), room, min(overlap, room - 1))
    return [Sequence(*form.single_of(ids[start:end])[:2]) for start, end in ranges]


def beside(
    kept: Ints, moving: Ints, form: Form, limits: tuple[int, int], *, moving_first: bool
) -> list[Sequence]:
    """A pair of token ids as Sequences that hold all of `kept` and, in turn, windows of `moving`.

    `limits`: the most tokens of a Sequence, and those that windows share. `moving_first`: whether
    the first text of the pair is the one that is read in windows.
    """
    max_length, overlap = limits
    room = max_length - form.pair_length - len(kept)
    found = []
    for start, end in windows(len(moving), room, min(overlap, room - 1)):
        shown = moving[start:end]
        ids, segments, _ = form.pair_of(*((shown, kept) if moving_first else (kept, shown)))
        found.append(Sequence(ids, segments))
    return found
