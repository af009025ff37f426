"""Test accuracy over training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.figures.points import Point, points
from lbt.report.figures.spec import Spec, axis_label, name_panels
from lbt.report.frame import Frame
from lbt.report.kit.style import finish, line_style, panels


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws the mean over seeds after each epoch, with their range; a cross where the runs of a line diverged."""
    found, notes = points(spec, frame)
    if not found:
        return None
    rows = spec.sorted(spec.rows or "", [point.panel[0] for point in found])
    columns = spec.sorted(spec.columns or "", [point.panel[1] for point in found])
    series = spec.sorted(spec.series, [point.series for point in found])
    figure, grid = panels(len(rows), len(columns), width=1.9, height=2.2)
    for row, axes_of_row in zip(rows, grid, strict=True):
        for column, axes in zip(columns, axes_of_row, strict=True):
            here = [point for point in found if point.panel == (row, column)]
            for index, name in enumerate(series):
                _line(axes, [point for point in here if point.series == name], index)
            axes.set_xlim(0, max(point.cell.standing.epochs for point in found))
    name_panels(spec, grid, rows, columns, axis_label(spec.metric, found[0].cell.metric), "epoch")
    handles = [Line2D([], [], label=spec.label(name), **_style(index)) for index, name in enumerate(series)]
    handles.append(Line2D([], [], label="diverged here", color="#555555", marker="x", linestyle=""))
    return finish(figure, spec.title, notes, handles)


def _style(index: int) -> dict:
    return {key: value for key, value in line_style(index).items() if key != "marker"}


def _line(axes: Axes, found: Sequence[Point], index: int) -> None:
    """Draws one place's runs: as far as all of them go, so that the mean is always over the same runs."""
    for point in found:
        runs = point.cell.runs
        curves = [curve for curve in runs["curve"] if len(curve)]
        if not curves:
            continue
        length = min(map(len, curves))
        values = np.stack([curve[:length] for curve in curves])
        epochs, mean = np.arange(1, length + 1), values.mean(axis=0)
        axes.plot(epochs, mean, **_style(index))
        if len(curves) > 1:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=_style(index)["color"], alpha=0.2)
        if set(runs["status"]) == {"diverged"}:
            axes.plot(length, mean[-1], "x", color=_style(index)["color"])
