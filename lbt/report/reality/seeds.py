"""The final runs' figure: a point for every seed, and the medians."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.kit import escape
from lbt.report.kit.style import at_foot, dodge, finish, foot, hollow
from lbt.report.reality import parts
from lbt.report.reality.results import Results
from lbt.report.reality.study import Final

FEW = 10  # seeds that are drawn one by one
MEDIAN = {"color": "#000000", "linestyle": "-", "linewidth": 1.6}


def draw(results: Results, caption: str) -> Figure | None:
    """Draws every seed's test score and the medians of the chosen configurations and the ablations.

    Of more than `FEW` seeds quartiles and extremes are drawn as a box. Runs that diverged stand at the foot; where half
    of them did there is no median.
    """
    found = [
        [final for final in results.finals if final.batch == batch and final.values] for batch in results.study.batches
    ]
    found = [finals for finals in found if finals]
    if not found:
        return None
    figure, row = parts.row(len(found), width=max(3.4, 0.55 * max(map(len, found))))
    for axes, finals in zip(row, found, strict=True):
        for at, final in enumerate(finals):
            _seeds(axes, at, trained(final), final.values, _look(results, final))
        labels = [escape.figure(f"{final.variant or final.optimizer} (n={len(final.values)})") for final in finals]
        axes.set_xticks(range(len(finals)), labels, rotation=40, ha="right")
        axes.set_xlim(-0.6, len(finals) - 0.4)
        axes.margins(y=0.08)
        axes.axhline(results.study.target, **parts.TARGET)
        axes.set(title=f"batch {finals[0].batch:,}")
    row[0].set_ylabel(results.measure.axis("test"))
    _diverged(results, row, found)
    every = [final for finals in found for final in finals]
    notes = parts.notes(results, [f.runs for f in every], f"{parts.span(len(f.values) for f in every)} seeds each")
    return finish(figure, caption, notes, _legend(results, every))


def trained(final: Final) -> list[float]:
    """Returns the scores of the runs that did not diverge."""
    if final.runs is None:
        return list(final.values)
    return [value for value, status in zip(final.values, final.runs["status"], strict=True) if status == "done"]


def _look(results: Results, final: Final) -> dict[str, Any]:
    style = parts.style(results, final.optimizer)
    return hollow(style) if final.variant else style


def _beside(at: float, count: int) -> list[float]:
    """Returns where a place's points stand, side by side."""
    return [at + dodge(index, count, min(0.09, 0.7 / max(count, 1))) for index in range(count)]


def _seeds(axes: Axes, at: int, done: Sequence[float], values: Sequence[float], look: dict[str, Any]) -> None:
    if len(values) > FEW:
        axes.boxplot([done], positions=[at], whis=(0, 100), medianprops={"linewidth": 0}, widths=0.6)
    else:
        axes.plot(_beside(at, len(done)), done, **{**look, "linestyle": ""})
    if 2 * len(done) > len(values):
        axes.plot([at - 0.3, at + 0.3], [statistics.median(values)] * 2, **MEDIAN)


def _diverged(results: Results, row: Sequence[Axes], found: Sequence[Sequence[Final]]) -> None:
    """Draws the runs that diverged at the foot, where there are any."""
    lost = [[len(final.values) - len(trained(final)) for final in finals] for finals in found]
    if not any(map(any, lost)):
        return
    (height,) = foot(row, "diverged", 1)
    for axes, finals, counts in zip(row, found, lost, strict=True):
        for at, (final, count) in enumerate(zip(finals, counts, strict=True)):
            at_foot(axes, _beside(at, count), height, _look(results, final))


def _legend(results: Results, finals: Sequence[Final]) -> list[Line2D]:
    point = {"color": "#555555", "marker": "o", "linestyle": ""}
    ablations = [Line2D([], [], label="a seed, ablation", **hollow(point))] if any(f.variant for f in finals) else []
    return [
        Line2D([], [], label="a seed", **point),
        *ablations,
        Line2D([], [], label="median", **MEDIAN),
        Line2D([], [], label=f"target, {results.study.target:g}{results.measure.unit}", **parts.TARGET),
    ]
