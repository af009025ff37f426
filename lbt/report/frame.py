"""Records as one table: a row per run, a column per setting."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lbt import records
from lbt.config import NOT_IDENTITY


@dataclass
class Frame:
    """What the records hold.

    Attributes:
        runs: a row per run: the settings under their dotted names (`optimizer.name`, `batch`), and `id`, `experiment`,
            `status`, `epochs_done`, `fingerprint`, `origin`, `commit`, `torch`, `device`, `settings` (each setting that
            decides the numbers) and `summary`.
        problems: a line for each record that is left out, and why.
    """

    runs: pd.DataFrame
    problems: list[str]


def load(results_dir: str | Path) -> Frame:
    """Returns all records below `results_dir`; damaged ones and contradicting copies are named and left out."""
    rows: dict[str, dict[str, Any]] = {}
    problems, contradicted = [], set()
    for path in records.paths(results_dir):
        try:
            row = _row(records.read(path))
        except (records.RecordError, OSError, UnicodeDecodeError) as error:
            problems.append(str(error))
            continue
        known = rows.get(row["id"])
        if known is None:
            rows[row["id"]] = row
        elif _figures(known) != _figures(row):
            contradicted.add(row["id"])
            problems.append(f"{path}: differs from {known['path']}, which has the same id; both are left out")
    kept = [row for run_id, row in sorted(rows.items()) if run_id not in contradicted]
    return Frame(pd.DataFrame(kept), problems)


def _row(record: records.RunRecord) -> dict[str, Any]:
    config, made_by = record.run["config"], record.run["provenance"]
    flat = dict(flatten(config))
    return {
        **flat,
        "id": record.run["id"],
        "path": str(record.path),
        "experiment": record.path.parent.name,
        "status": record.status,
        "epochs_done": len(record.epochs),
        "fingerprint": made_by["data_fingerprint"],
        "origin": made_by["data"],
        "commit": (made_by.get("commit") or made_by["lbt"])[:10] + ("+changes" if made_by.get("dirty") else ""),
        "torch": made_by["torch"],
        "device": made_by["device_name"],
        # As in a run's id, a setting that is off is as good as absent: older records do not have it.
        "settings": {key: value for key, value in flat.items() if value and key.split(".")[0] not in NOT_IDENTITY},
        "summary": record.end["summary"] if record.end else {},
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
