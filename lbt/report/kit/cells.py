"""A cell: the runs that share one place in a table or figure, and what may be said of them.

What is "the same run but for its seed" is decided here, for all reports, by the identity that a run's id is made of.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lbt.metrics import Metric, leading, metric_of
from lbt.records.variation import order
from lbt.report.kit.statistics import APART, LAST, chance, last_mean, value_of
from lbt.report.kit.wording import counted, mean_and_spread, stands_on

_COLUMNS = (
    "id", "path", "status", "settings", "summary", "curve", "seed", "steps_per_epoch", "data.name", "model.name",
    "network", "samples", "protocol.name", "precision", "device", "torch", "commit", "plugins", "origin", "fingerprint",
    "suspect", "classes", "data.classes", "test_images", "train_images", "data.val", "metrics",
)  # fmt: skip
_STANDING = (
    "data.",
    "model.",
    "task.",
    "epochs",
    "precision",
)  # what settings begin with that all cells of one section share


@dataclass(frozen=True)
class Standing:
    """What a section's figures stand on: data, model, task, length and precision; those of two never share a table."""

    settings: str  # JSON
    origin: str
    fingerprint: str
    epochs: int

    def caption(self, cells: Sequence["Cell"]) -> str:
        """Returns the sentence that says so."""

        def column(name: str) -> list:
            return [value for cell in cells for value in cell.column(name)]

        protocols = ", ".join(sorted(set(map(str, column("protocol.name")))))
        return stands_on(column, f"{self.epochs} epochs of", f"protocol {protocols}; ")

    def line(self, cells: Sequence["Cell"], *, protocol: bool = True) -> str:
        """Returns the line that says so in an image, with or without the protocol."""

        def values(name: str) -> str:
            return ", ".join(sorted({str(value) for cell in cells for value in cell.column(name)}))

        told = f"{self.epochs} epochs of {values('network')} on {self.origin}, {values('samples')} {self.fingerprint}; "
        return told + (f"protocol {values('protocol.name')}; " if protocol else "") + values("precision")


@dataclass
class Cell:
    """The runs of one cell.

    Its mean is over the finished runs; where others of them diverged, these are part of it with the accuracy of chance,
    and the text says so. A cell whose runs all diverged has no mean.

    Args:
        key: setting -> value, its place in the table.
        standing: what it stands on.
        rows: its runs, as dictionaries of the columns a report shows.
        name: of the figure in a run's summary.
        metric: what that figure is.
    """

    key: dict[str, Any]
    standing: Standing
    rows: list[dict[str, Any]] = field(repr=False)
    name: str
    metric: Metric

    def __post_init__(self) -> None:
        runs = self.rows
        found = [(run["status"], value_of(run, self.name)) for run in runs]
        finished = any(status == "done" and value is not None for status, value in found)
        self.values = [value for _, value in found if value is not None] if finished else []
        self.mean = statistics.fmean(self.values) if self.values else None
        self.statuses = Counter(run["status"] for run in runs)
        self.chance = chance(runs[0], self.name) if self.values else None
        self.differing = differing([run["settings"] for run in runs])
        self.last_mean = self._last_mean(runs) if self.values and set(self.statuses) == {"done"} else None

    def column(self, name: str) -> list:
        """Returns a column of its runs."""
        return [run[name] for run in self.rows]

    def text(self) -> str:
        """Returns the cell as shown: mean and spread with n, and what else became of its runs."""
        if self.differing:
            return "mixed settings"
        others = counted(self.statuses, self.chance)
        if not self.values:
            without = [f"{self.statuses['done']} done without {self.name}"] if self.statuses["done"] else []
            return ", ".join([*without, *others])
        return mean_and_spread(self.values, others, self.metric.number)

    def worth(self) -> float | None:
        """Returns what to compare it by, higher is better: -infinity where all its runs diverged, None if open."""
        if self.differing:
            return None
        if set(self.statuses) == {"diverged"}:
            return -math.inf
        return self.mean if self.mean is None or self.metric.higher_is_better else -self.mean

    def rank(self) -> tuple[bool, float]:
        """Returns what the best of several is chosen by: trained before open, and open before diverged."""
        worth = self.worth()
        return worth != -math.inf, -math.inf if worth is None else worth

    def _last_mean(self, runs: Sequence[dict[str, Any]]) -> float | None:
        """Returns the mean over the last epochs, where the runs' curves are of the cell's figure."""
        curves = [last_mean(run["curve"]) for run in runs if self.name == f"test_{leading(run['metrics'])}"]
        return statistics.fmean(curves) if curves and None not in curves else None

    def notes(self) -> list[str]:
        """Returns why the cell shows no figure (runs of several configurations), or how far its curves oscillate.

        They do where the last epoch and the mean of the last ones are more than `APART` points apart.
        """
        known = {key: value for key, value in self.key.items() if value is not None or key in self.differing}
        place = ", ".join(f"{key} {_exact(value)}" for key, value in known.items())
        if not self.differing:
            if self.last_mean is None or self.metric.unit != "%" or abs(self.last_mean - self.mean) <= APART:
                return []
            last, before = self.metric.number(self.mean), self.metric.number(self.last_mean)
            return [f"oscillates at {place}: last epoch {last}, mean of the last {LAST} epochs {before}"]
        kinds = "; ".join(f"{key}: {' against '.join(map(_exact, values))}" for key, values in self.differing.items())
        return [f"mixed settings at {place}: {kinds}"]

    def figures(self) -> dict[str, Any]:
        """Returns the cell's columns of the CSV file."""
        values = [] if self.differing else self.values
        some = {"mean": self.mean, "min": min(values), "max": max(values)} if values else {}
        if values and self.last_mean is not None:
            some["last5_mean"] = self.last_mean
        if len(values) > 1:
            some["sd"] = statistics.stdev(values)
        status = "mixed" if self.differing else " ".join(f"{name}:{n}" for name, n in sorted(self.statuses.items()))
        number = "{:.4f}" if self.metric.unit == "%" else "{:.7g}"
        return {
            "n": len(values),
            **{name: number.format(value) for name, value in some.items()},
            "status": status,
            "origin": self.standing.origin,
            "fingerprint": self.standing.fingerprint,
            "epochs": self.standing.epochs,
            "runs": " ".join(sorted(self.column("id"))),
        }


