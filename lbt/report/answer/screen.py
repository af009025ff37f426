"""`lbt answer`: the answers on the console."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from lbt.errors import UserError
from lbt.records import named
from lbt.records.variation import order
from lbt.report import layout
from lbt.report.answer import Answer, answers
from lbt.report.claims.rules import NEEDED
from lbt.report.frame import load_or_refuse, select
from lbt.report.kit.cells import values
from lbt.report.kit.wording import setting

LEGEND = (
    "Favoured is the best mean where Welch's test decides it above every other optimizer that trains in all of its "
    f"runs, corrected by Holm's method for all pairs, from {NEEDED} runs a side on; a diverged run counts as chance."
)
FEW = 12  # values a mistake names
WORDS = {"true": True, "false": False, "null": None}


def show(words: Sequence[str], results_dir: str | Path) -> int:
    """Prints the answers of the runs with some settings, or of all; returns the exit code.

    Args:
        words: `batch=4096`, `data=cifar10,digits` (either), or the name of a sweep.
        results_dir: where results lie.

    Raises:
        UserError: no run has such a setting or value, or there is no such folder.
    """
    frame = load_or_refuse(results_dir)
    if frame.runs.empty:
        print(f"{results_dir}: no run is recorded yet")
        return 0
    found = answers(frame, chosen(words, frame.runs, results_dir))
    if not found:
        print("none of these runs has come to an end yet")
        return 0
    _print(found)
    return 0


def chosen(words: Sequence[str], runs: pd.DataFrame, results_dir: str | Path) -> dict[str, Any]:
    """Returns which runs are asked for, as `lbt.report.frame.select` takes it; raises as `show` does."""
    wanted: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            named.refuse_unknown(word, results_dir)
            wanted["experiment"] = [*wanted.get("experiment", []), word]
            continue
        key = "experiment" if name in ("name", "experiment") else layout.named(runs, name, "")
        wanted[key] = [_value(one) for one in text.split(",")]
        if select(runs, wanted).empty:
            others = select(runs, {other: value for other, value in wanted.items() if other != key})
            known = sorted(dict.fromkeys(values(others, key)), key=order)
            listed = ", ".join(map(setting, known[:FEW])) + (", ..." if len(known) > FEW else "")
            raise UserError(f"{word}: none of the runs has it; there {'are' if len(known) > 1 else 'is'} {listed}")
    return wanted


def _value(text: str) -> Any:
    """Returns a value as a record holds it."""
    if text in WORDS:
        return WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _print(found: Sequence[Answer]) -> None:
    from lbt.session.console import Page

    page = Page()
    for workload, of_workload in itertools.groupby(found, key=lambda one: one.workload):
        batches = list(of_workload)
        page.print(_table(workload, batches))
        for one in batches:
            page.print(f"batch {one.batch:,}: {one.sentence}", highlight=False, markup=False)
        page.print()
    decided = sum(one.favoured is not None for one in found)
    page.print(f"{decided} of {len(found)} decided. {LEGEND}", highlight=False, markup=False)


def _table(workload: str, found: Sequence[Answer]) -> Table:
    table = Table(title=Text(workload), title_justify="left")
    for header in ("batch", "favoured", "ahead by", "tuning", "verdict"):
        table.add_column(header, justify="right" if header in ("batch", "ahead by") else "left", overflow="fold")
    for one in found:
        margin = "-" if one.margin is None else f"{one.margin:.2f} {one.unit}"
        table.add_row(*map(Text, (f"{one.batch:,}", one.favoured or "-", margin, one.effort, one.verdict)))
    return table
