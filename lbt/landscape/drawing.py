"""The figure of a landscape: curves along lines, or contours over a plane."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lbt import build, metrics
from lbt.config import Config
from lbt.config import network_of as named
from lbt.landscape import Landscape
from lbt.landscape.surface import REESTIMATED
from lbt.report.figures.spec import axis_label
from lbt.report.kit.style import context, encode, finish, hollow, line_style, panels

WIDE = 50.0  # ratio of the largest loss to the smallest above which the axis is logarithmic
LEVELS = 9  # contours
MARK = {"color": "#555555", "linewidth": 0.8, "linestyle": ":"}


def draw(found: Landscape, command: str) -> dict[str, bytes]:
    """Returns the figure's files by their endings.

    Args:
        found: what is drawn.
        command: that makes it.
    """
    with context():
        title = _title(found)
        figure = _plane(found, title) if found.wanted.plane else _lines(found, title)
        shows = "How loss and accuracy change between weights, on training and test images."
        return encode(figure, title, shows, command)


def _lines(found: Landscape, title: str) -> Figure:
    """Draws a panel a metric; training images with full markers, test images with open ones."""
    declared = metrics.declared_by(build.task(found.configs[0]))
    names = [name for name in ("loss", "accuracy") if f"test_{name}" in found.rows[0]]
    directions = list(dict.fromkeys(row["direction"] for row in found.rows))
    figure, (row,) = panels(1, len(names), width=3.6, height=2.8, sharey=False)
    handles = []
    for number, direction in enumerate(directions):
        points = [one for one in found.rows if one["direction"] == direction]
        for split, style in (("train", line_style(2 * number)), ("test", hollow(line_style(2 * number + 1)))):
            look = {**style, "markevery": max(1, len(points) // 10), "markersize": 4}
            for axes, name in zip(row, names, strict=True):
                axes.plot([one["x"] for one in points], [one[f"{split}_{name}"] for one in points], **look)
            of = f", direction {direction}" if len(directions) > 1 else ""
            handles.append(Line2D([], [], label=f"{split} images{of}", **look))
    ends = (0, 1) if len(found.runs) == 2 else (0,)
    for axes, name in zip(row, names, strict=True):
        for end in ends:
            axes.axvline(end, **MARK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel=_axis(found), ylabel=axis_label(name, declared.get(name, metrics.Metric(name))))
    values = [one[f"{split}_loss"] for one in found.rows for split in ("train", "test")]
    _scale(row[0], [value for value in values if np.isfinite(value)])
    return finish(figure, title, _notes(found), handles, columns=2)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    if values and min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")


def _plane(found: Landscape, title: str) -> Figure:
    """Draws lines of equal loss, each with its value, for training and for test images."""
    axis = sorted({row["x"] for row in found.rows})
    figure, (row,) = panels(1, 2, width=3.6, height=3.4)
    for axes, split in zip(row, ("train", "test"), strict=True):
        values = np.array([one[f"{split}_loss"] for one in found.rows], dtype=float).reshape(len(axis), len(axis))
        values = np.ma.masked_invalid(values)
        low, high = float(values.min()), float(values.max())
        levels = np.geomspace(low, high, LEVELS + 2)[1:-1] if low > 0 else np.linspace(low, high, LEVELS + 2)[1:-1]
        if high > low:
            lines = axes.contour(axis, axis, values, levels=levels, colors=line_style(0)["color"], linewidths=1.0)
            axes.clabel(lines, fmt="%.4g", fontsize=6.5)
        axes.plot([0], [0], "x", color="#000000", markersize=5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(title=f"loss on {split} images", xlabel=_axis(found), aspect="equal")
        axes.grid(visible=False)
    row[0].set_ylabel("along the second direction")
    marked = Line2D([], [], label="the run's weights", color="#000000", marker="x", linestyle="")
    return finish(figure, title, _notes(found), [marked])


def _title(found: Landscape) -> str:
    names = [f"{run} ({_told(config)})" for run, config in zip(found.runs, found.configs, strict=True)]
    if len(names) == 2:
        return f"Loss along the line from run {names[0]} to run {names[1]}"
    where = "over two" if found.wanted.plane else "along"
    return f"Loss {where} random directions, scaled to the filters, around run {names[0]}"


def _told(config: Config) -> str:
    return f"{config.optimizer['name']}, batch {config.batch:,}, {config.length} epochs, seed {config.seed}"


def _axis(found: Landscape) -> str:
    if len(found.runs) == 2:
        return "0: the first run's weights, 1: the second's"
    return "along the first direction" if found.wanted.plane else "distance, 1: as long as the weights"


def _notes(found: Landscape) -> list[str]:
    parts = " and ".join(f"{used:,} of {of:,} {split}" for split, (used, of) in found.counts.items())
    drawn = any(used < of for used, of in found.counts.values())
    how = f", stratified draws of seed {found.wanted.seed}" if drawn else ""
    again = "batch norm's statistics re-estimated at each point on the training part"
    norm = {None: "no batch norm", REESTIMATED: again}
    return [
        f"{named(found.configs[0].model)} on {found.origin}, pixels {found.fingerprint}; n=1 of each run",
        f"{parts} images{how}, without augmentation",
        norm.get(found.batch_norm, "batch norm's running statistics kept, mixed as the weights are"),
        *(f"run {run} was trained on other images" for run in found.foreign),
    ]
