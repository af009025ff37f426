"""Steps to a target, by batch: when recorded runs first reached it, and the fit of each optimizer's curve."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbt import records
from lbt.metrics import Metric
from lbt.records.variation import order
from lbt.report.critical.scaling import Scaling, fit
from lbt.report.frame import Frame, select
from lbt.report.kit import best
from lbt.report.kit.cells import Cell, Standing, make_cells
from lbt.report.kit.wording import counted


@dataclass(frozen=True)
class Asked:
    """What a file says of steps to a target.

    Attributes:
        select: setting -> value or values of the runs.
        target: value of the metric that is to be reached.
        metric: the figure after each epoch, `val_...` where images were held out.
        series: the setting of which each value has a curve.
        best_of: the settings of which each batch has the best values, by the metric after the last epoch.
    """

    select: Mapping[str, Any]
    target: float
    metric: str = "test_accuracy"
    series: str = "optimizer.name"
    best_of: Sequence[str] = ("peak_lr",)


@dataclass
class Reached:
    """The runs of one optimizer at one batch, at its best rate.

    Attributes:
        cell: of the runs.
        series, batch: its place.
        at: setting -> the best value.
        steps: updates after which each of its runs was first found at the target, None for one that never was.
        metric: the target's.
    """

    cell: Cell
    series: Any
    batch: int
    at: Mapping[str, Any]
    steps: list[int | None]
    metric: Metric = field(repr=False)

    @property
    def mean(self) -> float | None:
        """The mean over its runs; None unless all of them reached the target: the others' steps are not known."""
        return None if None in self.steps or self.cell.differing else statistics.fmean(self.steps)

    def text(self) -> str:
        """Returns the steps with spread and n, or why there are none."""
        if self.cell.differing:
            return "mixed settings"
        known = [step for step in self.steps if step is not None]
        if len(known) < len(self.steps):
            some = f"{len(known)} of {len(self.steps)} runs reached it" if known else "not reached"
            return "; ".join([some, *counted(self.cell.statuses)])
        spread = f" ± {statistics.stdev(known):,.0f}" if len(known) > 1 else ""
        return f"{self.mean:,.0f}{spread} (n={len(known)})"


@dataclass
class Curves:
    """What has been found on one set of data, task, model and length.

    Attributes:
        standing: what it is.
        found: of every batch and optimizer with a run.
        fits: of each optimizer with enough batches that reached the target.
    """

    standing: Standing
    found: list[Reached]
    fits: dict[Any, Scaling]

    @property
    def series(self) -> list[Any]:
        """The optimizers, sorted."""
        return sorted({one.series for one in self.found}, key=order)


def curves(asked: Asked, frame: Frame) -> list[Curves]:
    """Returns the curves, one for each set of runs that may be compared."""
    runs = select(frame.runs, asked.select)
    if runs.empty:
        return []
    keys = list(dict.fromkeys([asked.series, "batch"]))
    runs, chosen = best.of(runs, keys, asked.best_of, asked.metric)
    by_standing: dict[Standing, list[Reached]] = {}
    for cell in make_cells(runs, keys, asked.metric):
        at = chosen.get(cell.rows[0]["id"], {})
        steps = [_first(path, asked, cell.metric) for path in cell.column("path")]
        one = Reached(cell, cell.key[asked.series], int(cell.key["batch"]), at, steps, cell.metric)
        by_standing.setdefault(cell.standing, []).append(one)
    return [Curves(standing, found, _fits(found)) for standing, found in by_standing.items()]


def _first(path: str, asked: Asked, metric: Metric) -> int | None:
    """Returns the updates made when a record first has the target; it tells of the ends of epochs alone."""
    for line in records.read(path).epochs:
        value = line.get(asked.metric)
        if value is not None and (value >= asked.target if metric.higher_is_better else value <= asked.target):
            return int(line["step"])
    return None


def _fits(found: Sequence[Reached]) -> dict[Any, Scaling]:
    fits = {}
    for name in {one.series for one in found}:
        known = [(one.batch, one.mean) for one in found if one.series == name and one.mean is not None]
        if (made := fit([batch for batch, _ in known], [steps for _, steps in known])) is not None:
            fits[name] = made
    return fits
