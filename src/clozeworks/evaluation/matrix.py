"""Where everything stands in the drawing of a confusion matrix, from 2 to 80 classes."""

from math import sqrt
from typing import NamedTuple
from unicodedata import east_asian_width

from clozeworks.evaluation.sections import Matrix

NAMED_COLUMNS = 3
"""Up to this many classes the columns bear names; with more, the numbers of the rows."""
MARGIN = 8
WIDEST_LABEL = 28
"""Half-widths of a row's name before it is cut."""


class Cell(NamedTuple):
    """One non-empty cell: its place, its rows, and how strongly it is coloured (0…1)."""

    x: float
    y: float
    rows: int
    opacity: float
    right: bool
    title: str


class MatrixLayout(NamedTuple):
    """A matrix in CSS pixels."""

    width: float
    height: float
    left: float
    top: float
    cell_width: float
    cell_height: float
    font: float
    label_font: float
    rows: list[str]
    columns: list[str]
    cells: list[Cell]


def lay_out(matrix: Matrix) -> MatrixLayout:
    """Place a matrix: large cells for few classes, small ones for many, only non-empty ones."""
    size = len(matrix.labels)
    named = size <= NAMED_COLUMNS
    width, height, font, label_font = _scale(size)
    rows = [_row_name(i, label, named) for i, label in enumerate(matrix.labels)]
    left = max(map(half_widths, rows)) * label_font * 0.56 + 2 * MARGIN
    top = label_font + 2 * MARGIN
    fitting = int(width / (label_font * 0.56))
    columns = [clip(n, fitting) if named else str(i + 1) for i, n in enumerate(matrix.labels)]
    return MatrixLayout(
        width=left + size * width + MARGIN,
        height=top + size * height + MARGIN,
        left=left,
        top=top,
        cell_width=width,
        cell_height=height,
        font=font,
        label_font=label_font,
        rows=rows,
        columns=columns,
        cells=_cells(matrix, left, top, width, height),
    )


def half_widths(text: str) -> int:
    """The width of a text in halves of a Chinese character."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, widest: int) -> str:
    """The text, cut with "…" where it is wider than `widest` half-widths."""
    if half_widths(text) <= widest:
        return text
    kept = ""
    for c in text:
        if half_widths(kept + c) > widest - 1:
            break
        kept += c
    return kept + "…"


def _scale(size: int) -> tuple[float, float, float, float]:
    """Cell width and height, font of counts, font of names."""
    if size <= NAMED_COLUMNS:
        return 104, 52, 15, 13
    if size <= 12:
        return 42, 36, 13, 13
    if size <= 30:
        return 30, 26, 11, 12
    return 11.5, 15, 7.5, 11


def _row_name(i: int, label: str, named: bool) -> str:
    name = clip(label, WIDEST_LABEL)
    return name if named else f"{name} {i + 1}"


def _cells(matrix: Matrix, left: float, top: float, width: float, height: float) -> list[Cell]:
    cells = []
    for i, counts in enumerate(matrix.counts):
        for j, count in enumerate(counts):
            if count:
                share = count / sum(counts)
                # Mistakes are few: the root lets one in a hundred be seen.
                opacity = share if i == j else sqrt(share)
                title = f"{matrix.labels[i]} → {matrix.labels[j]}: {count}"
                x, y = left + j * width, top + i * height
                cells.append(Cell(x, y, count, round(0.08 + 0.92 * opacity, 3), i == j, title))
    return cells
