"""The audit of the TVLARS paper: each difference between text and released code, and what it measurably does alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lbt.errors import UserError
from lbt.records import replace_file
from lbt.records.variation import flatten
from lbt.report import overview
from lbt.report.audit import effects, scored_images
from lbt.report.audit.switch_effects import BASE, Comparison, comparisons
from lbt.report.frame import Frame, load_or_refuse
from lbt.report.kit import render, specs
from lbt.report.kit.statistics import LEVEL
from lbt.report.kit.wording import stands_on

GROUP = "audit"  # of the switches
PLACE, PLACED = ("optimizer", "batch", "peak rate", "epochs"), ("---", "---:", "---:", "---:")  # of `Comparison.place`

INTRODUCTION = f"""\
# The TVLARS paper and its released code: one difference at a time

Do et al., *Revisiting LARS for Large Batch Training Generalization of Neural Networks*, arXiv 2309.14053: what the text
says, what the authors' released code computes, and what each difference does when it is switched on alone, starting
from `protocol=paper`. Each has an `audit=` switch (`configs/audit`); `protocol=released` switches on those of rows 1 to
10, 14 to 16 and 21 to 23 together, and the divisor of row 17 in Barlow Twins.

A difference is the mean accuracy on the test set with the switch minus that without, in percentage points, over the
seeds. A run that diverged counts as guessing (100/classes %) in every mean. Rows of one experiment share their base, so
their intervals are Dunnett's at {LEVEL:.0%}, from the variance pooled over base and rows: without any effect, one of
all the rows with one base excludes 0 in one case of twenty. They assume that all sides vary alike, which few seeds
cannot test; a side of one seed has no interval. Runs that do not train (diverged, or no more than three binomial
standard errors above guessing) have no part in it, and being above them is no gain. A row that scores a part of the
images is no effect on the training: it is shown beside the sampling error of that part. The peak rate is that without
the switch. The audited runs are short: the effect on a training of 100 epochs may differ. Where their lambda is not
0.001, lambda times the number of updates is that of 100 epochs with 0.001; delay and warm-up are
as much shorter. Made by `lbt audit`.
"""


def write(results_dir: str | Path) -> int:
    """Writes `<results_dir>/AUDIT.md` and `tables/tvlars_audit.csv`, and returns the exit code.

    Raises:
        UserError: there is no such folder.
    """
    frame = load_or_refuse(results_dir)
    path, folder = Path(results_dir) / "AUDIT.md", Path(results_dir) / "tables"
    compared = comparisons(frame.runs)
    replace_file(path, markdown(frame, compared).encode())
    titles = {name: (about["row"], about["title"]) for name in rows() for about in [_about(name)[0]]}
    folder.mkdir(exist_ok=True)
    replace_file(folder / f"{effects.NAME}.csv", effects.csv(titles, compared).encode())
    overview.write(results_dir)
    print(path)
    return 0


def rows() -> list[str]:
    """Returns the names of the switches."""
    return [name for name in specs.names(GROUP) if name != BASE]


def markdown(frame: Frame, compared: dict[str, list[Comparison]] | None = None) -> str:
    """Returns the page: every row of `configs/audit`, what the records say of it, and those that are left out."""
    compared = comparisons(frame.runs) if compared is None else compared
    names = rows()
    parts = [INTRODUCTION, *_standing(compared), *_overview(names, compared)]
    for name in names:
        parts += [*_row(name, compared.get(name, [])), ""]
    parts += scored_images.section()
    parts += render.markdown_list([f"left out: {problem}" for problem in frame.problems])
    return "\n".join(parts).rstrip() + "\n"


def _standing(compared: dict[str, list[Comparison]]) -> list[str]:
    """Returns a line for each length of run, which says what its figures stand on."""
    by_length: dict[int, dict[str, pd.Series]] = {}
    for line in [line for lines in compared.values() for line in lines]:
        runs = {run["id"]: run for run in [*line.base.runs, *line.switched.runs]}
        by_length.setdefault(line.epochs, {}).update(runs)
    found = [_stand(epochs, list(runs.values())) for epochs, runs in sorted(by_length.items()) if runs]
    return [*(render.markdown_list(found) or ["Nothing has been measured yet."]), ""]


def _stand(epochs: int, runs: Sequence[pd.Series]) -> str:
    scaled = {
        "optimizer.lam": "lambda of TVLARS {}",
        "optimizer.delay_epochs": "its delay {} epochs",
        "schedule.warmup": "warm-up {} epochs",
    }
    told = ""
    for name, text in scaled.items():
        if known := sorted({run[name] for run in runs if pd.notna(run.get(name)) and run[name]}):
            told += text.format(", ".join(f"{value:g}" for value in known)) + "; "
    return stands_on(lambda column: (run[column] for run in runs), f"{len(runs)} runs of {epochs} epochs,", told)


def _about(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a switch is about and the settings it changes."""
    found = specs.read(GROUP, name)
    settings = {key: value for key, value in found.items() if key != "audit"}
    about = found.get("audit") or {}
    for key in ("row", "title", "paper", "released", "predicted", "switch" if settings else "documented"):
        if key not in about:
            raise UserError(f"audit {name}: audit.{key} is missing")
    return about, settings


def _overview(names: Sequence[str], compared: dict[str, list[Comparison]]) -> list[str]:
    """Returns a table with a line for each effect that has been measured."""
    cells = []
    for name in names:
        about, _ = _about(name)
        lines = [line for line in compared.get(name, []) if line.base.runs and line.switched.runs]
        cells += [[f"{about['row']}. {about['title']}", *line.place(), line.said()] for line in lines]
    if not cells:
        return []
    header = ["difference of the released code", *PLACE, f"effect, points [{LEVEL:.0%}]"]
    return ["## At a glance", "", *render.markdown_table(header, cells, ["---", *PLACED, "---"]), ""]


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
    kinds = {name: {getattr(line, name) for line in measured} - {""} for name in ("fingerprint", "precision")}
    apart = [name for name, known in kinds.items() if len(known) > 1]
    header = [*PLACE, "without", "with", f"difference, points [{LEVEL:.0%}]"]
    header += ["pixels" if name == "fingerprint" else name for name in apart]
    aligned = [*PLACED, "---:", "---:", "---", *["---"] * len(apart)]
    rows = [
        [*line.place(), line.base.text(), line.switched.text(), line.said(), *(getattr(line, name) for name in apart)]
        for line in measured
    ]
    return [*texts, "", *render.markdown_table(header, rows, aligned)]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
