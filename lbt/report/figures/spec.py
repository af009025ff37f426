"""What a file of `configs/figure` says, and the names it gives to what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lbt.metrics import Metric
from lbt.records.variation import order
from lbt.report.kit import escape
from lbt.report.kit.wording import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Spec:
    """What a file of `configs/figure` says.

    Attributes:
        title, shows: its name and what it shows, in one sentence.
        kind: one of `lbt.report.figures.kinds.KINDS`.
        select: setting -> value or values of the runs (`lbt.report.frame.select`).
        x, series, columns, rows: the setting along the horizontal axis, the one a line stands for, and those the
            panels stand for.
        order: setting -> its values in the order of the legend or the panels; values without a run have no panel.
        rate: which of a batch's learning rates: `best` (of each line), `shared` (the one most lines were run at) or
            `all` (it is an axis).
        best_of: the settings of which `rate: best` takes the best, if not the learning rate.
        labels: setting or value -> what the figure calls it.
        scale: of the horizontal axis: `category` or `log`.
        metric: the figure of a run's summary.
        published: as in a table, drawn with open markers.
        readings: choices of `configs/protocol`, as in a table: each run stands under those (setting `reading`) whose
            printed rate it was run at.
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
    best_of: Sequence[str] = ("lr",)
    labels: Mapping[Any, str] = field(default_factory=dict)
    scale: str = "category"
    metric: str = "test_accuracy"
    published: Mapping[str, Any] | None = None
    readings: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    trained_by: str | None = None

    def label(self, value: Any) -> str:
        """Returns what the figure calls a setting or a value."""
        if value in self.labels:
            return str(self.labels[value])
        count = isinstance(value, int) and not isinstance(value, bool)
        return f"{value:,}" if count else escape.figure(setting(value))

    def looks(self, series: Sequence[Any]) -> dict[Any, int]:
        """Returns the number of each line's style: one that `order` names keeps it, whichever others are there."""
        known = [*self.order.get(self.series, [])]
        known += [name for name in series if name not in known]
        return {name: known.index(name) for name in series}

    def sorted(self, key: str, values: Sequence[Any]) -> list[Any]:
        """Returns the distinct values in the legend's order."""
        first = {value: place for place, value in enumerate(self.order.get(key, []))}
        return sorted(set(values), key=lambda value: (first.get(value, len(first)), order(value)))


def name_panels(
    spec: Spec, grid: Sequence[Sequence[Axes]], rows: Sequence[Any], columns: Sequence[Any], y: str, x: str
) -> None:
    """Names the columns above, the rows and the axes beside the panels."""
    for axes, column in zip(grid[0], columns, strict=True):
        if column is not None:
            axes.set_title(_panel(spec, spec.columns, column))
    for axes_of_row, row in zip(grid, rows, strict=True):
        axes_of_row[0].set_ylabel(y if row is None else f"{_panel(spec, spec.rows, row)}\n{y}")
    for axes in grid[-1]:
        axes.set_xlabel(x)


def _panel(spec: Spec, key: str | None, value: Any) -> str:
    """Returns what a panel's setting is called; a number says what it is of: "batch 512"."""
    alone = value in spec.labels or not isinstance(value, int | float)
    return spec.label(value) if alone else f"{str(key).rpartition('.')[2]} {spec.label(value)}"


def axis_label(name: str, metric: Metric) -> str:
    """Returns what an axis of a metric is called: "test accuracy (%)".

    Args:
        name: of the figure in a run's summary.
        metric: what it is.
    """
    unit = f" ({metric.unit})" if metric.unit else ""
    return escape.figure(f"{name.replace('_', ' ')}{unit}")
