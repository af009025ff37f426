"""Accuracy along one setting, a line for each value of another."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.figures.points import Place, Point, points, printed
from lbt.report.figures.spec import Spec, axis_label, name_panels
from lbt.report.frame import Frame
from lbt.report.kit.style import at_foot, dodge, empty, finish, foot, hollow, line_style, panels

FEW = 10  # runs that are drawn one by one
STEP = {"category": 0.11, "log": 0.04}  # between the lines of one place: of a category, decades


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws means over seeds and each run; at the foot the runs that diverged, open markers for print.

    Of more than `FEW` runs the standard deviation is drawn. The lines of one place stand side by side.
    `options.compares` names what the figure compares (`series` or `x`): with one value of it there is no figure yet;
    null: the runs of one place.
    """
    found, notes = points(spec, frame)
    compares = spec.options.get("compares", "x")
    if not found or (compares and len({getattr(point, compares) for point in found}) < 2):
        return None
    rows = spec.sorted(spec.rows or "", [point.panel[0] for point in found])
    columns = spec.sorted(spec.columns or "", [point.panel[1] for point in found])
    series = spec.sorted(spec.series, [point.series for point in found])
    shared = spec.rate != "all"  # otherwise each column has rates of its own
    width = 3.4 if len(columns) < 3 else 2.7 if len(columns) < 5 else 1.9
    figure, grid = panels(len(rows), len(columns), width=width, height=2.5)
    for row, axes_of_row in zip(rows, grid, strict=True):
        drawn = []
        for column, axes in zip(columns, axes_of_row, strict=True):
            here = [point for point in found if point.panel == (row, column)]
            ticks = spec.sorted(spec.x, [point.x for point in found if shared or point.panel[1] == column])
            drawn.append((axes, here, _places(spec, series, ticks)))
            _panel(spec, axes, here, ticks, drawn[-1][2], (row, column))
            if not here and not spec.published:
                empty(axes)
        if any(point.diverged for point in found if point.panel[0] == row):
            _diverged(axes_of_row, drawn, spec.looks(series))
    name_panels(spec, grid, rows, columns, axis_label(spec.metric, found[0].cell.metric), spec.label(spec.x))
    return finish(figure, spec.title, notes, _legend(spec, series, found), columns=6)


Places = Mapping[Any, tuple[dict[Any, float], dict[Any, float]]]


def _places(spec: Spec, series: Sequence[Any], ticks: Sequence[Any]) -> Places:
    """Returns, for each line, where the values of `x` stand: for the runs' markers, and for the published ones."""
    lines = len(series) * (2 if spec.published else 1)
    step = min(STEP[spec.scale], 0.7 / lines)

    def beside(index: int) -> dict[Any, float]:
        away = dodge(index, lines, step)
        if spec.scale == "log":
            return {value: value * 10**away for value in ticks}
        return {value: place + away for place, value in enumerate(ticks)}

    own = 2 if spec.published else 1
    return {name: (beside(own * index), beside(own * index + own - 1)) for index, name in enumerate(series)}


def _panel(spec: Spec, axes: Axes, here: Sequence[Point], ticks: Sequence[Any], places: Places, panel: Place) -> None:
    looks = spec.looks(list(places))
    for name, (at, beside) in places.items():
        style = line_style(looks[name])
        line = sorted((point for point in here if point.series == name), key=lambda point: at[point.x])
        _line(axes, line, at, style, [] if spec.scale == "log" else list(at))
        _printed(spec, axes, name, beside, panel, style)
    if spec.scale == "log":
        axes.set_xscale("log")
    else:
        axes.set_xticks(range(len(ticks)), [spec.label(value) for value in ticks], rotation=30 * (len(ticks) > 3))
        axes.set_xlim(-0.5, len(ticks) - 0.5)


def _line(
    axes: Axes, line: Sequence[Point], at: Mapping[Any, float], style: Mapping[str, Any], categories: Sequence[Any]
) -> None:
    """Draws the means of one line's places, and how its runs scatter about them.

    It is broken where all runs diverged, and at a category that has none.
    """
    means = dict.fromkeys(categories, math.nan)
    means |= {point.x: point.cell.mean if point.done else math.nan for point in line}
    places = sorted(means, key=at.__getitem__)
    axes.plot([at[place] for place in places], [means[place] for place in places], **style)
    for point in line:
        if len(point.done) > FEW:
            spread = statistics.stdev(point.done)
            axes.errorbar(at[point.x], point.cell.mean, yerr=spread, capsize=2, color=style["color"])
        elif len(point.done) > 1:
            axes.plot([at[point.x]] * len(point.done), point.done, "_", color=style["color"], markersize=6)


def _diverged(
    row: Sequence[Axes], drawn: Sequence[tuple[Axes, Sequence[Point], Places]], looks: Mapping[Any, int]
) -> None:
    """Draws a marker for each place with diverged runs at the foot of its panel, and how many where not all did."""
    heights = foot(row, "diverged", len(looks))
    for axes, here, places in drawn:
        for index, (name, look) in enumerate(looks.items()):
            lost = [point for point in here if point.series == name and point.diverged]
            at = places[name][0]
            at_foot(axes, [at[point.x] for point in lost], heights[index], line_style(look))
            for point in lost:
                if point.done:
                    axes.annotate(
                        f"{point.diverged}/{point.diverged + len(point.done)}", (at[point.x], heights[index]),
                        xycoords=axes.get_xaxis_transform(), xytext=(4, 0), textcoords="offset points", va="center",
                        fontsize=6,
                    )  # fmt: skip


def _printed(
    spec: Spec, axes: Axes, name: Any, at: Mapping[Any, float], panel: Place, style: Mapping[str, Any]
) -> None:
    """Draws the published figures of one line, the best of a place's rates."""
    known = printed(spec, name, panel, list(at))
    places = sorted(known, key=at.__getitem__)
    look = {**hollow(style), "linestyle": ":", "linewidth": 0.8}
    axes.plot([at[place] for place in places], [known[place] for place in places], **look)


def _legend(spec: Spec, series: Sequence[Any], found: Sequence[Point]) -> list[Line2D]:
    handles = [Line2D([], [], label=spec.label(name), **line_style(look)) for name, look in spec.looks(series).items()]
    scatters = {len(point.done) > FEW for point in found if len(point.done) > 1}
    if False in scatters:
        handles.append(Line2D([], [], label="each run", color="#555555", marker="_", linestyle=""))
    if True in scatters:
        handles.append(Line2D([], [], label="standard deviation", color="#555555", marker="|", linestyle=""))
    if spec.published:
        open_markers = {"color": "#555555", "linestyle": ":", "linewidth": 0.8, "marker": "o"}
        handles.append(Line2D([], [], label="published", markerfacecolor="none", **open_markers))
    return handles
