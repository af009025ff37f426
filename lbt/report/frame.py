"""Records as one table: a row per run, a column per setting."""

import gc
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lbt import records
from lbt.errors import UserError
from lbt.identity import identity_of
from lbt.records.consistency import contradiction
from lbt.tasks import metrics


@dataclass
class Frame:
    """What the records hold.

    Attributes:
        runs: a row per run: the settings under their dotted names (`optimizer.name`, `batch`), and `id`, `path`,
            `experiment`, `folders` (the experiments of all its copies), `status`, `epochs_done`, `fingerprint`,
            `origin`, `commit`, `torch`, `device`, `steps_per_epoch`, `warmed_up` (whether the schedule has a warm-up),
            `settings` (the identity that its id is made of, by dotted names), `metrics` (what its task declares),
            `summary` and `curve` (the task's leading metric on the test set after each epoch, for images the accuracy
            in %; NaN where there is none).
        problems: a line for each record that is left out, and why.
    """

    runs: pd.DataFrame
    problems: list[str]


def load(results_dir: str | Path) -> Frame:
    """Returns all records below `results_dir`.

    Left out and named are damaged records, those that contradict themselves (`lbt.records.consistency`), and finished
    ones of one id with different figures.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing here refers to itself, and the collector would walk through all rows again and again
    try:
        return _load(results_dir)
    finally:
        if collecting:
            gc.enable()


def load_or_refuse(results_dir: str | Path) -> Frame:
    """Returns the records, having named on stderr those that are left out.

    Raises:
        UserError: there is no such folder.
    """
    refuse_missing(results_dir)
    frame = load(results_dir)
    for problem in frame.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return frame


def refuse_missing(results_dir: str | Path) -> None:
    """Raises a `UserError` where there is no such folder."""
    if not Path(results_dir).is_dir():
        raise UserError(f"{results_dir}: no such folder; lbt train writes one, --results-dir names another")


def _load(results_dir: str | Path) -> Frame:
    rows: dict[str, dict[str, Any]] = {}
    problems, contradicted = [], set()
    for path in records.paths(results_dir):
        try:
            record = records.read(path)
            problem = contradiction(record)
            row = {} if problem else _row(record)
        except (records.RecordError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error!r}")
            continue
        if problem:
            problems.append(f"{path}: {problem}")
            continue
        known = rows.setdefault(row["id"], row)
        row["folders"] = known["folders"] = known["folders"] | row["folders"]
        if known["status"] not in records.FINAL:
            rows[row["id"]] = row  # left behind where the run was broken off, and finished elsewhere
        elif row["status"] in records.FINAL and _figures(known) != _figures(row):
            contradicted.add(row["id"])
            problems.append(f"{path}: differs from {known['path']}, which has the same id; both are left out")
    kept = [row for run_id, row in sorted(rows.items()) if run_id not in contradicted]
    return Frame(pd.DataFrame(kept), problems)


def _row(record: records.RunRecord) -> dict[str, Any]:
    config, made_by = record.run["config"], record.run["provenance"]
    flat, declared = dict(flatten(config)), metrics.of_record(record.run)
    curve = f"test_{metrics.leading(declared)}"
    return {
        **flat,
        "id": record.run["id"],
        "path": str(record.path),
        "experiment": record.path.parent.name,
        "folders": frozenset({record.path.parent.name}),
        "status": record.status,
        "epochs_done": len(record.epochs),
        "fingerprint": made_by["data_fingerprint"],
        "origin": made_by["data"],
        "commit": (made_by.get("commit") or made_by["lbt"])[:10] + ("+changes" if made_by.get("dirty") else ""),
        "torch": made_by["torch"],
        "device": made_by["device_name"],
        "steps_per_epoch": made_by.get("steps_per_epoch"),
        "warmed_up": bool(config["schedule"].get("warmup")),
        "settings": dict(flatten(identity_of(config))),
        "metrics": declared,
        "summary": record.end["summary"] if record.end else {},
        "curve": np.array([line.get(curve) for line in record.epochs], dtype=float),
    }


def _figures(row: dict[str, Any]) -> tuple:
    summary = {key: value for key, value in row["summary"].items() if not key.startswith("wall_")}
    return row["status"], summary


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yields (dotted name, value); lists become tuples, so that values can be compared and counted."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value


def select(runs: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the runs whose settings have the wanted values.

    Args:
        runs: of a `Frame`.
        wanted: setting -> value; a list means any of them, null that the setting is absent or off by null, and a text
            may hold shell patterns (`fig*`). A run is of every experiment in whose folder a copy of it lies.
    """
    chosen = np.ones(len(runs), dtype=bool)
    for key, values in wanted.items():
        values = values if isinstance(values, list) else [values]
        if key == "experiment" and key in runs:
            chosen &= [any(fnmatch(name, one) for name in names for one in values) for names in runs["folders"]]
        elif key in runs:
            chosen &= _any_of(runs[key], values)
        elif None not in values:
            return runs.iloc[:0]
    return runs[chosen]


def _any_of(known: pd.Series, values: list[Any]) -> np.ndarray:
    patterns = [value for value in values if isinstance(value, str) and "*" in value]
    values = [*values, *[text for text in known.unique() if any(fnmatch(str(text), one) for one in patterns)]]
    found = known.isin([value for value in values if value is not None])
    return (found | known.isna() if None in values else found).to_numpy()
