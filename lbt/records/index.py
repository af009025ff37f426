"""What has been recorded already, by what a run is: for sweeps that leave finished runs alone, and for reports."""

import json
from collections.abc import Sequence
from pathlib import Path

from lbt import records
from lbt.config import Config
from lbt.errors import UserError
from lbt.identity import from_json, identity


def key(config: Config) -> str:
    """Returns a run's identity as a text; runs of one key on the same pixels are the same run."""
    return json.dumps(identity(config), sort_keys=True)


def by_key(results_dir: str | Path) -> dict[str, list[records.RunRecord]]:
    """Returns all records below `results_dir` under their `key`; several of one key stand on different pixels.

    Damaged records and those of another schema are passed over: `lbt tables` names them.
    """
    found: dict[str, list[records.RunRecord]] = {}
    for path in records.paths(results_dir):
        try:
            record = records.read(path)
            found.setdefault(key(from_json(record.run["config"])), []).append(record)
        except (records.RecordError, UserError, OSError, AttributeError, TypeError, KeyError):
            continue
    return found


def first_of_each(configs: Sequence[Config]) -> list[int]:
    """Returns the places of the runs of a grid, without those that repeat an earlier one.

    Where a setting has no effect (another optimizer's switch), several jobs of a Cartesian grid are one run.
    """
    seen: dict[tuple[str, str], int] = {}
    for place, config in enumerate(configs):
        seen.setdefault((key(config), str(config.results_dir)), place)
    return list(seen.values())
