"""One style for all figures, readable without colour, and their bytes, the same for the same records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")  # Okabe and Ito
MARKERS = "osD^vPX"
DASHES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (2, 2)))
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


@dataclass(frozen=True)
class Spec:
    """What a file of `configs/figure` says.

    Attributes:
        title, shows: its name and what it shows, in one sentence.
        kind: one of `lbt.report.figures.KINDS`.
        select: setting -> value or values of the runs (`lbt.report.frame.select`).
        x, series, columns, rows: the setting along the horizontal axis, the one a line stands for, and those the
            panels stand for.
        order: setting -> its values in the order of the legend or the panels; values without a run have no panel.
        rate: which of a batch's learning rates: `best` (of each line), `shared` (the one most lines were run at) or
            `all` (it is an axis).
        labels: setting or value -> what the figure calls it.
        scale: of the horizontal axis: `category` or `log`.
        metric: the figure of a run's summary, in %.
        published: as in a table, drawn with open markers.
        options: settings of the kind.
        trained_by: the command that makes its runs; None: that of the experiments in `select`.
    """

    title: str
    shows: str
    kind: str
    select: Mapping[str, Any] = field(default_factory=dict)
    x: str = "batch"
    series: str = "optimizer.name"
    columns: str | None = None
    rows: str | None = None
    order: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rate: str = "best"
    labels: Mapping[Any, str] = field(default_factory=dict)
    scale: str = "category"
    metric: str = "test_accuracy"
    published: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trained_by: str | None = None

    def label(self, value: Any) -> str:
        """Returns what the figure calls a setting or a value."""
        if value in self.labels:
            return str(self.labels[value])
        return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)

    def sorted(self, key: str, values: Sequence[Any]) -> list[Any]:
        """Returns the distinct values in the legend's order."""
        order = list(self.order.get(key, []))
        return sorted(set(values), key=lambda value: (order.index(value) if value in order else len(order), value))


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, dashes and marker of the n-th line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure of panels that share their axes, each `width` by `height` inches."""
    size = (max(width * columns + 0.5, 5.5), height * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row").tolist()


def name_panels(
    spec: Spec, grid: Sequence[Sequence[Axes]], rows: Sequence[Any], columns: Sequence[Any], y: str, x: str
) -> None:
    """Names the columns above, the rows and the axes beside the panels."""
    for axes, column in zip(grid[0], columns, strict=True):
        if column is not None:
            axes.set_title(f"{spec.columns} {spec.label(column)}" if isinstance(column, int) else spec.label(column))
    for axes_of_row, row in zip(grid, rows, strict=True):
        axes_of_row[0].set_ylabel(y if row is None else f"{spec.label(row)}\n{y}")
    for axes in grid[-1]:
        axes.set_xlabel(x)


def finish(figure: Figure, spec: Spec, notes: Sequence[str], handles: Sequence[Any], columns: int = 4) -> Figure:
    """Adds title, what the figure stands on, and the legend, outside the data."""
    figure.suptitle("\n".join([spec.title, *notes]), fontsize=8.5)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), handlelength=3.5)
    return figure


def encode(figure: Figure, spec: Spec, command: str) -> dict[str, bytes]:
    """Returns the figure's files by their endings; the SVG holds title, description and the command that made it."""
    said = {"Title": spec.title, "Description": " ".join(spec.shows.split()), "Source": command}
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
