"""The scripts that the pieces of a vocabulary are written in."""

import unicodedata

import numpy as np
import numpy.typing as npt

from clozeworks.text.alphabet import is_chinese
from clozeworks.text.tokenizer import Tokenizer

SCRIPTS = ("latin", "cjk", "other")
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC")


def piece_scripts(tokenizer: Tokenizer) -> npt.NDArray[np.uint8]:
    """The script of every id as a place in SCRIPTS, [vocabulary] uint8.

    A piece is of its first letter's script; without a letter, of another.
    """
    if tokenizer.is_wordpiece:
        texts = [piece.removeprefix("##") for piece in tokenizer.pieces]
    else:
        texts = [tokenizer.decode([i]) for i in range(len(tokenizer.pieces))]
    return np.array([_script(text) for text in texts], dtype=np.uint8)


def _script(text: str) -> int:
    letter = next((c for c in text if c.isalpha()), "")
    if letter.isascii():
        return SCRIPTS.index("latin" if letter else "other")
    if is_chinese(letter):
        return SCRIPTS.index("cjk")
    name = unicodedata.name(letter, "")
    if "LATIN" in name:
        return SCRIPTS.index("latin")
    return SCRIPTS.index("cjk" if name.startswith(_CJK) else "other")
