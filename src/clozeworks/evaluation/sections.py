"""What a report is made of: a list of titled sections, plain data that one template draws."""

from typing import Literal

from clozeworks.core.records import Record


class Heading(Record):
    """What every section may have: a title above it and remarks below the title."""

    title: str = ""
    """Shown above and listed in the page's contents; empty joins the section to the one before."""
    notes: list[str] = []
    """Paragraphs between the title and the section's body."""


class Text(Heading):
    """Paragraphs alone: the notes are the text."""

    kind: Literal["text"] = "text"


class Number(Record):
    """One figure worth seeing first, already written out."""

    value: str
    name: str
    remark: str = ""


class Numbers(Heading):
    """A few figures side by side, each with its name."""

    kind: Literal["numbers"] = "numbers"
    items: list[Number]


class Column(Record):
    """A table's column; numbers stand to the right, and only text is broken into lines."""

    name: str
    numeric: bool = True


class Table(Heading):
    """Rows of cells already written out; the first column stays in sight when others scroll."""

    kind: Literal["table"] = "table"
    columns: list[Column]
    rows: list[list[str]]
    totals: list[list[str]] = []
    """Rows under a line at the end: sums and averages."""
    folded: bool = False
    """Shown only when opened: for tables of many rows."""


class Key(Record):
    """One line of a figure's legend."""

    name: str
    colour: str
    """A CSS colour, the one the figure draws it in."""
    dash: str = ""
    """Its dashes, as SVG's stroke-dasharray; empty for a whole line."""


class Panel(Record):
    """One drawing: `svg` is put into the page as it is, so it comes from `figures` alone."""

    svg: str
    caption: str
    """Also what a screen reader says of the drawing."""


class Figure(Heading):
    """Drawings side by side with one legend, which stands in the page as text."""

    kind: Literal["figure"] = "figure"
    panels: list[Panel]
    legend: list[Key] = []


class Matrix(Heading):
    """Counts of pairs of classes: `counts[i][j]` rows are `labels[i]` and were taken for j."""

    kind: Literal["matrix"] = "matrix"
    labels: list[str]
    counts: list[list[int]]
    down: str
    """What the rows are."""
    across: str
    """What the columns are."""


class Quote(Record):
    """Somebody's text and what is said of it."""

    texts: list[str]
    remarks: list[str]
    """Short facts in one line under the text."""


class Quotes(Heading):
    """Texts shown word for word."""

    kind: Literal["quotes"] = "quotes"
    items: list[Quote]


Section = Text | Numbers | Table | Figure | Matrix | Quotes
