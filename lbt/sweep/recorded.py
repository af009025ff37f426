"""What has been recorded, told by the records alone: `lbt status` and `lbt status NAME`."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from lbt.records import named
from lbt.records.variation import distinct, order, telling
from lbt.session.console import Page

SHOWN = ("optimizer.name", "batch", "lr")  # have a column whatever varies
NUMBERS = ("batch", "lr", "seed", "runs", "epochs")  # columns of numbers


def show_all(results_dir: str) -> int:
    """Prints under which names there are records, and what varies among them; returns the exit code.

    Raises:
        UserError: there is no such folder.
    """
    named.refuse_missing(results_dir)
    table = _table(("name", "runs", "states", "newest", "differ in"))
    found = named.names(results_dir)
    for name in found:
        runs, problems = _read(results_dir, name)
        settings = [run.settings for run in runs]
        varying = [f"{_short(key)} {len(distinct(settings, key))}" for key in [*telling(settings), *_seeds(settings)]]
        newest = max((run.started for run in runs), default="")[:16].replace("T", " ")
        count = str(len(runs) + len(problems))
        table.add_row(name, count, _counts(runs, problems), newest, ", ".join(varying))
    if not found:
        print(f"{results_dir}: no run is recorded yet")
        return 0
    page = Page()
    page.print(table)
    page.print(
        "lbt status NAME shows one's runs, lbt tables NAME and lbt plots NAME what they measured", highlight=False
    )
    return 0


def show(names: Sequence[str], results_dir: str) -> int:
    """Prints the state of each run under a name, and the counts; returns the exit code.

    Raises:
        UserError: nothing is recorded under one of the names.
    """
    named.refuse_missing(results_dir)
    for name in names:
        named.refuse_unknown(name, results_dir)
    page = Page()
    for name in names:
        runs, problems = _read(results_dir, name)
        settings = [run.settings for run in runs]
        keys = [*SHOWN, *telling(settings, SHOWN), *(_seeds(settings) or ["seed"])]
        table = _table((*map(_short, keys), "state", "epochs", "run"), title=name if len(names) > 1 else None)
        for run in sorted(runs, key=lambda run: [order(run.config.get(key)) for key in keys]):
            values = [_shown(run.config.get(key)) for key in keys]
            table.add_row(*values, run.status, f"{run.epochs}/{run.length}", run.id)
        page.print(table)
        page.print(f"{name}: {len(runs) + len(problems)} runs: {_counts(runs, problems)}", highlight=False)
    return 0


def _read(results_dir: str, name: str) -> tuple[list[named.Known], list[str]]:
    runs, problems = named.runs(results_dir, name)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return runs, problems


def _table(headers: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=title)
    for header in headers:
        table.add_column(header, justify="right" if header in NUMBERS else "left", overflow="fold")
    return table


def _seeds(settings: Sequence[dict[str, Any]]) -> list[str]:
    return ["seed"] if len(distinct(settings, "seed")) > 1 else []


def _counts(runs: Sequence[named.Known], problems: Sequence[str]) -> str:
    counts = sorted(Counter(run.status for run in runs).items())
    damaged = [f"{len(problems)} damaged"] if problems else []
    return ", ".join([*(f"{count} {status}" for status, count in counts), *damaged])


def _short(key: str) -> str:
    return key.removesuffix(".name") if key.endswith(".name") else key.rpartition(".")[2]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
