"""How much of a grid exists: `lbt status +experiment=...`."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from lbt import build, checkpoint, records, runtime, sweep
from lbt.config import Config, from_json, identity


def show(overrides: Sequence[str]) -> int:
    """Prints the state of every cell of a grid, and the counts; returns the exit code."""
    configs = [runtime.settle(config) for config in sweep.grid(overrides)]
    build.validate(configs[0])
    states = find(configs)
    table = Table()
    for header in ("optimizer", "batch", "lr", "protocol", "seed", "state", "epochs"):
        table.add_column(header, justify="right" if header in ("batch", "lr", "seed", "epochs") else "left")
    for config, (state, epochs) in zip(configs, states, strict=True):
        row = (config.optimizer["name"], str(config.batch), f"{config.lr:g}", config.protocol["name"], str(config.seed))
        table.add_row(*row, state, f"{epochs}/{config.epochs}")
    console = Console()
    console.print(table)
    counts = Counter(state for state, _ in states)
    console.print(f"{len(configs)} runs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0


def find(configs: Sequence[Config]) -> list[tuple[str, int]]:
    """Returns the state and the recorded epochs of each run.

    States: a record's status, `running` where a process holds the run, `missing` where there is no record. A run counts
    whatever data it was made from (an official set, a copy): what its figures stand on is the tables' business.
    """
    known: dict[str, records.RunRecord] = {}
    for results_dir in {config.results_dir for config in configs}:
        for path in records.paths(results_dir):
            try:
                record = records.read(path)
                known[_key(from_json(record.run["config"]), results_dir)] = record
            except (records.RecordError, TypeError, KeyError):
                continue  # lbt tables names it
    return [_state(known.get(_key(config, config.results_dir)), config) for config in configs]


def _key(config: Config, results_dir: str) -> str:
    return json.dumps([identity(config), str(results_dir)], sort_keys=True)


def _state(record: records.RunRecord | None, config: Config) -> tuple[str, int]:
    if record is None:
        return "missing", 0
    if record.status not in records.FINAL and _held(checkpoint.lock_of(config.results_dir, record.run["id"])):
        return "running", len(record.epochs)
    return ("interrupted" if record.end is None else record.status), len(record.epochs)


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
