"""Names of a list, found among token ids, so that each is hidden whole (Sun et al. 2019)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError
from clozeworks.core.files import AS_UTF8, read_lines
from clozeworks.core.records import Bools, Ints, Vocabulary
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.tokenizer import Tokenizer

_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Table:
    """Names of one length: their hashes, ascending [n], and their ids [n, length]."""

    hashes: Hashes
    ids: Ints


class Names:
    """Names as piece ids, found in text all at once; `used` counts those that can be.

    A name of one piece is a word already, and one with an unknown piece occurs nowhere.
    """

    def __init__(self, names: Iterable[Ints], vocabulary: Vocabulary) -> None:
        by_length: dict[int, set[tuple[int, ...]]] = {}
        for ids in names:
            if len(ids) > 1 and not vocabulary.special.intersection(ids.tolist()):
                by_length.setdefault(len(ids), set()).add(tuple(ids.tolist()))
        self._tables = [_table(found) for _, found in sorted(by_length.items())]
        self.used = sum(len(table.hashes) for table in self._tables)
        pieces = vocabulary.pieces
        self._chinese = np.array([all(map(is_chinese, piece)) for piece in pieces], dtype=np.bool_)

    def join(self, ids: Ints, begins: Bools) -> Bools:
        """`begins` [T] with every name found in `ids` [T] made one word.

        A name counts where it cuts no word; between Chinese characters every place will do, and a
        word that it cuts there becomes part of it. Names that overlap become one.
        """
        cover = np.zeros(len(ids) + 1, dtype=np.int64)
        hashed = np.zeros(len(ids), dtype=np.uint64)
        edges = begins.copy()
        edges[1:] |= self._chinese[ids[1:]] & self._chinese[ids[:-1]]
        edges = np.append(edges, True)
        length = 0
        for table in self._tables:
            if table.ids.shape[1] > len(ids):
                break
            while length < table.ids.shape[1]:
                hashed = _longer(hashed[: len(ids) - length], ids[length:])
                length += 1
            at = np.flatnonzero(edges[: len(hashed)] & edges[length : length + len(hashed)])
            at = _equal(table, hashed, ids, at)
            np.add.at(cover, at + 1, 1)
            np.add.at(cover, at + length, -1)
        outside: Bools = np.cumsum(cover)[:-1] == 0
        return begins & outside


def _table(names: Iterable[tuple[int, ...]]) -> _Table:
    ids = np.array(sorted(names), dtype=np.int64)
    hashes = np.zeros(len(ids), dtype=np.uint64)
    for column in ids.T:
        hashes = _longer(hashes, column)
    order = np.argsort(hashes, kind="stable")
    return _Table(hashes[order], ids[order])


def _longer(hashes: Hashes, ids: Ints) -> Hashes:
    """Hashes of stretches that are one id longer."""
    with np.errstate(over="ignore"):
        mixed = hashes * _FACTOR + ids.astype(np.uint64) + np.uint64(1)
        return mixed ^ (mixed >> np.uint64(29))


def _equal(table: _Table, hashed: Hashes, ids: Ints, at: Ints) -> Ints:
    """Those of the places where a name of the table really stands."""
    row = np.minimum(np.searchsorted(table.hashes, hashed[at]), len(table.hashes) - 1)
    same = table.hashes[row] == hashed[at]
    at, row = at[same], row[same]
    stretch = ids[at[:, None] + np.arange(table.ids.shape[1])]
    found: Ints = at[(stretch == table.ids[row]).all(axis=1)]
    return found


def read_names(path: Path, tokenizer: Tokenizer) -> Names:
    """The names of a file, one a line; raises UserError if none of them can be found in text.

    Tokenizers that mark the space before a word write a name in two ways; both are taken.
    """
    read = read_lines(path, remedy=AS_UTF8)
    lines = [line.strip() for line in read if line.strip()]
    ways = [*lines, *(f" {line}" for line in lines if not tokenizer.is_wordpiece)]
    names = Names(tokenizer.tokenize(ways), tokenizer.vocabulary)
    if not names.used:
        raise UserError(
            f"{path}: none of the {len(lines):,} names is of two or more known pieces; give names "
            "as they stand in the text, one a line"
        )
    return names
