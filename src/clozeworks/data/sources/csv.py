"""Separated values: csv as spreadsheets write it, tsv with or without quoting."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines
from clozeworks.data.sources.base import PACKED, Row, headed, keyed

FIELD_LIMIT = 64_000_000
"""Characters of one field; more means a quote that is opened and never closed."""
REMEDY = "a text that holds the separator must stand in quotes"
"""What to do about a row of more fields than there are columns."""
UNREADABLE = {
    "new-line character": "a carriage return stands outside quotes; write the file again with "
    "line feeds at the ends of its lines, and texts of several lines in quotes",
    "unexpected end": 'a quote is opened and never closed; a quote inside a field is doubled ("")',
    "field larger": "a field has over 64 million characters, as where a quote is never closed; a "
    'quote inside a field is doubled ("")',
    "": "a field goes on after its closing quote; a field that holds quotes must stand in quotes, "
    'each quote inside it doubled ("")',
}
"""What is wrong and what to do about it, by a part of what Python's reader says."""


@dataclass(frozen=True)
class Csv:
    """Comma, semicolon or tab separated values with a first row of names (.csv, .tsv)."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".tab")
    unpacks: ClassVar[bool] = True
    cells: ClassVar[bool] = True
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every row but blank lines, and bare separators at the end of the file.

        The first row is number 1; a field may hold lines.
        """
        names: list[str] | None = None
        bare: list[tuple[int, list[str]]] = []
        number = 0
        try:
            for number, cells in enumerate(self._records(), 1):
                if not cells or (names is None and not any(cells)):
                    continue
                if names is None:
                    names = headed(cells, f"{self.path}, row {number}")
                    continue
                bare.append((number, cells))
                if any(cells) or len(cells) == 1:
                    for at, held in bare:
                        yield at, keyed(names, held, f"{self.path}, row {at}", REMEDY)
                    bare.clear()
        except csv.Error as error:
            why = next(said for part, said in UNREADABLE.items() if part in str(error))
            raise UserError(f"{self.path}, row {number + 1}: {why}") from error

    def _records(self) -> Iterator[list[str]]:
        lines = read_lines(self.path, self.encoding, ends=True)
        first = next(lines, None)
        if first is None:
            return iter(())
        csv.field_size_limit(FIELD_LIMIT)
        delimiter = self._delimiter(first)
        lines = chain([first], lines)
        if delimiter == "\t":
            return _tabbed(lines, first.count("\t"))
        return csv.reader(lines, delimiter=delimiter, strict=True)

    def _delimiter(self, first: str) -> str:
        """A tab by the file's name; else what separates the column names most often."""
        inner = self.path.with_suffix("") if self.path.suffix.lower() in PACKED else self.path
        if inner.suffix.lower() in (".tsv", ".tab"):
            return "\t"
        return max(",;\t", key=QUOTED.sub("", first).count)


QUOTED = re.compile('"[^"]*"')
"""A name in quotes, which may hold what separates others."""


def _tabbed(lines: Iterator[str], tabs: int) -> Iterator[list[str]]:
    """Records of `tabs` tabs each, with quotes as spreadsheets write them or as plain characters.

    Many public sets write quotes without quoting. A quoted field may go on over several lines
    only while these hold no more tabs than one record; otherwise the quote is a plain character.
    """
    waiting: deque[str] = deque()
    while (line := _next(waiting, lines)) is not None:
        held = [line]
        if line.startswith('"') or '\t"' in line:
            quotes, seen = line.count('"'), line.count("\t")
            while quotes % 2 and seen <= tabs and tabs:
                more = _next(waiting, lines)
                if more is None:
                    break
                held.append(more)
                quotes, seen = quotes + more.count('"'), seen + more.count("\t")
            cells = _unquoted(held) if len(held) == 1 or seen <= tabs else None
            # where the line is a record as it stands, quotes that make fewer of its fields are none
            if cells is not None and (len(cells) > tabs or line.count("\t") != tabs):
                yield cells
                continue
        bare = line.rstrip("\r\n")
        yield bare.split("\t") if bare else []
        waiting.extendleft(reversed(held[1:]))


def _next(waiting: deque[str], lines: Iterator[str]) -> str | None:
    return waiting.popleft() if waiting else next(lines, None)


def _unquoted(lines: list[str]) -> list[str] | None:
    """The fields of the lines read as quoted ones, or None if they are not exactly one record."""
    try:
        parsed = list(csv.reader(lines, delimiter="\t", strict=True))
    except csv.Error:
        return None
    return parsed[0] if len(parsed) == 1 else None
