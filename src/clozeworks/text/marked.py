"""Texts with marks around stretches of them, as token ids: which mark stands where."""

from collections.abc import Sequence as Many
from itertools import chain
from typing import NamedTuple

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Sequence, Vocabulary
from clozeworks.text.form import Form
from clozeworks.text.tokenizer import Tokenizer

STRETCHES = 2
"""How many stretches of a text are marked."""
SIGNS = "@#*^$&~|!?"
"""What marks stretches where a vocabulary has no unused pieces (Zhou and Chen 2021): the first of
these that it has."""


class Stretch(NamedTuple):
    """Characters of a text, and what they are called, if anything."""

    start: int
    end: int
    kind: str = ""


class Marked(NamedTuple):
    """A text with marks in it."""

    ids: Ints
    """[n] int64, those of the marks among them."""
    marks: Ints
    """[2k] int64, where the marks stand, an opening and a closing one for each stretch."""


def unused_lacking(vocabulary: Vocabulary) -> list[str]:
    """New `[unused…]` pieces with which a vocabulary has enough to mark two stretches."""
    free = (f"[unused{i}]" for i in range(len(vocabulary.pieces)))
    new = [name for name in free if name not in vocabulary.pieces]
    return new[: max(0, 2 * STRETCHES - len(_unused(vocabulary)))]


def _unused(vocabulary: Vocabulary) -> list[int]:
    known = enumerate(vocabulary.pieces)
    return [i for i, piece in known if i in vocabulary.special and piece.startswith("[unused")]


def marks_of(vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of an opening and a closing mark for each stretch.

    The first `[unused…]` pieces, which no text has; where there are not enough, signs, which open
    and close alike.
    """
    unused = _unused(vocabulary)
    if len(unused) >= 2 * STRETCHES:
        return tuple(unused[: 2 * STRETCHES])
    signs = [vocabulary.pieces.index(sign) for sign in SIGNS if sign in vocabulary.pieces]
    if len(signs) < STRETCHES:
        raise UserError(
            "the vocabulary has neither four [unused…] pieces nor two signs to mark spans with "
            f"({' '.join(SIGNS)}); choose another model"
        )
    return tuple(sign for sign in signs[:STRETCHES] for _ in range(2))


def mark(
    texts: Many[tuple[str, Many[Stretch]]], tokenizer: Tokenizer, marks: Many[int]
) -> list[Marked]:
    """Each text with `marks` around its stretches, which may overlap.

    What lies between two marks is tokenised by itself, so that each stands at its very character,
    inside a word too; the name of a stretch stands behind its opening mark.
    """
    plans = [_plan(text, stretches) for text, stretches in texts]
    pieces = iter(tokenizer.tokenize([text for plan in plans for text, _ in plan]))
    special, unknown = tokenizer.vocabulary.special & set(marks), tokenizer.vocabulary.unknown
    found = []
    for (_, stretches), plan in zip(texts, plans, strict=True):
        places = np.zeros(2 * len(stretches), dtype=np.int64)
        ids: list[int] = []
        for _, place in plan:
            # what a text has that is written like a mark is none
            ids += [unknown if i in special else i for i in next(pieces).tolist()]
            if place >= 0:
                places[place] = len(ids)
                ids.append(marks[place])
        found.append(Marked(np.array(ids, dtype=np.int64), places))
    return found


def _plan(text: str, stretches: Many[Stretch]) -> list[tuple[str, int]]:
    """Texts in order, each with the mark after it, by its number; -1 where none follows.

    At one character marks close before others open; what opens first closes last.
    """
    opening = [((s.start, 1, -s.end, i), 2 * i) for i, s in enumerate(stretches)]
    closing = [((s.end, 0, -s.start, -i), 2 * i + 1) for i, s in enumerate(stretches)]
    plan, at, name = [], 0, ""
    for (place, *_), number in sorted(chain(opening, closing)):
        plan += [(name, -1)] if name else []
        plan.append((text[at:place], number))
        at, name = place, "" if number % 2 else stretches[number // 2].kind
    return [*plan, *([(name, -1)] if name else []), (text[at:], -1)]


def around(found: Marked, form: Form, max_length: int) -> Sequence:
    """The text, or of a longer one the window around all its marks, as a Sequence.

    Its rows are the opening marks. Where the marks do not fit into one window, the tokens nearest
    to a mark are kept, and what lies between is left out.
    """
    room = max_length - form.single_length
    kept = _kept(found, room)
    ids, segments, before = form.single_of(found.ids[kept])
    rows = np.searchsorted(kept, found.marks[::2]) + before
    return Sequence(ids, segments, truncated=len(found.ids) - len(kept), rows=rows)


def _kept(found: Marked, room: int) -> Ints:
    """The places of at most `room` tokens, every mark's among them."""
    count, first, last = len(found.ids), int(found.marks.min()), int(found.marks.max())
    if count <= room:
        return np.arange(count)
    spare = room - (last + 1 - first)
    if spare >= 0:
        start = min(max(0, first - spare // 2), count - room)
        return np.arange(start, start + room)
    far = np.abs(np.arange(count)[:, None] - found.marks[None]).min(1)
    return np.sort(np.argsort(far, kind="stable")[:room])
