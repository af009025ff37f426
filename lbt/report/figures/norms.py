"""Test loss and layer norm ratio over training (the TVLARS paper's Figure 3)."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt import records
from lbt.report.figures.points import Point, points
from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame
from lbt.report.kit.style import along, finish, line_style, panels


@dataclass(frozen=True)
class Norms:
    """One run's diagnostics.

    Attributes:
        loss: test loss after each epoch.
        epochs: [M] time of each measurement, in epochs.
        ratio: [M, layer] LNR = LWN / LGN, NaN where the gradient is 0.
        names: of the layers, first to last.
    """

    loss: np.ndarray
    epochs: np.ndarray
    ratio: np.ndarray
    names: list[str]


def read(path: str, steps_per_epoch: int) -> Norms | None:
    """Returns the diagnostics in a record, None where it has none."""
    lines = records.read(path).epochs
    found = [line["layer_norms"] for line in lines if "layer_norms" in line]
    if not found:
        return None
    weights, gradients = (
        np.array([row for part in found for row in part[name]], dtype=float) for name in ("lwn", "lgn")
    )
    steps = np.array([step for part in found for step in part["steps"]], dtype=float)
    ratio = np.divide(weights, gradients, out=np.full_like(weights, np.nan), where=gradients > 0)
    loss = np.array([line.get("test_loss") for line in lines], dtype=float)
    return Norms(loss, steps / steps_per_epoch, ratio, found[0]["names"])


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws a column a batch: test losses above, below them the LNR of every layer, a panel for each value of `series`.

    Of several seeds the lowest one is drawn: a mean of curves would show what no run did.
    """
    found, notes = points(spec, frame)
    known = [(point, norms) for point in found if (norms := _of_lowest_seed(point)) is not None]
    if not known:
        return None
    columns = spec.sorted(spec.columns or "", [point.panel[1] for point, _ in known])
    series = spec.sorted(spec.series, [point.series for point, _ in known])
    looks = spec.looks(series)
    figure, grid = panels(1 + len(series), len(columns), width=1.9, height=2.1)
    for column, batch in enumerate(columns):
        here = {point.series: norms for point, norms in known if point.panel[1] == batch}
        top = grid[0][column]
        top.set(title=f"batch {spec.label(batch)}", yscale="log")
        for index, name in enumerate(series):
            if name in here:
                loss = here[name].loss
                look = {**along(index, len(loss), len(series)), **line_style(looks[name])}
                top.plot(np.arange(1, len(loss) + 1), loss, **look)
                _layers(grid[1 + index][column], here[name])
        grid[-1][column].set_xlabel("epoch")
    grid[0][0].set_ylabel("test loss")
    for index, name in enumerate(series):
        grid[1 + index][0].set_ylabel(f"LNR per layer\n{spec.label(name)}")
        for axes in grid[1 + index]:
            axes.set_yscale("log")
    handles = [Line2D([], [], label=f"loss of {spec.label(name)}", **line_style(look)) for name, look in looks.items()]
    handles += [
        Line2D([], [], label="LNR = ||w||/||g||, first layer", color=_shade(0.0)),
        Line2D([], [], label="last layer", color=_shade(1.0), linestyle=(0, (5, 1.5))),
    ]
    colours = ScalarMappable(Normalize(0, 1), ListedColormap([_shade(depth) for depth in np.linspace(0, 1, 256)]))
    bar = figure.colorbar(colours, ax=[axes for row in grid[1:] for axes in row], ticks=[0, 1], aspect=40)
    bar.ax.set_yticklabels(["first layer", "last layer"], rotation=90, va="center")
    notes.append("a run a line, of several seeds the lowest")
    lost = [f"{spec.label(point.series)} at batch {spec.label(point.panel[1])}" for point, _ in known if _lost(point)]
    if lost:
        notes.append(f"diverged where the line ends: {', '.join(lost)}")
    return finish(figure, spec.title, notes, handles)


def _shade(depth: float) -> Any:
    return matplotlib.colormaps["viridis"](0.75 * depth)  # not up to its yellow, which is hardly seen in grey


def _lowest_seed(point: Point) -> Any:
    return min(point.cell.rows, key=lambda run: run["seed"])


def _lost(point: Point) -> bool:
    return _lowest_seed(point)["status"] == "diverged"


def _of_lowest_seed(point: Point) -> Norms | None:
    run = _lowest_seed(point)
    return read(run["path"], run["steps_per_epoch"])


def _layers(axes: Axes, norms: Norms) -> None:
    """Draws the layers from light to dark in their order, the first and the last one thicker."""
    last = max(norms.ratio.shape[1] - 1, 1)
    for layer, ratio in enumerate(norms.ratio.T):
        ends = layer in (0, last)
        style = (0, (5, 1.5)) if layer == last else "-"
        width = 1.6 if ends else 0.6
        axes.plot(norms.epochs, ratio, color=_shade(layer / last), linewidth=width, linestyle=style, zorder=2 + ends)
