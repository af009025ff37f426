"""The audit of the TVLARS paper: each difference between text and released code, and what it measurably does alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lbt.config import groups
from lbt.errors import UserError
from lbt.records import replace_file
from lbt.report import overview
from lbt.report.frame import flatten, load
from lbt.report.switch_effects import BASE, CONFIDENCE, Comparison, comparisons

PLACE, PLACED = ("optimizer", "batch", "peak rate", "epochs"), ("---", "---:", "---:", "---:")  # of `Comparison.place`

INTRODUCTION = f"""\
# The TVLARS paper and its released code: one difference at a time

Do et al., *Revisiting LARS for Large Batch Training Generalization of Neural Networks*, arXiv 2309.14053: what the text
says, what the authors' released code computes, and what each difference does when it is switched on alone, starting
from `protocol=paper`. Each has an `audit=` switch (`configs/audit`); `protocol=released` switches on those of rows 1 to
10 and 14 to 16 together.

A difference is the mean accuracy on the test set with the switch minus that without, in percentage points, over the
seeds that trained to the end, with Welch's {CONFIDENCE:.0%} interval; one seed on a side has no interval. Runs that
diverged are counted, not averaged. The peak rate is that without the switch. Of intervals without an effect, one in
twenty excludes 0 by chance. The audited runs are short: the effect on a training of 100 epochs may differ. Where their
lambda is not 0.001, lambda times the number of updates is that of 100 epochs with 0.001. Made by `lbt audit`.
"""


def write(results_dir: str | Path) -> int:
    """Writes `<results_dir>/AUDIT.md` and returns the exit code.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(results_dir).is_dir():
        raise UserError(f"{results_dir}: no such folder; lbt train writes one, --results-dir names another")
    path = Path(results_dir) / "AUDIT.md"
    replace_file(path, markdown(results_dir).encode())
    overview.write(results_dir)
    print(path)
    return 0


def markdown(results_dir: str | Path) -> str:
    """Returns the page: every row of `configs/audit`, and what the records below `results_dir` say of it."""
    runs = load(results_dir).runs
    compared = comparisons(runs)
    names = [name for name in groups.choices("audit") if name != BASE]
    parts = [INTRODUCTION, *_standing(compared), *_overview(names, compared)]
    for name in names:
        parts += [*_row(name, compared.get(name, [])), ""]
    return "\n".join(parts).rstrip() + "\n"


def _standing(compared: dict[str, list[Comparison]]) -> list[str]:
    """Returns a line for each length of run, which says what its figures stand on."""
    by_length: dict[int, dict[str, pd.Series]] = {}
    for line in [line for lines in compared.values() for line in lines]:
        runs = {run["id"]: run for run in [*line.base.runs, *line.switched.runs]}
        by_length.setdefault(line.epochs, {}).update(runs)
    found = [_stand(epochs, list(runs.values())) for epochs, runs in sorted(by_length.items()) if runs]
    return [*(found or ["Nothing has been measured yet."]), ""]


def _stand(epochs: int, runs: Sequence[pd.Series]) -> str:
    def values(column: str) -> str:
        return ", ".join(sorted({str(run[column]) for run in runs}))

    lam = sorted({f"{run['optimizer.lam']:g}" for run in runs if pd.notna(run.get("optimizer.lam"))})
    of_tvlars = f"lambda of TVLARS {', '.join(lam)}; " if lam else ""
    return (
        f"- {len(runs)} runs of {epochs} epochs, {values('model.name')} on {values('origin')} (pixels "
        f"{values('fingerprint')}); {of_tvlars}{values('precision')}; "
        f"{values('device')}, torch {values('torch')}; lbt {values('commit')}."
    )


def _about(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a switch is about and the settings it changes."""
    settings: dict[str, Any] = groups.load("audit", name)
    return settings.pop("audit"), settings


def _overview(names: Sequence[str], compared: dict[str, list[Comparison]]) -> list[str]:
    """Returns a table with a line for each effect that has been measured."""
    cells = []
    for name in names:
        about, _ = _about(name)
        lines = [line for line in compared.get(name, []) if line.base.runs and line.switched.runs]
        cells += [[f"{about['row']}. {about['title']}", *line.place(), line.said()] for line in lines]
    if not cells:
        return []
    header = ["difference of the released code", *PLACE, f"effect, points [{CONFIDENCE:.0%}]"]
    return ["## At a glance", "", *_table(header, ["---", *PLACED, "---"], cells), ""]


def _table(header: list[str], aligned: list[str], rows: Sequence[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)]


def _row(name: str, lines: Sequence[Comparison]) -> list[str]:
    about, settings = _about(name)
    texts = [
        f"## {about['row']}. {about['title']}",
        "",
        f"- The paper: {about['paper']}.",
        f"- The released code: {about['released']}.",
        f"- Predicted effect: {about['predicted']}.",
    ]
    if not settings:
        return [*texts, f"- No switch: {about['documented']}."]
    alone = ", ".join(f"`{key}={'null' if value is None else _yaml(value)}`" for key, value in flatten(settings))
    texts += [f"- `audit={name}` ({alone}): {about['switch']}."]
    begun = {line.experiment for line in lines if line.switched.runs}
    measured = [line for line in lines if line.experiment in begun]
    left = sorted({line.experiment for line in lines} - begun)
    if left or not lines:
        commands = ", ".join(f"`lbt train -m +experiment={experiment}`" for experiment in left)
        texts += [f"- {'Still to run' if measured else 'Not measured yet'}: {commands or 'no experiment has it'}."]
    if not measured:
        return texts
    several = len({line.fingerprint for line in measured if line.fingerprint}) > 1
    header = [*PLACE, "without", "with", f"difference, points [{CONFIDENCE:.0%}]"]
    aligned = [*PLACED, "---:", "---:", "---"]
    rows = [
        [*line.place(), line.base.text(), line.switched.text(), line.said(), *([line.fingerprint] if several else [])]
        for line in measured
    ]
    return [*texts, "", *_table(header + ["pixels"] * several, aligned + ["---"] * several, rows)]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
