"""Folding of characters, always one for one, so that character offsets stay true."""

from functools import lru_cache

from clozeworks.core.bundle import Fold
from clozeworks.core.errors import UserError

FULL_WIDTH = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    0x3000: 0x20,
    **dict(zip(range(0xFFE0, 0xFFE7), map(ord, "¢£¬¯¦¥₩"), strict=True)),
}
"""Full-width forms and their ordinary ones, as the Unicode charts pair them."""

HAN = (range(0x3400, 0xA000), range(0xF900, 0xFB00), range(0x20000, 0x32400))
"""The blocks that hold Chinese characters."""


@lru_cache
def fold_table(fold: Fold) -> dict[int, int]:
    """The table for `str.translate` that does what `fold` asks; empty when it asks nothing.

    Raises UserError if `fold.simplified` is asked and the package `opencc` is not installed.
    """
    table = dict(FULL_WIDTH) if fold.width else {}
    if fold.simplified:
        table |= _simplified()
    return table


@lru_cache
def _simplified() -> dict[int, int]:
    """Traditional → simplified, from OpenCC's dictionary of single characters."""
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise UserError(
            "folding traditional to simplified Chinese needs the package opencc: "
            "pip install 'clozeworks[zh]'"
        ) from error
    codes = [code for block in HAN for code in block]
    # One character a line keeps OpenCC's phrase dictionary out: a phrase never spans a line.
    folded = OpenCC("t2s").convert("\n".join(map(chr, codes))).split("\n")
    pairs = zip(codes, folded, strict=True)
    return {code: ord(to) for code, to in pairs if len(to) == 1 and ord(to) != code}
