"""What has been recorded already, by what a run is: for sweeps that leave finished runs alone, and for reports."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lbt import records
from lbt.config import Config
from lbt.files import read_regular
from lbt.identity import identity
from lbt.records import index_cache
from lbt.records.index_cache import Entry
from lbt.records.seeds import identity_as_understood


def key(config: Config) -> str:
    """Returns a digest of a run's identity; runs of one key on the same pixels are the same run."""
    return _digest(identity(config))


def _digest(identity_of_run: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity_of_run, sort_keys=True).encode()).hexdigest()[:32]


def by_key(results_dir: str | Path) -> dict[str, list[Entry]]:
    """Returns all records below `results_dir` under their `key`; several of one key stand on different pixels.

    Damaged records and those of another schema are passed over: `lbt tables` names them. Of a record that has not
    changed since the last look nothing is read but its size and times.
    """
    known, read = index_cache.load(results_dir), 0
    found: dict[str, Entry] = {}
    for path in records.paths(results_dir):
        name = f"{path.parent.name}/{path.name}"
        try:
            state = index_cache.state_of(path)
            entry = known.get(name)
            if entry is None or entry.state != state:
                read += 1
                entry = _entry(path, state)
        except Exception:  # what a file may hold is not known
            continue
        found[name] = entry
    index_cache.save(results_dir, found, read)
    groups: dict[str, list[Entry]] = {}
    for entry in found.values():
        groups.setdefault(entry.key, []).append(entry)
    return groups


def key_of(config: Mapping[str, Any]) -> str:
    """Returns the `key` of a record's settings, as this version understands them.

    Raises:
        UserError: settings that this version does not know.
    """
    return _digest(identity_as_understood(config))


def _entry(path: Path, state: Sequence[int]) -> Entry:
    run, epochs, end = records.outline(path, read_regular(path))
    status, summary = (end["status"], end["summary"]) if end else ("unfinished", {})
    key_of_run = key_of(run["config"])
    probes = list(run["config"].get("probes") or [])
    plugins = run.get("provenance", {}).get("plugins", [])
    return Entry(path, tuple(state), run["id"], key_of_run, status, epochs, summary, probes, plugins)


def first_of_each(configs: Sequence[Config]) -> list[int]:
    """Returns the places of the runs of a grid, without those that repeat an earlier one.

    Where a setting has no effect (another optimizer's switch), several jobs of a Cartesian grid are one run.
    """
    seen: dict[tuple[str, str], int] = {}
    for place, config in enumerate(configs):
        seen.setdefault((key(config), str(config.results_dir)), place)
    return list(seen.values())
