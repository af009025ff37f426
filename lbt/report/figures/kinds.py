"""The kinds of figures: each draws what a file of `configs/figure` describes."""

from collections.abc import Callable

from matplotlib.figure import Figure

from lbt.report.figures import branches, communication, curves, lines, looks, norms, schedules, steps
from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame

# A kind returns None where there is no record to draw.
KINDS: dict[str, Callable[[Spec, Frame], Figure | None]] = {
    "lines": lines.draw,
    "curves": curves.draw,
    "norms": norms.draw,
    "looks": looks.draw,
    "schedules": schedules.draw_rates,
    "phi": schedules.draw_phi,
    "phases": schedules.draw_phases,
    "steps": steps.draw,
    "branches": branches.draw,
    "communication": communication.draw,
}
