"""One style for all figures, readable without colour, and their bytes, the same for the same records."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from lbt.report.kit import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#8C6D31")  # Okabe and Ito's
MARKERS = "osD^vPX*"
DASHES = (
    "-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (2, 2)),
    (0, (6, 3)),
)  # fmt: skip
TITLE_SIZE = 8.5  # points
LINE = 0.155  # inches, of the title or the legend
RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "lbt",
    "svg.fonttype": "path",
}


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, dashes and marker of the n-th line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def hollow(style: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line's style with open markers, which hide nothing of what they stand on."""
    return {**style, "markerfacecolor": "none"}


def along(index: int, length: int, lines: int = 1) -> dict[str, Any]:
    """Returns the style of the n-th of several long lines: a marker now and then, at other places on each of them.

    Where lines coincide the later ones are thinner, so that all of them are seen.

    Args:
        index: of the line, from 0.
        length: how many values it has.
        lines: how many there are.
    """
    width = 1.2 + 0.45 * (lines - 1 - index)
    first = max(length * (2 * index + 1) // (16 * max(lines, 1)), 1)
    return {**line_style(index), "linewidth": min(width, 2.8), "markevery": (first, max(length // 8, 1))}


def dodge(index: int, lines: int, step: float) -> float:
    """Returns how far the n-th of several lines' markers stand beside their place, for none to hide another."""
    return (index - (lines - 1) / 2) * step


def foot(row: Sequence[Axes], label: str, lines: int) -> list[float]:
    """Sets a strip off below the values of a row's panels, for runs that have none; returns a height for each line.

    To be called when all values are drawn: the axis' limits and ticks no longer change afterwards.

    Args:
        row: panels that share their vertical axis.
        label: what the strip's markers say, written beside the last panel.
        lines: how many lines have markers there.

    Returns:
        The heights as shares of a panel's (`Axes.get_xaxis_transform`), the first line's uppermost.
    """
    axes, share = row[0], 0.03 + 0.05 * lines
    to_axis = axes.yaxis.get_transform()
    low, high = axes.get_ylim()
    ticks = {minor: [t for t in axes.yaxis.get_ticklocs(minor=minor) if low <= t <= high] for minor in (False, True)}
    bottom, top = to_axis.transform([low, high])
    axes.set_ylim(to_axis.inverted().transform([bottom - share / (1 - share) * (top - bottom)])[0], high)
    axes.yaxis.set_major_locator(FixedLocator(ticks[False]))
    axes.yaxis.set_minor_locator(FixedLocator(ticks[True]))
    for panel in row:
        strip = Rectangle((0, 0), 1, share, transform=panel.transAxes, facecolor="#EEEEEE", linewidth=0, zorder=1.6)
        panel.add_patch(strip)
        panel.plot([0, 1], [share, share], transform=panel.transAxes, color="#555555", linewidth=0.6, zorder=1.7)
    row[-1].text(1.02, share / 2, label, transform=row[-1].transAxes, va="center", fontsize=7.5)
    return [share * (lines - index) / (lines + 1) for index in range(lines)]


def at_foot(axes: Axes, x: Sequence[float], height: float, style: Mapping[str, Any]) -> None:
    """Draws a line's open markers in the strip that `foot` made."""
    look = {**hollow(style), "linestyle": "", "markersize": 5, "clip_on": False, "zorder": 3}
    look.pop("markevery", None)
    (markers,) = axes.plot(x, [height] * len(x), transform=axes.get_xaxis_transform(), **look)
    markers.set_in_layout(False)


def empty(axes: Axes) -> None:
    """Says of a panel that there is no run of it."""
    axes.text(0.5, 0.5, "no run yet", transform=axes.transAxes, ha="center", va="center", color="#555555", fontsize=7.5)


def panels(
    rows: int, columns: int, *, width: float, height: float, sharey: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure of panels, each `width` by `height` inches; those of a row share their vertical axis."""
    size = (max(width * columns + 0.5, 5.5), height * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row" if sharey else "none").tolist()


def finish(figure: Figure, title: str, notes: Sequence[str], handles: Sequence[Any], columns: int = 4) -> Figure:
    """Adds title, what the figure stands on, and the legend, outside the data; all of it fits the figure's width.

    Args:
        figure: drawn.
        title: our own words.
        notes: lines below it, shown as they are.
        handles: of the legend.
        columns: of the legend, at most.
    """
    lines = _titled(figure, [title, *notes])
    below = _legend(figure, handles, min(columns, len(handles))) if handles else 0
    more = max(lines - 2, 0) + max(below - 1, 0)  # than `panels` leaves room for
    figure.set_figheight(figure.get_figheight() + LINE * more)
    return figure


def _titled(figure: Figure, texts: Sequence[str]) -> int:
    """Sets the title, a line a text, and wraps what is wider than the figure; returns the number of lines."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    letters = int(18 * figure.get_figwidth())  # an inch holds some 16
    while True:
        lines = [line for text in texts for line in textwrap.wrap(escape.one_line(text), letters)]
        title = figure.suptitle("\n".join(map(escape.figure, lines)), fontsize=TITLE_SIZE)
        if letters < 20 or title.get_window_extent(renderer).width < 0.98 * figure.bbox.width:
            return len(lines)
        letters -= 2


def _legend(figure: Figure, handles: Sequence[Any], columns: int) -> int:
    """Adds the legend below the panels, in fewer columns where it would be wider than the figure; returns its rows."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    while True:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3.5)
        if columns == 1 or legend.get_window_extent(renderer).width < 0.96 * figure.bbox.width:
            return math.ceil(len(handles) / columns)
        legend.remove()
        columns -= 1


def encode(figure: Figure, title: str, shows: str, command: str) -> dict[str, bytes]:
    """Returns the figure's files by their endings; the SVG holds title, description and the command that made it."""
    said = {"Title": title, "Description": " ".join(shows.split()), "Source": command}
    files = {}
    figure.get_layout_engine().execute(figure)  # once for both files
    figure.set_layout_engine(None)  # "none" would keep a placeholder, for which each file is drawn twice
    for ending, metadata in {"svg": {"Date": None, "Creator": None, **said}, "png": {"Software": None}}.items():
        buffer = BytesIO()
        figure.savefig(buffer, format=ending, metadata=metadata, dpi=150)
        files[ending] = buffer.getvalue()
    return files


def context() -> Any:
    """Returns the context in which figures are drawn."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC})
