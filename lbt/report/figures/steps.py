"""Steps to a target against the batch, with perfect scaling and the fitted curve (Shallue et al. 2019)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.critical.steps import Asked, Curves, Reached, chosen, curves
from lbt.report.figures.spec import Spec, axis_label
from lbt.report.frame import Frame
from lbt.report.kit.style import at_foot, dodge, finish, foot, line_style, panels

PERFECT = {"color": "#888888", "linestyle": ":", "linewidth": 0.9, "zorder": 1.5}
STEP = 0.02  # decades between the markers of two lines


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws each optimizer's steps with a dotted line of perfect scaling from its smallest batch, and its fit.

    `options.target` is what is to be reached; batches that did not are at the foot. Of several data sets or lengths the
    one with the most runs is drawn.
    """
    asked = Asked(spec.select, float(spec.options["target"]), spec.metric, spec.series, spec.best_of)
    found = sorted(curves(asked, frame), key=lambda one: -len(one.found))
    if not found or all(one.mean is None for one in found[0].found):
        return None
    shown = found[0]
    series = spec.sorted(spec.series, shown.series)
    looks = spec.looks(series)
    figure, ((axes,),) = panels(1, 1, width=5.6, height=3.4)
    batches = sorted({one.batch for one in shown.found})
    axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel=f"updates to {_goal(asked, shown)}")
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()
    for index, name in enumerate(series):
        own = sorted((one for one in shown.found if one.series == name), key=lambda one: one.batch)
        _line(axes, own, shown, looks[name], 10 ** dodge(index, len(series), STEP))
    missing = [one for one in shown.found if one.mean is None]
    if missing:
        heights = foot([axes], "not\nreached", len(series))
        for one in missing:
            at_foot(axes, [one.batch], heights[series.index(one.series)], line_style(looks[one.series]))
    handles = [Line2D([], [], label=_label(spec, shown, name), **line_style(look)) for name, look in looks.items()]
    handles.append(Line2D([], [], label="perfect scaling", **PERFECT))
    return finish(figure, spec.title, _notes(spec, found), handles, columns=2)


def _line(axes: Axes, own: Sequence[Reached], shown: Curves, look: int, beside: float) -> None:
    """Draws one optimizer's runs, means and curves; where runs did not reach the target there is a gap."""
    reached = [one for one in own if one.mean is not None]
    if not reached:
        return
    style, first = line_style(look), reached[0]
    ends = np.array([first.batch, max(one.batch for one in shown.found)], dtype=float)
    axes.plot(ends, first.mean * first.batch / ends, **PERFECT)
    axes.plot([one.batch * beside for one in reached], [one.mean for one in reached], **{**style, "linestyle": ""})
    for one in reached:
        if len(one.steps) > 1:
            axes.plot([one.batch * beside] * len(one.steps), one.steps, "_", color=style["color"], markersize=6)
    if (fitted := shown.fits.get(first.series)) is not None and fitted.decided:
        at = np.geomspace(fitted.smallest, fitted.largest, 200)
        axes.plot(at, fitted.steps(at), **{**style, "marker": "", "linewidth": 1.1})


def _label(spec: Spec, shown: Curves, name: Any) -> str:
    fitted = shown.fits.get(name)
    return f"{spec.label(name)}: {fitted.text() if fitted else 'no fit'}"


def _goal(asked: Asked, shown: Curves) -> str:
    metric = shown.found[0].metric
    label = axis_label(asked.metric, metric).removesuffix(f" ({metric.unit})")
    return f"{asked.target:g}{f' {metric.unit}' if metric.unit else ''} {label}"


def _notes(spec: Spec, found: Sequence[Curves]) -> list[str]:
    shown, cells = found[0], [one.cell for one in found[0].found]
    counts = sorted({len(one.steps) for one in shown.found})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    notes = [
        f"{shown.standing.line(cells)}; n={n} at each "
        f"batch, the {chosen(spec.best_of, spec.metric)}; looked at after each epoch",
        "lines: steps = S_min (1 + B_crit / batch), fitted to the batches that reached the target",
    ]
    if others := sum(len(one.found) for one in found[1:]):
        notes.append(f"not shown: {others} places on other data or of another length or precision")
    return notes
