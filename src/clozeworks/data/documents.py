"""From corpus files to documents: lists of lines, each document once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError, suggestion
from clozeworks.data.sources.base import Row, open_source
from clozeworks.data.sources.text import Text
from clozeworks.text.scripts import Script, script_share

Document = list[str]
"""The lines of one document, none blank; in a text file the first is often its title."""

DOCUMENT_LIMIT = 1_000_000
"""Characters after which a document of a text file is divided, at the end of a line."""

RECENT = 1 << 13
"""Hashes kept in a set before they are sorted into an array."""

MANY_LINES = 100
"""Lines after which a text file without a blank one between them looks like a document a line."""

SHOWN = 5
"""Documents shown of those left out for one reason."""

SHOWN_CHARACTERS = 200
"""How much is shown of one."""

Fate = Literal["kept", "duplicates", "empty", "short", "other_scripts"]
"""What becomes of a document: given out, or left out because it came before, holds nothing, has too
few characters, or is written in another script."""


@dataclass(frozen=True)
class Wanted:
    """Which documents are kept; by default every one that holds text."""

    min_characters: int = 0
    scripts: Sequence[Script] = ()
    """Where there are any, at least `script_share` of a document's letters must be of these."""
    script_share: float = 0.5


@dataclass(frozen=True)
class LeftOut:
    """One document that was left out: why, where it stands, and how it begins."""

    why: Fate
    file: str
    row: int
    characters: int
    text: str


@dataclass
class _Found:
    """A document as a file holds it, from row `row` on; `part` says whether it is part of one."""

    row: int
    lines: Document
    part: bool = False


class Documents:
    """The documents of text files or of one column of other files.

    In a text file blank lines lie between them, or with `lines` each line is one. While they are
    iterated, `count` and `characters` say how many had which fate, and how long they were together;
    `left_out` shows the first of those left out; `divided` counts the places where one was too
    long; `unbroken` names the text files of many lines that are one document; `bytes_read` counts
    the text.
    """

    def __init__(
        self,
        files: Sequence[Path],
        column: str,
        encoding: str,
        format: str | None,
        wanted: Wanted | None = None,
        lines: bool = False,
    ) -> None:
        self.files = files
        self.column = column
        self.encoding = encoding
        self.format = format
        self.wanted = wanted or Wanted()
        self.lines = lines
        self.count: Counter[Fate] = Counter()
        self.characters: Counter[Fate] = Counter()
        self.left_out: list[LeftOut] = []
        self.divided = 0
        self.unbroken: list[Path] = []
        self.bytes_read = 0
        self._seen = Seen()

    def __iter__(self) -> Iterator[Document]:
        """Every document that is wanted, in order, those that came before left out."""
        for path in self.files:
            source = open_source(path, format=self.format, encoding=self.encoding)
            in_text = self._lines if self.lines else self._blocks
            divide = in_text if isinstance(source, Text) else self._cells
            for found in divide(path, source.rows()):
                size = sum(map(len, found.lines))
                fate = self._fate(found, size)
                self.count[fate] += 1
                self.characters[fate] += size
                if fate == "kept":
                    yield found.lines
                elif self.count[fate] <= SHOWN:
                    text = "\n".join(found.lines)[:SHOWN_CHARACTERS]
                    self.left_out.append(LeftOut(fate, path.name, found.row, size, text))

    def _fate(self, found: _Found, size: int) -> Fate:
        if not found.lines:
            return "empty"
        if size < self.wanted.min_characters and not found.part:
            return "short"
        text = "\n".join(found.lines)
        scripts = self.wanted.scripts
        if scripts and script_share(text, scripts) < self.wanted.script_share:
            return "other_scripts"
        return "kept" if self._seen.add(text) else "duplicates"

    def _lines(self, path: Path, rows: Iterator[Row]) -> Iterator[_Found]:
        for number, line in self._read(rows):
            if line:
                yield _Found(number, [line])

    def _read(self, rows: Iterator[Row]) -> Iterator[tuple[int, str]]:
        """The lines of a text file with their numbers, without the space around them."""
        for number, row in rows:
            line = row["text"].strip()
            self.bytes_read += len(line.encode()) + 1
            yield number, line

    def _blocks(self, path: Path, rows: Iterator[Row]) -> Iterator[_Found]:
        block = _Found(0, [])
        size = lines = 0
        first = True  # whether all the lines so far are of the file's first document
        for number, line in self._read(rows):
            first = first and not (line and lines and not block.lines)
            over = bool(line) and size > DOCUMENT_LIMIT
            if over and first and lines >= MANY_LINES:
                self.unbroken.append(path)
                first = False
            if over:
                self.divided += 1
                block.part = True
            if block.lines and (not line or over):
                yield block
                block, size = _Found(0, [], part=over), 0
            if line:
                block.row = block.row or number
                block.lines.append(line)
                size += len(line)
                lines += 1
        if first and lines >= MANY_LINES:
            self.unbroken.append(path)
        if block.lines:
            yield block

    def _cells(self, path: Path, rows: Iterator[Row]) -> Iterator[_Found]:
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
            lines = (text or "").splitlines()
            yield _Found(number, [line.strip() for line in lines if line.strip()])


def _check(text: Any, where: str) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise UserError(f"{where}: the text is {text!r}, a {type(text).__name__}; write it as text")
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
