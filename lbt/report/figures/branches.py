"""Branches of a training: how much worse larger batches end, and the critical batch over training."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.critical.branches import Point, factors, points
from lbt.report.figures.spec import Spec, axis_label
from lbt.report.frame import Frame
from lbt.report.kit.style import at_foot, dodge, finish, foot, hollow, line_style, panels

TOLERATED = {"facecolor": "#DDDDDD", "linewidth": 0, "zorder": 0.5}


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws a panel for each optimizer, a line a point of its training, and one of the critical batch at each point.

    `options.tolerance` is how much worse a branch may end; it is shaded. Branches that diverged are at the foot.
    """
    tolerance = float(spec.options["tolerance"])
    found, mixed = points(spec.select, frame, series=spec.series, metric=spec.metric, tolerance=tolerance)
    found, others = _one_standing(found)
    found = [one for one in found if any(excess is not None for excess in one.excess.values())]
    if not found:
        return None
    series = spec.sorted(spec.series, [one.series for one in found])
    places = sorted({one.at for one in found})
    figure, (row,) = panels(1, len(series) + 1, width=2.7, height=2.7, sharey=False)
    metric = next(iter(found[0].cells.values())).metric
    worse = "above" if not metric.higher_is_better else "below"
    for axes, name in zip(row, series, strict=False):
        axes.set(title=spec.label(name), xlabel="batch, times that of the training", xscale="log")
        _panel(axes, [one for one in found if one.series == name], places, tolerance)
    row[0].set_ylabel(f"{axis_label(spec.metric, metric)} {worse} factor 1")
    _critical(row[-1], found, series, spec)
    handles = [Line2D([], [], label=f"from epoch {at}", **line_style(places.index(at))) for at in places]
    for name, look in spec.looks(series).items():
        style = {**line_style(look + len(places)), "linestyle": ""}
        handles.append(Line2D([], [], label=f"critical batch: {spec.label(name)}", **style))
    return finish(figure, spec.title, _notes(found, tolerance, others + len(mixed)), handles, columns=4)


def _panel(axes: Axes, own: Sequence[Point], places: Sequence[int], tolerance: float) -> None:
    ticks = factors(own)
    axes.set_xticks(ticks, [f"{factor}" for factor in ticks])
    axes.minorticks_off()
    axes.axhspan(0, tolerance, **TOLERATED)
    lost: list[tuple[int, int]] = []
    for one in own:
        known = {factor: excess for factor, excess in one.excess.items() if excess is not None}
        ended = {factor: excess for factor, excess in known.items() if excess != float("inf")}
        axes.plot(list(ended), list(ended.values()), **line_style(places.index(one.at)))
        lost += [(one.at, factor) for factor in known if factor not in ended]
    if lost:
        heights = foot([axes], "diverged", len(places))
        for at, factor in lost:
            at_foot(axes, [factor], heights[places.index(at)], line_style(places.index(at)))


def _critical(axes: Axes, found: Sequence[Point], series: Sequence[Any], spec: Spec) -> None:
    """Draws the critical batch over training; open and with an arrow where none of the batches was too large."""
    axes.set(title="critical batch", xlabel="epoch", yscale="log")
    offset = len({one.at for one in found})
    axes.set_xticks(sorted({one.at for one in found}))
    batches = sorted({one.batch * factor for one in found for factor in one.cells})
    axes.set_yticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()
    for name, look in spec.looks(series).items():
        own = [one for one in found if one.series == name and one.factor is not None]
        beside = dodge(series.index(name), len(series), 0.02 * max(one.at for one in found))
        style, at = line_style(look + offset), [one.at + beside for one in own]
        critical = [one.batch * one.factor for one in own]
        axes.plot(at, critical, **{**style, "marker": "", "linewidth": 0.9})
        for one, place, batch in zip(own, at, critical, strict=True):
            axes.plot([place], [batch], **(style if one.bounded else hollow(style)))


def _one_standing(found: Sequence[Point]) -> tuple[list[Point], int]:
    """Returns the points of the data and length that most of them have, and how many others there are."""
    standings = [one.standing for one in found]
    if not standings:
        return [], 0
    most = max(dict.fromkeys(standings), key=standings.count)
    return [one for one in found if one.standing == most], len(standings) - standings.count(most)


def _notes(found: Sequence[Point], tolerance: float, others: int) -> list[str]:
    cells = [cell for one in found for cell in one.cells.values()]
    counts = sorted({len(cell.rows) for cell in cells})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    batches = ", ".join(f"{batch:,}" for batch in sorted({one.batch for one in found}))
    notes = [
        f"{found[0].standing.line(cells)}; at batch {batches}; n={n} for each batch of a branch",
        f"shaded: tolerated, {tolerance:g}; critical batch: the largest up to which all are; open: none was too large",
    ]
    return [*notes, f"not shown: {others} places of other settings, data or length"] if others else notes