def make_cells(runs: pd.DataFrame, keys: Sequence[str], name: str) -> list[Cell]:
    """Returns the cells of `runs`: one for each combination of `keys` and each standing, in a stable order.

    Args:
        runs: of a frame.
        keys: settings.
        name: of the figure in a run's summary.
    """
    if runs.empty:
        return []
    groups: dict[tuple, list[int]] = {}
    known = zip(*(runs[column].tolist() for column in ("settings", "origin", "fingerprint", "epochs")), strict=True)
    places = zip(*(values(runs, key) for key in keys), strict=True)
    for position, ((settings, *origin), place) in enumerate(zip(known, places, strict=True)):
        groups.setdefault(((_standing(settings, keys), *origin), place), []).append(position)
    metric = metric_named(runs, name)
    rows = rows_of(runs, [column for column in _COLUMNS if column in runs])  # once: one by one they take long to make
    cells = []
    for (standing, place), positions in groups.items():
        own = [rows[position] for position in positions]
        key = dict(zip(keys, place, strict=True))
        cells.append(Cell(key, Standing(*standing), own, name, metric))
    return sorted(cells, key=_order)


def rows_of(runs: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Returns rows as dictionaries of some columns, in less time than `to_dict` takes for a few of many columns."""
    known = [runs[name].tolist() for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*known, strict=True)]


def metric_named(runs: pd.DataFrame, name: str) -> Metric:
    """Returns what a figure of the runs' summaries is, as their tasks declare it; of none, a percentage."""
    found = (metric_of(name, declared) for declared in runs.get("metrics", ()))
    return next((metric for metric in found if metric is not None), Metric(name, "%"))


def values(runs: pd.DataFrame, key: str) -> list:
    """Returns a setting's values, None where a run has none."""
    if key not in runs:
        return [None] * len(runs)
    return [None if missing else value for value, missing in zip(runs[key].tolist(), runs[key].isna(), strict=True)]


def _order(cell: Cell) -> tuple:
    return cell.standing.fingerprint, cell.standing.settings, tuple(map(order, cell.key.values()))


def _standing(settings: dict[str, Any], keys: Sequence[str]) -> str:
    shared = {key: value for key, value in settings.items() if key.startswith(_STANDING) and key not in keys}
    return json.dumps(shared, sort_keys=True, default=str)


def differing(settings: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Returns the settings in which runs differ besides their seeds, each with its values.

    Runs that differ in any are two configurations and are never averaged.

    Args:
        settings: of each run, `settings` of a frame: its identity. What is no part of a run's identity (device, CUDA
            graph) keeps no runs apart.
    """
    settings = list(settings)
    first = settings[0].items()
    names = {name for one in settings[1:] for name, _ in first ^ one.items()} - {"seed"}
    return {name: list(dict.fromkeys(one.get(name) for one in settings)) for name in sorted(names)}


def _exact(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
