"""From corpus files to documents: lists of lines, each document once."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError, suggestion
from clozeworks.data.sources.base import Row, open_source
from clozeworks.data.sources.text import Text

Document = list[str]
"""The lines of one document, none blank; in a text file the first is often its title."""

DOCUMENT_LIMIT = 1_000_000
"""Characters after which a document of a text file is divided, at the end of a line."""

RECENT = 1 << 13
"""Hashes kept in a set before they are sorted into an array."""


class Documents:
    """The documents of text files (blank lines between them) or of one column of other files.

    While they are iterated, `unique`, `duplicates` and `empty` count the documents given out, those
    left out because they came before and those that held nothing; `divided` the places where one
    was too long; `bytes_read` the text.
    """

    def __init__(
        self, files: Sequence[Path], column: str, encoding: str, format: str | None
    ) -> None:
        self.files = files
        self.column = column
        self.encoding = encoding
        self.format = format
        self.unique = self.duplicates = self.empty = self.divided = 0
        self.bytes_read = 0
        self._seen = Seen()

    def __iter__(self) -> Iterator[Document]:
        """Every document in order, those that came before left out."""
        for path in self.files:
            source = open_source(path, format=self.format, encoding=self.encoding)
            divide = self._blocks if isinstance(source, Text) else self._cells
            for document in divide(path, source.rows()):
                if not document:
                    self.empty += 1
                elif self._seen.add("\n".join(document)):
                    self.unique += 1
                    yield document
                else:
                    self.duplicates += 1

    def _blocks(self, path: Path, rows: Iterator[Row]) -> Iterator[Document]:
        block: Document = []
        size = 0
        for _, row in rows:
            line = row["text"].strip()
            self.bytes_read += len(line.encode()) + 1
            if line and size > DOCUMENT_LIMIT:
                self.divided += 1
            if block and (not line or size > DOCUMENT_LIMIT):
                yield block
                block, size = [], 0
            if line:
                block.append(line)
                size += len(line)
        if block:
            yield block

    def _cells(self, path: Path, rows: Iterator[Row]) -> Iterator[Document]:
        for number, row in rows:
            where = f"{path}, row {number}"
            if self.column not in row:
                raise UserError(
                    f"{where} has no column {self.column!r}{suggestion(self.column, row)}; "
                    "name the text's with --column"
                )
            text = row[self.column]
            _check(text, where)
            self.bytes_read += len((text or "").encode())
            yield [line.strip() for line in (text or "").splitlines() if line.strip()]


def _check(text: Any, where: str) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise UserError(f"{where}: the text is {text!r}, a {type(text).__name__}")
    if "\x00" in text:
        raise UserError(f"{where} holds a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds a lone surrogate (U+{ord(text[error.start]):04X}), which is no "
            "character; write the file again as UTF-8"
        ) from error


class Seen:
    """Remembers texts by a 64-bit hash, in about 8 bytes each.

    Among 100 million texts, the chance that any two different ones share a hash is 1 in 3,700.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: list[npt.NDArray[np.uint64]] = []

    def add(self, text: str) -> bool:
        """Remember the text; True if it is new."""
        hashed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
        if hashed in self._recent or any(_holds(part, hashed) for part in self._sorted):
            return False
        self._recent.add(hashed)
        if len(self._recent) >= RECENT:
            self._settle()
        return True

    def _settle(self) -> None:
        """Sort the recent hashes into arrays of which each is over twice the next."""
        self._sorted.append(np.sort(np.fromiter(self._recent, dtype=np.uint64)))
        self._recent.clear()
        while len(self._sorted) > 1 and len(self._sorted[-2]) <= 2 * len(self._sorted[-1]):
            merged = np.concatenate([self._sorted.pop(), self._sorted.pop()])
            merged.sort()
            self._sorted.append(merged)


def _holds(part: npt.NDArray[np.uint64], value: int) -> bool:
    place = int(part.searchsorted(np.uint64(value)))
    return place < len(part) and int(part[place]) == value
