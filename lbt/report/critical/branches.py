"""The critical batch size by branching: the largest batch with which a training goes on without loss.

Merrill et al. 2025 (arXiv 2505.23971): branches of a training see as many images each, at batches that are multiples
of its own; as long as the loss at their ends is that of the smallest one, larger batches cost nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt.records.variation import order
from lbt.report.frame import Frame, select
from lbt.report.kit.cells import Cell, Standing, make_cells

POINT, FACTOR, BATCH = "branch.at", "branch.factor", "batch"
_OF_BRANCH = ("branch.epochs", "branch.lr_scaling")


@dataclass
class Point:
    """The branches of one point of a training.

    Attributes:
        series: value of the setting that the curves are of.
        batch: of the training, images.
        at: epochs after which it branches.
        cells: factor -> its runs.
        tolerance: how much worse than at the smallest factor the metric may be.
    """

    series: Any
    batch: int
    at: int
    cells: dict[int, Cell]
    tolerance: float

    @property
    def standing(self) -> Standing:
        """What its runs stand on."""
        return next(iter(self.cells.values())).standing

    @property
    def excess(self) -> dict[int, float | None]:
        """How much worse each factor's mean is than that of the smallest one; None where it is open.

        A factor whose runs diverged is worse without bound.
        """
        worth = {factor: self.cells[factor].worth() for factor in sorted(self.cells)}
        base = worth.get(1)
        if base is None or base == -float("inf"):
            return dict.fromkeys(worth)
        return {factor: None if value is None else base - value for factor, value in worth.items()}

    @property
    def factor(self) -> int | None:
        """The largest factor up to which every measured one stays within the tolerance; None: not even 1 is known."""
        known = None
        for factor, excess in self.excess.items():
            if excess is None or excess > self.tolerance:
                break
            known = factor
        return known

    @property
    def bounded(self) -> bool:
        """Whether a larger batch was found to be worse: otherwise the critical one may be larger than any measured."""
        later = [excess for factor, excess in self.excess.items() if self.factor is not None and factor > self.factor]
        return bool(later) and later[0] is not None

    def text(self) -> str:
        """Returns the critical batch in words."""
        if self.factor is None:
            return "open"
        return f"{'' if self.bounded else 'at least '}{self.batch * self.factor:,}"


def points(
    wanted: Mapping[str, Any], frame: Frame, *, series: str, metric: str, tolerance: float
) -> tuple[list[Point], list[Cell]]:
    """Returns the points, by optimizer, batch and epoch; and the cells of runs that may not be averaged.

    Args:
        wanted: setting -> value or values of the runs.
        frame: the records.
        series: the setting that the curves are of.
        metric: the figure at the end of a branch.
        tolerance: in the metric's unit.
    """
    runs = select(frame.runs, wanted)
    if runs.empty or POINT not in runs:
        return [], []
    runs = runs[runs[POINT].notna()]
    keys = [series, BATCH, *(key for key in _OF_BRANCH if key in runs), POINT, FACTOR]
    places: dict[tuple, dict[int, Cell]] = {}
    mixed = []
    for cell in make_cells(runs, keys, metric):
        if cell.differing:
            mixed.append(cell)
            continue
        place = (cell.standing, *(cell.key[key] for key in keys[:-1]))
        places.setdefault(place, {})[int(cell.key[FACTOR])] = cell
    found = [Point(place[1], int(place[2]), int(place[-1]), cells, tolerance) for place, cells in places.items()]
    return sorted(found, key=lambda one: (order(one.series), one.batch, one.at)), mixed


def factors(found: Sequence[Point]) -> list[int]:
    """Returns all factors that were tried."""
    return sorted({factor for one in found for factor in one.cells})
