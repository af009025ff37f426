"""How much of a grid exists: `lbt status +experiment=...`."""

import re
from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from lbt import build, records, runtime, sweep
from lbt.config import Config
from lbt.records import index, places
from lbt.session.console import Page

SHOWN = ("optimizer", "batch", "lr", "lr_rank", "protocol", "seed")  # settings that have a column of their own


def show(overrides: Sequence[str]) -> int:
    """Prints the state of every cell of a grid, and the counts; returns the exit code.

    Args:
        overrides: as for `lbt train -m`.
    """
    jobs = sweep.grid(overrides)
    configs = [runtime.settle(job.config, elsewhere=True) for job in jobs]
    build.validate(configs[0])
    states, others = find(configs), _others(jobs)
    table = Table()
    for header in (
        "optimizer",
        "batch",
        "lr",
        "protocol",
        "seed",
        *(["also"] if any(others) else []),
        "state",
        "epochs",
    ):
        side = "right" if header in ("batch", "lr", "seed", "epochs") else "left"
        table.add_column(header, justify=side, overflow="fold")
    for config, other, (state, epochs) in zip(configs, others, states, strict=True):
        row = [config.optimizer["name"], str(config.batch), f"{config.lr:g}", config.protocol["name"], str(config.seed)]
        table.add_row(*row, *([other] if any(others) else []), state, f"{epochs}/{config.length}")
    console = Page()
    console.print(table)
    counts = Counter(state for state, _ in states)
    console.print(f"{len(configs)} runs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0


def _others(jobs: Sequence[sweep.Job]) -> list[str]:
    """Returns what each job sets differently from another one, besides what the table shows anyway."""
    words = [[word for word in job.overrides if word.split("=")[0] not in SHOWN] for job in jobs]
    often = Counter(word for of_job in words for word in of_job)
    return [" ".join(re.sub(r"^[^=]*\.", "", word) for word in of_job if often[word] < len(jobs)) for of_job in words]


def find(configs: Sequence[Config]) -> list[tuple[str, int]]:
    """Returns the state and the recorded epochs of each run.

    States: a record's status, `running` where a process holds the run, `missing` where there is no record. A run counts
    whatever data it was made from (an official set, a copy): what its figures stand on is the tables' business.
    """
    known = {results_dir: index.by_key(results_dir) for results_dir in {config.results_dir for config in configs}}
    found = [_furthest(known[config.results_dir].get(index.key(config), [])) for config in configs]
    return [_state(record, config) for record, config in zip(found, configs, strict=True)]


def _furthest(same: Sequence[index.Entry]) -> index.Entry | None:
    """Returns the record that counts, of several copies of a run or of runs on different data."""
    return max(same, key=lambda entry: (entry.status in records.FINAL, entry.epochs), default=None)


def _state(entry: index.Entry | None, config: Config) -> tuple[str, int]:
    if entry is None:
        return "missing", 0
    if entry.status not in records.FINAL and places.held(places.lock_of(config.results_dir, entry.id)):
        return "running", entry.epochs
    return ("interrupted" if entry.status == "unfinished" else entry.status), entry.epochs
