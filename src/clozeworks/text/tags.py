"""Entities as spans of units, and as tags: one BIO or BIOES tag a unit.

A unit is whatever carries a tag: a word, a token, a character. Reading tags that make no sense
follows the two ways of seqeval (github.com/chakki-works/seqeval, 1.2.2), its default, which is that
of the CoNLL-2000 scorer, and its strict mode.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from clozeworks.core.errors import UserError, choose
from clozeworks.core.records import Bools, Ints

Scheme = Literal["bio", "bioes"]
SCHEMES: dict[Scheme, str] = {"bio": "BI", "bioes": "BIES"}
"""The prefixes of each scheme: first unit, inside, and of BIOES last unit and an entity of one."""
OUTSIDE = "O"
_SAME = str.maketrans("MLUW", "IESS")  # how BMES, BILOU and BMEWO write the same prefixes


class Span(NamedTuple):
    """An entity: its first unit, one past its last, and its type."""

    start: int
    end: int
    type: str


def labels_of(types: Iterable[str], scheme: Scheme = "bio") -> list[str]:
    """Every tag that entities of these types need: "O", then each type's in turn."""
    prefixes = SCHEMES[_known(scheme)]
    return [OUTSIDE, *(f"{prefix}-{type}" for type in types for prefix in prefixes)]


def legal_moves(labels: Sequence[str], scheme: Scheme = "bio") -> Bools:
    """Which tag (down) may stand before which (across), [K + 1, K + 1] bool.

    Row K is the start of a text, column K its end; a text without units is legal.
    """
    parts = [_parts(label) for label in labels]
    ends = "BI" if _known(scheme) == "bio" else "ES"
    closed = [prefix == OUTSIDE or prefix in ends for prefix, _ in parts]
    opens = [prefix in "OBS" for prefix, _ in parts]
    legal = np.outer([*closed, True], [*opens, True])
    for i, (prefix, type) in enumerate(parts):
        for j, (following, other) in enumerate(parts):
            if following in "IE":
                legal[i, j] = prefix in "BI" and type == other
    return legal


def tags_of(spans: Iterable[Span], length: int, scheme: Scheme = "bio") -> list[str]:
    """One tag for each of `length` units.

    Raises UserError where two spans share a unit, or one is empty or leaves the units.
    """
    single = "S" in SCHEMES[_known(scheme)]
    tags = [OUTSIDE] * length
    last = Span(0, 0, "")
    for span in sorted(spans):
        start, end, type = span
        if not 0 <= start < end <= length:
            raise UserError(
                f"entity {tuple(span)} does not lie within the {length} units of its text"
            )
        if start < last.end:
            raise UserError(
                f"entities {tuple(last)} and {tuple(span)} overlap; a tag for each unit can only "
                "tell entities apart that do not: keep one of them"
            )
        tags[start:end] = [f"I-{type}"] * (end - start)
        tags[start] = f"B-{type}"
        if single:
            tags[end - 1] = f"{'S' if end - start == 1 else 'E'}-{type}"
        last = span
    return tags


def spans_of(tags: Sequence[str], strict: Scheme | None = None) -> list[Span]:
    """The entities that tags tell of, in order.

    By default nothing is lost: an entity begins where a tag inside one follows none, or one of
    another type. With `strict`, only entities that keep to that scheme count, and a tag that it
    does not have raises UserError. IOB1, BMES, BILOU and BMEWO read as well.
    """
    parts = [_parts(tag) for tag in tags]
    return _lenient(parts) if strict is None else _strict(parts, strict)


def types_of(tags: Iterable[str]) -> list[str]:
    """The types that occur among tags, sorted."""
    return sorted({type for prefix, type in map(_parts, dict.fromkeys(tags)) if prefix != OUTSIDE})


def units_of(span: Span, bounds: Ints) -> Span | None:
    """The units a span of characters touches; `bounds` [n, 2] are the units' own characters.

    None where it touches none. The result covers other characters than `span` where that begins or
    ends inside a unit: `characters_of` shows it.
    """
    touched = np.flatnonzero((bounds[:, 0] < span.end) & (bounds[:, 1] > span.start))
    if not len(touched):
        return None
    return Span(int(touched[0]), int(touched[-1]) + 1, span.type)


def characters_of(span: Span, bounds: Ints) -> Span:
    """The characters, from the first to the last, that a span of units covers."""
    return Span(int(bounds[span.start, 0]), int(bounds[span.end - 1, 1]), span.type)


def _lenient(parts: Sequence[tuple[str, str]]) -> list[Span]:
    spans: list[Span] = []
    start, open_type = 0, ""
    for i, (prefix, type) in enumerate([*parts, (OUTSIDE, "")]):
        if open_type and (prefix in "OBS" or type != open_type):
            spans.append(Span(start, i, open_type))
            open_type = ""
        if prefix != OUTSIDE and not open_type:
            start, open_type = i, type
        if prefix in "ES":
            spans.append(Span(start, i + 1, open_type))
            open_type = ""
    return spans


def _strict(parts: Sequence[tuple[str, str]], scheme: Scheme) -> list[Span]:
    allowed = OUTSIDE + SCHEMES[_known(scheme)]
    spans: list[Span] = []
    start, open_type = 0, ""
    for i, (prefix, type) in enumerate([*parts, (OUTSIDE, "")]):
        if prefix not in allowed:
            raise UserError(
                f"tag {f'{prefix}-{type}'!r} is none of {scheme}, which has "
                f"{', '.join(SCHEMES[scheme])} and O; read the tags as bioes, or not strictly"
            )
        inside = prefix in "IE" and type == open_type
        if open_type and not inside:
            if scheme == "bio":
                spans.append(Span(start, i, open_type))
            open_type = ""
        if prefix in "BS":
            start, open_type = i, type
        if prefix in "ES" and open_type:
            spans.append(Span(start, i + 1, open_type))
            open_type = ""
    return spans


def _parts(tag: str) -> tuple[str, str]:
    """A tag's prefix and type; "_" is the type of a bare prefix, as of segmented words."""
    prefix, dash, type = tag.partition("-")
    prefix = prefix.translate(_SAME)
    if prefix == OUTSIDE and not dash:
        return OUTSIDE, ""
    if len(prefix) != 1 or prefix not in "BIES" or (dash and not type):
        raise UserError(
            f"{tag!r} is no tag; a tag is O, or B, I, E or S with a type, such as B-person"
        )
    return prefix, type or "_"


def _known(scheme: Scheme) -> Scheme:
    choose(scheme, SCHEMES, "scheme")
    return scheme
