"""What a source of rows is, and which source reads a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from clozeworks.core.errors import UserError
from clozeworks.core.files import existing
from clozeworks.core.registry import Registry

Row = tuple[int, dict[str, Any]]
"""A row's number, as an editor or a spreadsheet shows it (from 1), and its values by column."""

PACKED = (".gz", ".xz")
"""Suffixes looked through: `train.csv.gz` is a csv file."""


class Source(Protocol):
    """One data file, read row by row in bounded memory."""

    suffixes: ClassVar[tuple[str, ...]]
    """File name endings that choose this source."""
    unpacks: ClassVar[bool]
    """Whether it reads .gz and .xz."""
    cells: ClassVar[bool]
    """Whether its values are cells, which have no other way to hold a list than as JSON."""

    def __init__(self, path: Path, encoding: str) -> None: ...

    def rows(self) -> Iterator[Row]:
        """Every row in order; raises UserError, naming the row, where the file is damaged."""
        ...


SOURCES: Registry[type[Source]] = Registry("source", "clozeworks.data.sources")
"""Every form of data file that can be read."""


def open_source(path: str | Path, *, format: str | None = None, encoding: str = "utf-8") -> Source:
    """The source that reads `path`: the one named by `format`, else the one of its suffix.

    Raises UserError if the file is absent or a folder, or its name ends in no known suffix.
    """
    path = existing(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        raise UserError(f"{path} is no file that can be read more than once; write it to one first")
    source = SOURCES.get(format or format_of(path))
    if path.suffix.lower() in PACKED and not source.unpacks:
        raise UserError(f"{path}: xlsx and parquet are not read packed; unpack it first")
    return source(path, encoding)


def format_of(path: Path) -> str:
    """The name of the source for the path's suffix; raises UserError if there is none."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    for name in SOURCES.names():
        if inner.suffix.lower() in SOURCES.get(name).suffixes:
            return name
    raise UserError(
        f"{path}: the ending {inner.suffix!r} does not tell the form of the data; "
        f"give --format (choices: {', '.join(SOURCES.names())})"
    )


def headed(cells: Sequence[Any], where: str) -> list[str]:
    """Column names from the cells of a first row; raises UserError if two are the same.

    Of several columns without a name the first keeps none, the others are called by their number.
    """
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    unnamed = [i for i, name in enumerate(names) if not name]
    for i in unnamed[1:]:  # one may go without: more would be taken for one another
        names[i] = f"column {i + 1}"
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{where}: two columns are called {name!r}; rename one")
    return names


def keyed(names: list[str], cells: Sequence[Any], where: str, remedy: str) -> dict[str, Any]:
    """The cells by column name, None where the row is short.

    Raises UserError, with the `remedy`, if cells that hold something lie beyond the last named
    column.
    """
    if any(cell not in (None, "") for cell in cells[len(names) :]):
        raise UserError(
            f"{where} has {len(cells)} fields, the first row has {len(names)}; {remedy}"
        )
    short = len(names) - len(cells)
    return dict(zip(names, [*cells, *[None] * short], strict=False))
