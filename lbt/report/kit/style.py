"""One style for all figures, readable without colour, and their bytes, the same for the same records."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lbt.report.kit import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#8C6D31")  # Okabe and Ito's
MARKERS = "osD^vPX*"
DASHES = (
    "-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (2, 2)),
    (0, (6, 3)),
)  # fmt: skip
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


def panels(
    rows: int, columns: int, *, width: float, height: float, sharey: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure of panels, each `width` by `height` inches; those of a row share their vertical axis."""
    size = (max(width * columns + 0.5, 5.5), height * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row" if sharey else "none").tolist()


def finish(figure: Figure, title: str, notes: Sequence[str], handles: Sequence[Any], columns: int = 4) -> Figure:
    """Adds title, what the figure stands on, and the legend, outside the data.

    Args:
        figure: drawn.
        title: our own words; matplotlib's formulas are allowed.
        notes: lines below it, shown as they are.
        handles: of the legend.
        columns: of the legend, at most.
    """
    figure.suptitle("\n".join([title, *map(escape.figure, notes)]), fontsize=8.5)
    if handles:
        ncols = min(columns, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, handlelength=3.5)
    return figure


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
