"""Steps to a target, by batch: when recorded runs first reached it, and the fit of each optimizer's curve."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lbt import records
from lbt.metrics import Metric
from lbt.records.variation import order
from lbt.report.critical.scaling import Scaling, fit
from lbt.report.frame import Frame, select
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
        best_of: the settings of which each batch has the values with the fewest steps.
    """

    select: Mapping[str, Any]
    target: float
    metric: str = "test_accuracy"
    series: str = "optimizer.name"
    best_of: Sequence[str] = ("peak_lr",)


@dataclass
class Reached:
    """The runs of one optimizer at one batch, at the rate at which they need the fewest steps.

    Where none of its rates has a run that reached the target, it is the one that ends best, and `tried` tells of all.

    Attributes:
        cell: of the runs.
        series, batch: its place.
        at: setting -> the value.
        steps: updates after which each of its runs was first found at the target, None for one that never was.
        metric: the target's.
    """

    cell: Cell
    series: Any
    batch: int
    at: Mapping[str, Any]
    steps: list[int | None]
    metric: Metric = field(repr=False)
    tried: Sequence[Cell] = field(default=(), repr=False)  # one for each value

    @property
    def mean(self) -> float | None:
        """The mean over its runs; None unless all of them reached the target: the others' steps are not known."""
        return None if None in self.steps or self.cell.differing else statistics.fmean(self.steps)

    def text(self) -> str:
        """Returns the steps with spread and n, or why there are none."""
        if self.cell.differing:
            return "mixed settings"
        known = [step for step in self.steps if step is not None]
        if not known:
            return "; ".join(["not reached", *counted(sum((one.statuses for one in self.tried), Counter()))])
        if len(known) < len(self.steps):
            some = f"{len(known)} of {len(self.steps)} runs reached it"
            return "; ".join([some, *counted(self.cell.statuses)])
        spread = f" ± {statistics.stdev(known):,.0f}" if len(known) > 1 else ""
        return f"{self.mean:,.0f}{spread} (n={len(known)})"

    def where(self) -> Mapping[str, Sequence[Any]]:
        """Returns setting -> the value or, where the target was not reached, all that were tried."""
        if any(step is not None for step in self.steps):
            return {name: [value] for name, value in self.at.items()}
        return {name: sorted({one.key[name] for one in self.tried}, key=order) for name in self.at}

    def rank(self) -> tuple[float, float, tuple[bool, float]]:
        """Returns what one of several values is chosen by: more of its runs there, in fewer steps, ending better."""
        known = [step for step in self.steps if step is not None]
        return len(known) / len(self.steps), -statistics.fmean(known) if known else -math.inf, self.cell.rank()


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
    keys = list(dict.fromkeys([asked.series, "batch", *asked.best_of]))
    places: dict[tuple, list[Reached]] = {}
    for cell in make_cells(runs, keys, asked.metric):
        at = {name: cell.key[name] for name in asked.best_of}
        steps = [_first(path, asked, cell.metric) for path in cell.column("path")]
        one = Reached(cell, cell.key[asked.series], int(cell.key["batch"]), at, steps, cell.metric)
        places.setdefault((cell.standing, one.series, one.batch), []).append(one)
    by_standing: dict[Standing, list[Reached]] = {}
    for (standing, *_), found in places.items():
        chosen = replace(max(found, key=Reached.rank), tried=[one.cell for one in found])
        by_standing.setdefault(standing, []).append(chosen)
    return [Curves(standing, found, _fits(found)) for standing, found in by_standing.items()]


def chosen(names: Sequence[str], metric: str) -> str:
    """Returns the words for the values at which figures stand, and on which data that was decided."""
    values = " and ".join(name.removesuffix(".name") for name in names)
    return f"{values} with the fewest updates, on {'validation' if metric.startswith('val_') else 'test'} data"


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
