"""The kinds of figures: each draws what a file of `configs/figure` describes."""

from collections.abc import Callable

from matplotlib.figure import Figure

from lbt.report.figures import communication, curves, lines, norms, schedules
from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame

# A kind returns None where there is no record to draw.
KINDS: dict[str, Callable[[Spec, Frame], Figure | None]] = {
    "lines": lines.draw,
    "curves": curves.draw,
    "norms": norms.draw,
    "schedules": schedules.draw_rates,
    "phi": schedules.draw_phi,
    "communication": communication.draw,
}
