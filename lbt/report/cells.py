"""A table's cells: the runs that share one place in it, and what may be said of them."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

_COLUMNS = (
    "id", "path", "status", "settings", "summary", "curve", "seed", "steps_per_epoch", "data.name", "model.name",
    "protocol.name", "precision", "device", "torch", "commit",
)  # fmt: skip
_MAY_DIFFER = ("seed", "data.root")
_STANDING = ("data.", "model.", "task.", "epochs")  # what settings begin with that all cells of one section share


@dataclass(frozen=True)
class Standing:
    """What a section's figures stand on: data, model, task and length; figures of two standings never share a table."""

    settings: str  # JSON
    origin: str
    fingerprint: str
    epochs: int

    def caption(self, cells: Sequence["Cell"]) -> str:
        """Returns the sentence that says so."""

        def values(column: str) -> str:
            return ", ".join(sorted({str(value) for cell in cells for value in cell.runs[column]}))

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
        runs: their rows of the frame, with the columns a report shows.
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
        self.mean = statistics.fmean(self.values) if self.values else None
        self.statuses = Counter(self.runs["status"])
        self.differing = _differing(self.runs["settings"])

    def text(self) -> str:
        """Returns the cell as shown: mean and spread with n, and what else became of its runs."""
        if self.differing:
            return "mixed settings"
        others = [f"{count} {status}" for status, count in sorted(self.statuses.items()) if status != "done"]
        if not self.values:
            without = [f"{self.statuses['done']} done without {self.metric}"] if self.statuses["done"] else []
            return ", ".join([*without, *others])
        spread = f" ± {statistics.stdev(self.values):.2f}" if len(self.values) > 1 else ""
        inside = ", ".join([f"n={len(self.values)}", *others])
        return f"{self.mean:.2f}{spread} ({inside})"

    def worth(self) -> float | None:
        """Returns what to compare it by: its mean, -infinity where all its runs diverged, None where it is open."""
        if self.differing:
            return None
        diverged = set(self.statuses) == {"diverged"}
        return -math.inf if diverged else self.mean

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
        some = {"mean": self.mean, "min": min(values), "max": max(values)} if values else {}
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
    kept = runs[[column for column in _COLUMNS if column in runs]]  # a run has some 80, and taking rows copies them
    known = zip(*(runs[column].tolist() for column in ("settings", "origin", "fingerprint", "epochs")), strict=True)
    places = zip(*(_values(runs, key) for key in keys), strict=True)
    for position, ((settings, *origin), place) in enumerate(zip(known, places, strict=True)):
        groups.setdefault(((_standing(settings, keys), *origin), place), []).append(position)
    cells = [
        Cell(dict(zip(keys, place, strict=True)), Standing(*standing), kept.iloc[positions], metric)
        for (standing, place), positions in groups.items()
    ]
    return sorted(cells, key=_order)


def _values(runs: pd.DataFrame, key: str) -> list:
    """Returns a setting's values, None where a run has none."""
    if key not in runs:
        return [None] * len(runs)
    return [None if missing else value for value, missing in zip(runs[key].tolist(), runs[key].isna(), strict=True)]


def _order(cell: Cell) -> tuple:
    # Kinds of values are kept apart: a text cannot be compared with a number, nor either with nothing.
    place = tuple((value is not None, isinstance(value, str), value or 0) for value in cell.key.values())
    return cell.standing.fingerprint, cell.standing.settings, place


def _standing(settings: dict[str, Any], keys: Sequence[str]) -> str:
    shared = {
        key: value
        for key, value in settings.items()
        if key.startswith(_STANDING) and key not in keys and key != "data.root"
    }
    return json.dumps(shared, sort_keys=True, default=str)


def _differing(settings: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Returns the settings, other than the seed, in which runs differ."""
    settings = list(settings)
    first = settings[0].items()
    names = {name for one in settings[1:] for name, _ in first ^ one.items()}
    values = {name: list({_comparable(one.get(name)): one.get(name) for one in settings}.values()) for name in names}
    return {name: found for name, found in sorted(values.items()) if len(found) > 1 and name not in _MAY_DIFFER}


def _comparable(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
