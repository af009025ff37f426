"""Accuracy along one setting, a line for each value of another."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.figures.points import Place, Point, points
from lbt.report.figures.spec import Spec, axis_label, name_panels
from lbt.report.frame import Frame
from lbt.report.kit.published import Published
from lbt.report.kit.style import finish, line_style, panels


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws mean and standard deviation over seeds; a cross where every run diverged, open markers for print.

    `options.compares` names what the figure compares (`series` or `x`): with one value of it there is no figure yet.
    """
    found, notes = points(spec, frame)
    if len({getattr(point, spec.options.get("compares", "x")) for point in found}) < 2:
        return None
    rows = spec.sorted(spec.rows or "", [point.panel[0] for point in found])
    columns = spec.sorted(spec.columns or "", [point.panel[1] for point in found])
    series = spec.sorted(spec.series, [point.series for point in found])
    shared = spec.rate != "all"  # otherwise each panel has rates of its own
    figure, grid = panels(len(rows), len(columns), width=1.9 if len(columns) > 3 else 3.4, height=2.5)
    for row, axes_of_row in zip(rows, grid, strict=True):
        for column, axes in zip(columns, axes_of_row, strict=True):
            here = [point for point in found if point.panel == (row, column)]
            ticks = spec.sorted(spec.x, [point.x for point in (found if shared else here)])
            _panel(spec, axes, here, series, ticks, (row, column))
    for axes_of_row, row in zip(grid, rows, strict=True):
        if any(_failed(point) for point in found if point.panel[0] == row):
            low, high = axes_of_row[0].get_ylim()
            axes_of_row[0].set_ylim(low - (0.04 + 0.06 * len(series)) * (high - low), high)  # room for the crosses
    name_panels(spec, grid, rows, columns, axis_label(spec.metric, found[0].cell.metric), spec.label(spec.x))
    return finish(figure, spec.title, notes, _legend(spec, series, found), columns=6)


def _panel(
    spec: Spec, axes: Axes, here: Sequence[Point], series: Sequence[Any], ticks: Sequence[Any], panel: Place
) -> None:
    at = {value: value if spec.scale == "log" else index for index, value in enumerate(ticks)}
    for index, name in enumerate(series):
        style = line_style(index)
        line = sorted((point for point in here if point.series == name), key=lambda point: at[point.x])
        trained = [point for point in line if point.cell.values]
        spread = [statistics.stdev(point.cell.values) if len(point.cell.values) > 1 else 0 for point in trained]
        places, means = [at[point.x] for point in trained], [point.cell.mean for point in trained]
        axes.errorbar(places, means, yerr=spread if any(spread) else None, capsize=2, **style)
        failed = [at[point.x] for point in line if _failed(point)]
        height = [0.02 + 0.05 * index] * len(failed)  # of the panel, so that the lines' crosses do not cover each other
        (crosses,) = axes.plot(failed, height, "x", color=style["color"], transform=axes.get_xaxis_transform())
        crosses.set_in_layout(False)
        _printed(spec, axes, name, at, panel, style)
    if spec.scale == "log":
        axes.set_xscale("log")
    else:
        axes.set_xticks(range(len(ticks)), [spec.label(value) for value in ticks], rotation=30 * (len(ticks) > 3))
        axes.set_xlim(-0.4, len(ticks) - 0.6)


def _failed(point: Point) -> bool:
    return not point.cell.values and "diverged" in point.cell.statuses


def _printed(spec: Spec, axes: Axes, name: Any, at: dict[Any, float], panel: Place, style: dict[str, Any]) -> None:
    """Draws the published figures of one line, the best of a place's rates."""
    known: dict[Any, float] = {}
    fixed = {key: value for key, value in spec.select.items() if not isinstance(value, list)}
    wanted = {**fixed, spec.series: name, spec.rows: panel[0], spec.columns: panel[1]}
    published = Published(spec.published)
    for settings in published:
        if settings.get(spec.x) in at and all(value == wanted.get(key, value) for key, value in settings.items()):
            known[settings[spec.x]] = max(published.value(settings), known.get(settings[spec.x], 0.0))
    places = sorted(known, key=at.__getitem__)
    style = {**style, "linestyle": ":", "linewidth": 0.8, "markerfacecolor": "white"}
    axes.plot([at[place] for place in places], [known[place] for place in places], **style)


def _legend(spec: Spec, series: Sequence[Any], found: Sequence[Point]) -> list[Line2D]:
    handles = [Line2D([], [], label=spec.label(name), **line_style(index)) for index, name in enumerate(series)]
    if spec.published:
        open_markers = {"color": "#555555", "linestyle": ":", "linewidth": 0.8, "marker": "o"}
        handles.append(Line2D([], [], label="published", markerfacecolor="white", **open_markers))
    if any(map(_failed, found)):
        label = "diverged (from below: in this order)"
        handles.append(Line2D([], [], label=label, color="#555555", marker="x", linestyle=""))
    return handles
