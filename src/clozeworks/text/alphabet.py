"""The characters of a text: how often each occurs, as the tokenizer will see it."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.text.fold import HAN


def no_characters() -> Ints:
    """A count of nothing: [0x110000] int64, one place for each code point."""
    return np.zeros(0x110000, dtype=np.int64)


def add_characters(counts: Ints, texts: Iterable[str]) -> None:
    """Count the characters of `texts` into `counts`, in place; raises UserError on a surrogate."""
    try:
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text holds a lone surrogate (U+{ord(error.object[error.start]):04X}), which is "
            "no character; read the file with its own --encoding, or remove it"
        ) from error
    counts += np.bincount(codes, minlength=len(counts))


def normalised_counts(counts: Ints, normalise: Callable[[str], str]) -> dict[str, int]:
    """Counts of the characters that are left after `normalise`, white space aside.

    BERT's normalisation and our folding work on one character at a time, so normalising each
    distinct character once gives the same counts as normalising the whole text.
    """
    total: Counter[str] = Counter()
    for code in np.flatnonzero(counts):
        for character in normalise(chr(code)):
            if not character.isspace():
                total[character] += int(counts[code])
    return dict(total)


def is_chinese(character: str) -> bool:
    """Whether the character lies in a block of Chinese characters."""
    return any(ord(character) in block for block in HAN)
