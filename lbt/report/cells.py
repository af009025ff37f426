"""A table's cells: the runs that share one place in it, and what may be said of them."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

_STANDING = ("data", "model", "task", "epochs")  # groups of settings that all cells of one section share


@dataclass(frozen=True)
class Standing:
    """What a section's figures stand on: data, model, task and length; figures of two standings never share a table."""

    settings: str  # JSON
    origin: str
    fingerprint: str
    epochs: int

    def caption(self, cells: Sequence["Cell"]) -> str:
        """Returns the sentence that says so."""
        runs = pd.concat([cell.runs for cell in cells])

        def values(column: str) -> str:
            return ", ".join(sorted({str(value) for value in runs[column]}))

        return (
            f"{self.epochs} epochs of {values('model.name')} on {self.origin} (pixels {self.fingerprint}); "
            f"protocol {values('protocol.name')}; {values('precision')}; {values('device')}, torch {values('torch')}; "
            f"lbt {values('commit')}."
        )


@dataclass
class Cell:
    """The runs of one cell.

    Args:
        key: setting -> value, its place in the table.
        standing: what it stands on.
        runs: their rows of the frame.
        metric: name of the figure in a run's summary, in %.
    """

    key: dict[str, Any]
    standing: Standing
    runs: pd.DataFrame
    metric: str

    def __post_init__(self) -> None:
        done = self.runs[self.runs["status"] == "done"]
        found = [summary.get(self.metric) for summary in done["summary"]]
        self.values = [value for value in found if value is not None]
        self.statuses = Counter(self.runs["status"])
        self.differing = _differing(self.runs["settings"])

    def text(self) -> str:
        """Returns the cell as shown: mean and spread with n, and what else became of its runs."""
        if self.differing:
            return "mixed settings"
        others = [f"{count} {status}" for status, count in sorted(self.statuses.items()) if status != "done"]
        if not self.values:
            return ", ".join(others)
        spread = f" ± {statistics.stdev(self.values):.2f}" if len(self.values) > 1 else ""
        inside = ", ".join([f"n={len(self.values)}", *others])
        return f"{statistics.fmean(self.values):.2f}{spread} ({inside})"

    def notes(self) -> list[str]:
        """Returns why the cell shows no figure, where it has runs of more than one configuration."""
        if not self.differing:
            return []
        place = ", ".join(f"{key} {value}" for key, value in self.key.items())
        kinds = "; ".join(f"{key}: {' | '.join(map(str, values))}" for key, values in self.differing.items())
        return [f"mixed settings at {place}: {kinds}"]

    def figures(self) -> dict[str, Any]:
        """Returns the cell's columns of the CSV file."""
        values = [] if self.differing else self.values
        some = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)} if values else {}
        if len(values) > 1:
            some["sd"] = statistics.stdev(values)
        status = "mixed" if self.differing else " ".join(f"{name}:{n}" for name, n in sorted(self.statuses.items()))
        return {
            "n": len(values),
            **{name: f"{value:.4f}" for name, value in some.items()},
            "status": status,
            "origin": self.standing.origin,
            "fingerprint": self.standing.fingerprint,
            "epochs": self.standing.epochs,
            "runs": " ".join(sorted(self.runs["id"])),
        }


def make_cells(runs: pd.DataFrame, keys: Sequence[str], metric: str) -> list[Cell]:
    """Returns the cells of `runs`: one for each combination of `keys` and each standing, in a stable order."""
    if runs.empty:
        return []
    groups: dict[tuple, list[int]] = {}
    for position, (_, run) in enumerate(runs.iterrows()):
        standing = Standing(_standing(run["settings"], keys), run["origin"], run["fingerprint"], int(run["epochs"]))
        groups.setdefault((standing, tuple(run[key] for key in keys)), []).append(position)
    cells = [
        Cell(dict(zip(keys, place, strict=True)), standing, runs.iloc[positions], metric)
        for (standing, place), positions in groups.items()
    ]
    return sorted(cells, key=_order)


def _order(cell: Cell) -> tuple:
    # Kinds of values are kept apart: a text cannot be compared with a number.
    place = tuple((isinstance(value, str), value) for value in cell.key.values())
    return cell.standing.fingerprint, cell.standing.settings, place


def _standing(settings: dict[str, Any], keys: Sequence[str]) -> str:
    shared = {
        key: value
        for key, value in settings.items()
        if key.split(".")[0] in _STANDING and key not in keys and key != "data.root"
    }
    return json.dumps(shared, sort_keys=True, default=str)


def _differing(settings: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Returns the settings, other than the seed, in which runs differ."""
    settings = list(settings)
    names = {name for one in settings for name in one} - {"seed", "data.root"}
    values = {name: list({_comparable(one.get(name)): one.get(name) for one in settings}.values()) for name in names}
    return {name: found for name, found in sorted(values.items()) if len(found) > 1}


def _comparable(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
