"""CoNLL columns: a unit and its tag a line, a blank line between texts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines
from clozeworks.data.sources.base import Row

_SPACES = re.compile(r"[ \t]+")  # other spaces may be units of their own, such as U+3000
_TAG = re.compile(r"O|[BIESMLUW](-\S+)?")


@dataclass(frozen=True)
class Conll:
    """One token or character and its tag a line, blank lines between texts (.conll)."""

    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".bio", ".iob", ".bioes", ".bmes")
    unpacks: ClassVar[bool] = True
    cells: ClassVar[bool] = False
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every text: its units in the column `tokens`, their tags in `tags`.

        The first column is the unit, the last its tag; of a file with one column `tags` is left
        out. The row number is the line of the text's first unit. -DOCSTART- lines and comments
        (lines that begin with # and have not as many columns as the others; or, where others end in
        a tag, a # by itself and words that do not) are passed over.
        """
        columns: int | None = None
        tagged = False
        first, held = 0, list[list[str]]()
        for number, line in enumerate(read_lines(self.path, self.encoding), 1):
            cells = _cells(line)
            if not line.strip(" \t\r") or cells[0] == "-DOCSTART-":
                if held:
                    yield first, _row(held)
                held = []
                continue
            if _is_comment(cells, columns, tagged):
                continue
            if columns is None:
                columns, tagged = len(cells), len(cells) > 1 and bool(_TAG.fullmatch(cells[-1]))
            if len(cells) != columns:
                raise self._uneven(number, cells, columns)
            first = first if held else number
            held.append(cells)
        if held:
            yield first, _row(held)

    def _uneven(self, number: int, cells: list[str], columns: int) -> UserError:
        word = "column" if len(cells) == 1 else "columns"
        return UserError(
            f"{self.path}, line {number} has {len(cells)} {word} ({' '.join(cells)!r}), the first "
            f"line has {columns}; write a token and its tag, with a tab between, on every line"
        )


def _cells(line: str) -> list[str]:
    """The columns of a line: between tabs if it has any, else between spaces.

    Where a line begins with the separator, its unit is a space that was written as it is.
    """
    line = line.rstrip(" \t")
    cells = line.split("\t") if "\t" in line else _SPACES.split(line)
    return [cells[0] or " ", *cells[1:]]


def _is_comment(cells: list[str], columns: int | None, tagged: bool) -> bool:
    if not cells[0].startswith("#"):
        return False
    untagged = len(cells) > 1 and not _TAG.fullmatch(cells[-1])
    if columns is None:
        return untagged
    return len(cells) != columns or (tagged and untagged and cells[0] == "#")


def _row(held: list[list[str]]) -> dict[str, Any]:
    row = {"tokens": [cells[0] for cells in held]}
    return row if len(held[0]) == 1 else {**row, "tags": [cells[-1] for cells in held]}
