"""Drawings for a report, as SVG whose text the browser sets in its own fonts."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
from matplotlib.ticker import MaxNLocator

from clozeworks.evaluation.matrix import WIDEST_LABEL, clip
from clozeworks.evaluation.sections import Figure, Key, Panel
from clozeworks.metrics.calibrate import ReliabilityBin

COLOURS = ("#0b62a8", "#d1495b", "#2e8b57", "#8a5fbf", "#c98a00", "#4d4d4d")
DASHES = ("", "5 2", "1 1.5", "6 2 1 2", "3 2", "9 3")
"""As SVG's stroke-dasharray takes them, so that lines differ on grey paper too."""
FONTS = (
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "DejaVu Sans",
)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: any script, selectable, in the reader's fonts
    "svg.hashsalt": "clozeworks",  # the same drawing gives the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": FONTS,
    "font.size": 10,
    "text.parse_math": False,  # a "$" in somebody's words is a dollar
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ec",
    "axes.labelcolor": "#333a44",
    "xtick.color": "#5a626e",
    "ytick.color": "#5a626e",
}
SIZE = (4.6, 3.3)
"""Inches of a panel: at 10 points its text is readable on a phone and in two columns."""
MOST_BARS = 24
"""Bars that one panel has room for, one below another."""


class Line(NamedTuple):
    """One line of a chart, and a point on it to mark."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None = None


class Axes(NamedTuple):
    """What the two axes measure, whether they are shares of 1, and whether x counts things."""

    x: str
    y: str
    x_share: bool = False
    y_share: bool = False
    x_whole: bool = False


def line_chart(title: str, caption: str, lines: Sequence[Line], axes: Axes) -> Figure:
    """A section with every line in one panel and a legend; lines differ in colour and dash.

    For any curves: losses by step, accuracy by rows, ROC.
    """
    panel = curves_panel(lines, axes, caption)
    return Figure(title=title, panels=[panel], legend=legend(lines))


def curves_panel(
    lines: Sequence[Line], axes: Axes, caption: str, *, diagonal: bool = False
) -> Panel:
    """One panel of lines; marks are drawn as dots, the diagonal as a thin grey line under all."""
    with _drawing() as (figure, plane):
        if diagonal:
            _draw_diagonal(plane)
        for i, line in enumerate(lines):
            colour, dash = _pen(i)
            style = (0, tuple(float(n) for n in dash.split())) if dash else "-"
            plane.plot(line.x, line.y, color=colour, linestyle=style, linewidth=1.8)
            if line.mark is not None:
                plane.plot(*line.mark, "o", color=colour, markersize=8, markeredgecolor="white")
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def reliability_panel(bins: Sequence[ReliabilityBin], axes: Axes, caption: str) -> Panel:
    """Accuracy in each bin of confidence beside the diagonal; shares of rows as a grey ground."""
    total = sum(b.rows for b in bins)
    middles = [(b.low + b.high) / 2 for b in bins]
    width = (bins[0].high - bins[0].low) * 0.9
    with _drawing() as (figure, plane):
        plane.bar(middles, [b.rows / total for b in bins], width, color="#dfe3e8")
        full = [b for b in bins if b.accuracy is not None]
        _draw_diagonal(plane)
        promised, kept = [b.confidence for b in full], [b.accuracy for b in full]
        plane.plot(promised, kept, color=COLOURS[0], linewidth=1)
        # Bins of few rows wander by chance: the size of a dot says how far to trust it.
        plane.scatter(promised, kept, [12 + 90 * b.rows / total for b in full], COLOURS[0])
        plane.set_xlim(0, 1.02)
        plane.set_ylim(0, 1.02)
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def scatter_panel(
    x: Sequence[float], y: Sequence[float], axes: Axes, caption: str, *, diagonal: bool = True
) -> Panel:
    """One dot a row; on the thin grey diagonal both are the same, where they are of one scale."""
    with _drawing() as (figure, plane):
        if diagonal:
            ends = [min(*x, *y), max(*x, *y)]
            plane.plot(ends, ends, color="#9aa0aa", linewidth=1, linestyle=(0, (2, 3)))
        plane.scatter(x, y, 10, COLOURS[0], alpha=0.4, linewidths=0)
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


class Bar(NamedTuple):
    """One bar of a chart: a share of 1, its interval, and what it is to be compared with."""

    name: str
    share: float
    low: float
    high: float
    beside: float | None = None


def bars_panel(bars: Sequence[Bar], axes: Axes, caption: str) -> Panel:
    """Shares as bars with their intervals; red strokes are what each is to be compared with."""
    with _drawing() as (figure, plane):
        places = list(range(len(bars)))
        plane.bar(places, [bar.share for bar in bars], 0.62, color=COLOURS[0], alpha=0.85)
        below = [max(0.0, bar.share - bar.low) for bar in bars]
        above = [max(0.0, bar.high - bar.share) for bar in bars]
        shares = [bar.share for bar in bars]
        plane.errorbar(places, shares, [below, above], fmt="none", ecolor="#333a44", capsize=3)
        for place, bar in zip(places, bars, strict=True):
            if bar.beside is not None:
                reach = [place - 0.42, place + 0.42]
                plane.plot(reach, [bar.beside] * 2, color=COLOURS[1], linewidth=2)
        plane.set_xticks(places, [bar.name for bar in bars])
        plane.grid(axis="x", visible=False)
        plane.set_ylim(0, 1.02)
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def counts_panel(names: Sequence[str], values: Sequence[float], axes: Axes, caption: str) -> Panel:
    """A bar for each name, as high as it counts, in their order."""
    with _drawing() as (figure, plane):
        plane.bar(range(len(names)), values, 0.8, color=COLOURS[0])
        plane.set_xticks(range(len(names)), names)
        plane.grid(visible=False, axis="x")
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def shares_panel(named: Sequence[tuple[str, float]], axes: Axes, caption: str) -> Panel:
    """A bar to the right for each name and its share of 1, one below another, MOST_BARS at most."""
    names, shares = zip(*named[:MOST_BARS], strict=True)
    places = range(len(names))
    with _drawing((SIZE[0], 0.9 + 0.24 * len(names))) as (figure, plane):
        plane.barh(places, shares, 0.7, color=COLOURS[0], alpha=0.85)
        plane.set_yticks(places, [clip(name, WIDEST_LABEL) for name in names])
        plane.grid(axis="y", visible=False)
        plane.set_xlim(0, 1.02)
        plane.set_ylim(len(names) - 0.4, -0.6)
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def histogram_panel(
    edges: Sequence[float], heights: Sequence[float], axes: Axes, caption: str
) -> Panel:
    """A histogram: bars between neighbouring edges, of which there is one more than heights."""
    with _drawing() as (figure, plane):
        widths = [b - a for a, b in pairwise(edges)]
        plane.bar(edges[:-1], heights, widths, align="edge", color=COLOURS[0], alpha=0.8)
        _label(plane, axes)
        return Panel(svg=_svg(figure), caption=caption)


def legend(lines: Sequence[Line]) -> list[Key]:
    """What to write beside the lines, in their order."""
    return [
        Key(name=line.name, colour=colour, dash=dash)
        for line, (colour, dash) in zip(lines, map(_pen, range(len(lines))), strict=True)
    ]


def _pen(i: int) -> tuple[str, str]:
    return COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]


def _draw_diagonal(plane: Any) -> None:
    plane.plot([0, 1], [0, 1], color="#9aa0aa", linewidth=1, linestyle=(0, (2, 3)))


@contextmanager
def _drawing(
    size: tuple[float, float] = SIZE,
) -> Iterator[tuple[matplotlib.figure.Figure, Any]]:
    """An empty panel in the house style; fonts absent here are the reader's affair."""
    finder = logging.getLogger("matplotlib.font_manager")
    level = finder.level
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        finder.setLevel(logging.ERROR)
        try:
            figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
            yield figure, figure.subplots()
        finally:
            finder.setLevel(level)


def _label(plane: Any, axes: Axes) -> None:
    plane.set_xlabel(axes.x)
    plane.set_ylabel(axes.y)
    if axes.x_share:
        plane.xaxis.set_major_formatter(_as_percent)
    if axes.x_whole:
        plane.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axes.y_share:
        plane.yaxis.set_major_formatter(_as_percent)


def _as_percent(share: float, _: int | None) -> str:
    return f"{round(100 * share, 6):g}%"


def _svg(figure: matplotlib.figure.Figure) -> str:
    """The drawing as an SVG element that scales with its column and shares no id with another."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    _, opening, rest = out.getvalue().partition("<svg")
    attributes, _, body = rest.partition(">")
    tag = opening + attributes + ">"
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    return tag + re.sub(r'<g id="[^"]*"', "<g", body)
