"""Which parts of the rows a model does worse on: by length of the text and by its language."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.records import Ints, Record
from clozeworks.metrics.calibrate import Bools

Language = Literal["chinese", "english", "mixed", "other"]
LANGUAGES: tuple[Language, ...] = ("chinese", "english", "mixed", "other")

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_WORD = re.compile(rf"{_HAN.pattern}|[^\W_]+?(?={_HAN.pattern}|[\W_]|$)")

MIXED_SHARE = 0.2
"""A text is mixed when the rarer of the two scripts has more than this share of the letters."""


class Slice(Record):
    """The rows of one kind, and how many of them are right."""

    kind: Literal["length", "language"]
    language: Language | None = None
    """The kind's value where the kind is language."""
    shortest: int | None = None
    longest: int | None = None
    """Lengths of the texts in words, both ends included, where the kind is length."""
    rows: int
    right: int
    answered: int
    """Rows that were not left at "I don't know"."""


def language(text: str) -> Language:
    """The language of a text by the scripts of its letters: Han characters against Latin ones."""
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    if han + latin == 0:
        return "other"
    share = han / (han + latin)
    if share >= 1 - MIXED_SHARE:
        return "chinese"
    return "english" if share <= MIXED_SHARE else "mixed"


def words(text: str) -> int:
    """The length of a text as a person counts it: words, every Chinese character being one."""
    return len(_WORD.findall(text))


def slices(texts: Sequence[str], right: Bools, answered: Bools) -> list[Slice]:
    """Up to four slices of about equal size by length, then one for each language that occurs.

    `right` [N] and `answered` [N] bool belong to the texts.
    """
    lengths = np.array([words(text) for text in texts], dtype=np.int64)
    found = []
    for low, high in quarters(lengths):
        here = (lengths >= low) & (lengths <= high)
        counts = _counts(here, right, answered)
        found.append(Slice(kind="length", shortest=low, longest=high, **counts))
    spoken = np.array([language(text) for text in texts])
    for name in LANGUAGES:
        here = spoken == name
        if here.any():
            counts = _counts(here, right, answered)
            found.append(Slice(kind="language", language=name, **counts))
    return found


def _counts(here: Bools, right: Bools, answered: Bools) -> dict[str, int]:
    return {
        "rows": int(here.sum()),
        "right": int((here & right).sum()),
        "answered": int((here & answered).sum()),
    }


def quarters(lengths: Ints) -> list[tuple[int, int]]:
    """Closed ranges of lengths that part the rows near their quartiles, each of some row."""
    tops = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    ranges = []
    above = -1
    for top in tops.tolist():
        inside = lengths[(lengths > above) & (lengths <= top)]
        ranges.append((int(inside.min()), int(inside.max())))
        above = top
    return ranges
