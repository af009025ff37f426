"""Test accuracy over training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lbt.report.figures.points import Point, points
from lbt.report.figures.spec import Spec, axis_label, name_panels
from lbt.report.frame import Frame
from lbt.report.kit.style import along, at_foot, empty, finish, foot, line_style, panels


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws each run's accuracy after each epoch and the mean over seeds; at the foot, when runs diverged."""
    found, notes = points(spec, frame)
    if not found:
        return None
    rows = spec.sorted(spec.rows or "", [point.panel[0] for point in found])
    columns = spec.sorted(spec.columns or "", [point.panel[1] for point in found])
    series = spec.sorted(spec.series, [point.series for point in found])
    looks = spec.looks(series)
    figure, grid = panels(len(rows), len(columns), width=1.9, height=2.2)
    epochs = max(point.cell.standing.epochs for point in found)
    for row, axes_of_row in zip(rows, grid, strict=True):
        drawn = [(point, axes_of_row[columns.index(point.panel[1])]) for point in found if point.panel[0] == row]
        for point, axes in sorted(drawn, key=lambda one: series.index(one[0].series)):
            style = {**along(series.index(point.series), epochs, len(series)), **line_style(looks[point.series])}
            _line(axes, point, style)
        for axes in axes_of_row:
            axes.set_xlim(0, 1.03 * epochs)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))  # whole epochs
            if axes not in [where for _, where in drawn]:
                empty(axes)
        if any(point.diverged for point, _ in drawn):
            heights = foot(axes_of_row, "diverged,\nby epoch", len(series))
            for point, axes in drawn:
                at_foot(axes, _ends(point), heights[series.index(point.series)], line_style(looks[point.series]))
    name_panels(spec, grid, rows, columns, axis_label(spec.metric, found[0].cell.metric), "epoch")
    handles = [Line2D([], [], label=spec.label(name), **line_style(look)) for name, look in looks.items()]
    return finish(figure, spec.title, notes, handles)


def _line(axes: Axes, point: Point, style: dict) -> None:
    """Draws one place's runs, and their mean where all go equally far: it is always over the same runs."""
    curves = [curve for curve in point.cell.column("curve") if len(curve)]
    if len({len(curve) for curve in curves}) == 1:
        _plot(axes, np.mean(curves, axis=0), style)
    if len(curves) > 1:
        for curve in curves:
            _plot(axes, curve, {**style, "linewidth": 0.6, "marker": ""})


def _plot(axes: Axes, curve: Sequence[float], style: dict) -> None:
    axes.plot(np.arange(1, len(curve) + 1), curve, **style)


def _ends(point: Point) -> list[int]:
    """Returns after how many epochs each diverged run ended."""
    return [len(run["curve"]) for run in point.cell.rows if run["status"] == "diverged"]
