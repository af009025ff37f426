"""What probes saw over training: sharpness, gradient noise, a line for each variant of a training."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.figures.points import Point, points
from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame, select
from lbt.report.kit import escape, specs
from lbt.report.kit.style import empty, finish, line_style, panels
from lbt.report.looks import Looks, looked_at, named

# Figures whose mean over runs is the quotient of two means: that of quotients would be biased.
QUOTIENTS = {"noise_scale": ("trace", "gradient_square")}
Curve = dict[int, float]  # updates made -> figure


def draw(spec: Spec, frame: Frame) -> Figure | None:
    """Draws each run's figures after so many updates and the mean of its seeds: a column a batch, a row a figure.

    `options`: `probe`; `figures`, of its looks -> label of the axis; `variants_of`, the table of whose variants the
    lines are; `variants`, which of them. Lines are drawn where a figure is positive: the axis is logarithmic.
    """
    wanted = spec.options
    known = specs.read("table", wanted["variants_of"])["variants"]
    runs = select(frame.runs, spec.select)
    variants = {name: known[name] for name in wanted["variants"]}
    found, notes = points(spec, Frame(named(runs, variants), frame.problems))
    curves = {(point.panel[1], point.series): _looks(point) for point in found}
    curves = {place: looks for place, looks in curves.items() if any(one.seen(wanted["probe"]) for one in looks)}
    if not curves:
        return None
    columns = spec.sorted(spec.columns or "", [batch for batch, _ in curves])
    looks = spec.looks(list(variants))
    figure, grid = panels(len(wanted["figures"]), len(columns), width=3.4, height=2.2)
    for row, (name, label) in zip(grid, wanted["figures"].items(), strict=True):
        for column, axes in zip(columns, row, strict=True):
            drawn = [
                _line(axes, [_curve(one, wanted["probe"], name) for one in curves[column, variant]], name, style)
                for variant, style in looks.items()
                if (column, variant) in curves
            ]
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(0, 1.3 * max(_last(curves[place], wanted["probe"]) for place in curves if place[0] == column))
            if any(drawn):
                axes.set_yscale("log")
            else:
                empty(axes)
        row[0].set_ylabel(escape.figure(label))
    for column, axes in zip(columns, grid[0], strict=True):
        axes.set_title(f"batch {spec.label(column)}")
    for axes in grid[-1]:
        axes.set_xlabel("updates made")
    handles = [Line2D([], [], label=spec.label(name), **line_style(style)) for name, style in looks.items()]
    notes.append("thin: each run; thick: geometric mean (noise scale: quotient of means) of those that got as far")
    seen = {looked_at(one.probe) for looks in curves.values() for one in looks if one.probe}
    notes.append(f"{'; other runs: '.join(sorted(seen))}; nothing is drawn at a rate of 0")
    if not QUOTIENTS.keys().isdisjoint(wanted["figures"]):
        notes.append("no noise scale where the gradient's squared norm, estimated without bias, is not above 0")
    return finish(figure, spec.title, notes, handles)


def _looks(point: Point) -> list[Looks]:
    return [Looks.of(run) for run in point.cell.rows]


def _last(looks: Sequence[Looks], probe: str) -> int:
    """Returns after how many updates the last look was taken, 1 at least."""
    return max([1, *(look["step"] for one in looks for look in one.seen(probe))])


def _curve(looks: Looks, probe: str, figure: str) -> list[Curve]:
    """Returns a run's figure by updates made; of a quotient its two parts."""
    parts = QUOTIENTS.get(figure, (figure,))
    return [dict(looks.series(probe, part)) for part in parts]


def _line(axes: Axes, runs: Sequence[list[Curve]], figure: str, look: int) -> bool:
    """Draws the runs of one place and, where there are several, their mean; says whether there was anything to draw."""
    lines = [_quotient([run]) for run in runs]
    style = line_style(look)
    thin = {**style, "linewidth": 0.6, "marker": "" if len(runs) > 1 else style["marker"]}
    for line in lines:
        axes.plot(list(line), list(line.values()), **(thin if len(runs) > 1 else style))
    if len(runs) > 1:
        mean = _quotient(runs)
        axes.plot(list(mean), list(mean.values()), **style)
    return any(lines)


def _quotient(runs: Sequence[list[Curve]]) -> Curve:
    """Returns the mean over runs at each step that a run has, where it is above 0."""
    steps = sorted({step for run in runs for step in run[0]})
    found = {}
    for step in steps:
        parts = [[curve[step] for curve in curves if step in curve] for curves in zip(*runs, strict=True)]
        if all(parts):
            value = _mean(*parts)
            if value > 0:
                found[step] = value
    return found


def _mean(values: Sequence[float], below: Sequence[float] | None = None) -> float:
    """Returns the geometric mean of values, as the axis is logarithmic, or the quotient of two means; 0 for none."""
    if below is None:
        return statistics.geometric_mean(values) if min(values) > 0 else 0.0
    under = statistics.fmean(below)
    return statistics.fmean(values) / under if under > 0 else 0.0
