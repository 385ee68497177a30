"""Plain text: one text a line, in the column `text`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from clozeworks.core.files import read_lines
from clozeworks.data.sources.base import Row


@dataclass(frozen=True)
class Text:
    """Plain text, one text a line (.txt)."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".text")
    unpacks: ClassVar[bool] = True
    cells: ClassVar[bool] = False
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every line, blank ones too; the row number is the line number."""
        lines = read_lines(self.path, self.encoding)
        # a carriage return alone ended lines on old Macs, and still does in some exports
        each = (part for line in lines for part in line.split("\r"))
        for number, line in enumerate(each, 1):
            yield number, {"text": line}
