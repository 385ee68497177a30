"""WordPiece tokens written out as text: words whole, spaces as English has them, none in Chinese.

Tokens do not say where spaces stood, so this is a guess by the rules of print; but what is written,
read again, is the same tokens.
"""

import unicodedata
from collections.abc import Iterable

from clozeworks.text.fold import HAN

_BLOCKS = [(block.start, block.stop) for block in HAN]
CLOSING = frozenset(".,;:!?)]}%\u201d\u2019\u00bb\u2026")
"""Signs that stand close to what is before them."""
OPENING = frozenset("([{$#@\u201c\u2018\u00ab\u00bf\u00a1")
"""Signs that stand close to what comes after them."""
INSIDE = frozenset("-/_@\u2013")
"""Signs that join the two words they stand between."""
SHORTENED = frozenset(["s", "t", "d", "m", "re", "ve", "ll", "em", "clock"])
"""What follows an apostrophe inside a word."""


def written(pieces: Iterable[str]) -> str:
    """The text of some pieces, `##` before those that go on with a word."""
    words: list[str] = []
    for piece in pieces:
        goes_on = piece.startswith("##") and len(piece) > 2
        if goes_on and words:
            words[-1] += piece[2:]
        else:
            words.append(piece[2:] if goes_on else piece)
    return _spaced(words)


def _spaced(words: list[str]) -> str:
    """Words and signs with spaces between those that have one."""
    parts: list[str] = []
    opened: set[str] = set()
    close = True
    for i, word in enumerate(words):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        left, right = _sides(before, word, after, opened)
        if not (close or left or _is_wide(before[-1:]) or _is_wide(word[:1])):
            parts.append(" ")
        parts.append(word)
        close = right
    return "".join(parts)


def _sides(before: str, word: str, after: str, opened: set[str]) -> tuple[bool, bool]:
    """Whether a word stands close to the one before, and to the one after it."""
    if word in ("'", '"', "\u2019"):
        return _quote(before, word, after, opened)
    inner = before[-1:].isalnum() and after[:1].isalnum()
    if inner and word in INSIDE:
        digits = before[-1:].isdigit() and after[:1].isdigit()
        return (True, True) if word != "\u2013" or digits else (False, False)
    if inner and word in (".", ",", ":"):
        return True, _goes_on(before, word, after)
    return word in CLOSING, word in OPENING


def _quote(before: str, word: str, after: str, opened: set[str]) -> tuple[bool, bool]:
    """The same of a quotation mark that opens and closes, or of an apostrophe."""
    if word != '"' and before[-1:].isalnum() and after.lower() in SHORTENED:
        return True, True
    if word == "\u2019":
        return True, False
    if word in opened:
        opened.discard(word)
        return True, False
    if word == "'" and before[-1:].lower() == "s":
        return True, False  # the dogs' ears
    opened.add(word)
    return False, True


def _goes_on(before: str, sign: str, after: str) -> bool:
    """Whether a number, or an abbreviation of single letters, goes on after a sign."""
    if before.isdecimal() and after.isdecimal():
        return sign == "." or (sign == "," and len(after) == 3) or (sign == ":" and len(after) == 2)
    return sign == "." and len(before) == len(after) == 1 and before.isalpha() and after.isalpha()


def _is_wide(character: str) -> bool:
    """Whether a character is Chinese, or a sign as wide as one: no space stands beside it."""
    if not character:
        return False
    if any(a <= ord(character) < b for a, b in _BLOCKS):
        return True
    sign = unicodedata.category(character).startswith("P")
    return sign and unicodedata.east_asian_width(character) in ("W", "F")
