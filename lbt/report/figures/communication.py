"""Accuracy against the bytes that a worker sent, and against the seconds that they are predicted to take."""

import statistics

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.figures.points import Point, counted, stands
from lbt.report.figures.spec import Spec, axis_label
from lbt.report.frame import Frame
from lbt.report.kit import communication
from lbt.report.kit.exchange import LATENCY
from lbt.report.kit.style import finish, line_style, panels


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws a point for each optimizer and batch, a row of panels for each batch.

    `options.sent_by` are the workers, `options.gigabits` is a link's bandwidth in Gb/s.
    """
    workers, gigabits = spec.options["sent_by"], spec.options["gigabits"]
    found = communication.sent(frame, spec.select, spec.metric, workers, [gigabits])
    found = [one for one in found if one.bytes and one.cell.values and not one.cell.differing]
    if len({one.optimizer for one in found}) < 2:
        return None
    batches = sorted({one.cell.key["batch"] for one in found})
    looks = spec.looks(sorted({one.optimizer for one in found}))
    figure, grid = panels(len(batches), 2, width=3.4, height=2.4)
    for batch, (left, right) in zip(batches, grid, strict=True):
        for one in found:
            if one.cell.key["batch"] != batch:
                continue
            style = {**line_style(looks[one.optimizer]), "linestyle": ""}
            spread = statistics.stdev(one.cell.values) if len(one.cell.values) > 1 else None
            for axes, x in ((left, one.bytes / 1e6), (right, one.seconds[gigabits])):
                axes.errorbar([x], [one.cell.mean], yerr=spread, **style)
        left.set_ylabel(f"batch {spec.label(batch)}\n{axis_label(spec.metric, found[0].cell.metric)}")
        for axes in (left, right):
            axes.set_xscale("log")
    grid[-1][0].set_xlabel("MB that a worker sent")
    grid[-1][1].set_xlabel(f"predicted seconds at {gigabits:g} Gb/s")
    points = [Point((None, None), one.optimizer, batch, one.cell) for one in found]
    notes = [*stands(spec, points), *counted(points)]
    notes.append(f"{workers} workers; of rules that average gradients an fp32 all-reduce, computed")
    notes.append(f"seconds: by the alpha-beta model, {LATENCY * 1e6:.0f} us a message; not measured")
    drawn = {one.optimizer for one in found}
    handles = [
        Line2D([], [], label=spec.label(name), **{**line_style(look), "linestyle": ""})
        for name, look in looks.items()
        if name in drawn
    ]
    return finish(figure, spec.title, notes, handles, columns=4)
