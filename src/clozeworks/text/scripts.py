"""Which scripts a text is written in, by its letters."""

import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from clozeworks.text.fold import HAN

Script = Literal["han", "latin"]
NO_LETTER, LATIN, CHINESE, OTHER = range(4)
_KINDS = {"latin": LATIN, "han": CHINESE}


def script_share(text: str, scripts: Collection[Script]) -> float:
    """The share of a text's letters that belong to the scripts; 0 where it has no letter.

    A Chinese character is one letter, as is each letter of a Latin word; kana and hangul belong to
    neither.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    counts = np.bincount(_kinds()[codes], minlength=4)
    letters = int(counts[LATIN:].sum())
    return sum(int(counts[_KINDS[script]]) for script in scripts) / letters if letters else 0.0


@lru_cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is: [0x110000] uint8."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for code in range(0x20000):
        character = chr(code)
        if character.isalpha():
            latin = unicodedata.name(character, "").startswith(("LATIN ", "FULLWIDTH LATIN "))
            kinds[code] = LATIN if latin else OTHER
    for block in HAN:
        kinds[block.start : block.stop] = CHINESE
    return kinds
