"""The audit of the TVLARS paper: each difference between text and released code, and what it measurably does alone."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lbt import sweep
from lbt.config import CONFIG_DIR, Config, identity, run_id
from lbt.errors import UserError
from lbt.records import replace_file
from lbt.report import overview
from lbt.report.claims import Difference
from lbt.report.frame import flatten, load

SWITCHES = CONFIG_DIR / "audit"
EXPERIMENTS = "tvlars_audit*"  # whose grids compare `audit=none` with one row at a time
BASE = "none"
CONFIDENCE = 0.95
METRIC = "test_accuracy"

INTRODUCTION = f"""\
# The TVLARS paper and its released code: one difference at a time

Do et al., *Revisiting LARS for Large Batch Training Generalization of Neural Networks*, arXiv 2309.14053: what the text
says, what the authors' released code computes, and what each difference does when it is switched on alone, starting
from `protocol=paper`. Each has an `audit=` switch (`configs/audit`); `protocol=released` switches on those of rows 1 to
10 and 14 to 16 together.

A difference is the mean accuracy on the test set with the switch minus that without, in percentage points, over the
seeds that trained to the end, with Welch's {CONFIDENCE:.0%} interval; one seed on a side has no interval. Runs that
diverged are counted, not averaged. Of intervals without an effect, one in twenty excludes 0 by chance.
The audited runs are short: the effect on a training of 100 epochs may differ. Made by `lbt audit`.
"""


@dataclass
class Side:
    """The runs of one optimizer and batch, with or without a switch.

    Args:
        runs: their rows of the frame.
    """

    runs: list[pd.Series] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """Accuracies, in %, of those that trained to the end."""
        found = [run["summary"].get(METRIC) for run in self.runs if run["status"] == "done"]
        return [value for value in found if value is not None]

    @property
    def diverged(self) -> int:
        """How many of them diverged."""
        return sum(run["status"] == "diverged" for run in self.runs)

    def text(self) -> str:
        """Returns mean, spread and n, and what else became of the runs."""
        others = Counter(run["status"] for run in self.runs if run["status"] != "done")
        texts = [f"{count} {status}" for status, count in sorted(others.items())]
        if not self.values:
            return ", ".join(texts) or "-"
        spread = f" ± {statistics.stdev(self.values):.2f}" if len(self.values) > 1 else ""
        return f"{statistics.fmean(self.values):.2f}{spread} ({', '.join([f'n={len(self.values)}', *texts])})"


@dataclass(frozen=True)
class Effect:
    """Difference of mean accuracy, switched minus base, in percentage points; `low` and `high` bound its interval."""

    difference: float
    low: float | None = None
    high: float | None = None

    def text(self) -> str:
        """Returns the difference and what may be said of it."""
        if self.low is None:
            return f"{self.difference:+.2f} (n too small for an interval)"
        found = "higher" if self.low > 0 else "lower" if self.high < 0 else "no effect shown"
        return f"{self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]: {found}"


def effect(base: Sequence[float], switched: Sequence[float]) -> Effect | None:
    """Returns the difference of the means with Welch's interval, or None where a side has no value.

    Args:
        base: accuracies without the switch, in %.
        switched: those with it.
    """
    if not base or not switched:
        return None
    found = Difference("", switched, base, CONFIDENCE)
    return Effect(found.mean, *(found.interval or ()))


@dataclass(frozen=True)
class Comparison:
    """One line of a row's table: an optimizer at a batch on the same pixels, without and with the switch."""

    experiment: str
    optimizer: str
    batch: int
    fingerprint: str
    base: Side
    switched: Side

    def cells(self) -> list[str]:
        """Returns the line's cells."""
        if not self.base.runs or not self.switched.runs:
            said = "not measured yet"
        else:
            found = effect(self.base.values, self.switched.values)
            said = "no means to compare" if found is None else found.text()
            if self.base.diverged or self.switched.diverged:
                said += f"; diverged: {self.base.diverged} of {len(self.base.runs)} without, "
                said += f"{self.switched.diverged} of {len(self.switched.runs)} with"
        return [self.optimizer, f"{self.batch:,}", self.base.text(), self.switched.text(), said]


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
    parts = [INTRODUCTION, *_standing(compared)]
    for name in sorted(path.stem for path in SWITCHES.glob("*.yaml") if path.stem != BASE):
        parts += [*_row(name, compared.get(name, [])), ""]
    return "\n".join(parts).rstrip() + "\n"


def comparisons(runs: pd.DataFrame) -> dict[str, list[Comparison]]:
    """Returns each switch's comparisons: one for every optimizer and batch of the audit's grids, and data set.

    A switch that has no effect on an optimizer has no comparison there: its run is the one without the switch.
    """
    by_id = {run["id"]: run for _, run in runs.iterrows()}
    fingerprints = sorted({run["fingerprint"] for run in by_id.values()})
    found: dict[str, list[Comparison]] = {}
    for experiment in sorted(path.stem for path in (CONFIG_DIR / "experiment").glob(f"{EXPERIMENTS}.yaml")):
        sides = _grid(experiment)
        for (switch, optimizer, batch), configs in sides.items():
            if switch == BASE:
                continue
            both = [
                (mark, _side(sides[BASE, optimizer, batch], mark, by_id), _side(configs, mark, by_id))
                for mark in fingerprints
            ]
            both = [one for one in both if one[1].runs or one[2].runs] or [("", Side(), Side())]
            lines = [Comparison(experiment, optimizer, batch, *one) for one in both]
            found.setdefault(switch, []).extend(lines)
    return {switch: sorted(lines, key=lambda line: (line.optimizer, line.batch)) for switch, lines in found.items()}


@cache
def _grid(experiment: str) -> dict[tuple[str, str, int], list[Config]]:
    """Returns the runs of an experiment by switch, optimizer and batch."""
    sides: dict[tuple, list[Config]] = {}
    for job in sweep.grid([f"+experiment={experiment}"]):
        (switch,) = [text.removeprefix("audit=") for text in job.overrides if text.startswith("audit=")]
        sides.setdefault((switch, job.config.optimizer["name"], job.config.batch), []).append(job.config)
    return sides


def _side(configs: Sequence[Config], fingerprint: str, by_id: dict[str, pd.Series]) -> Side:
    names = [run_id(identity(config), fingerprint) for config in configs]
    return Side([by_id[name] for name in names if name in by_id])


def _standing(compared: dict[str, list[Comparison]]) -> list[str]:
    """Returns the sentence that says what the measured figures stand on."""
    lines = [line for lines in compared.values() for line in lines]
    runs = {run["id"]: run for line in lines for run in [*line.base.runs, *line.switched.runs]}.values()
    if not runs:
        return ["Nothing has been measured yet.", ""]

    def values(column: str) -> str:
        return ", ".join(sorted({f"{run[column]:g}" if column == "epochs" else str(run[column]) for run in runs}))

    return [
        f"Measured so far: {len(runs)} runs of {values('epochs')} epochs, {values('model.name')} on {values('origin')} "
        f"(pixels {values('fingerprint')}); {values('precision')}; {values('device')}, torch {values('torch')}; "
        f"lbt {values('commit')}.",
        "",
    ]


def _row(name: str, lines: Sequence[Comparison]) -> list[str]:
    settings: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(SWITCHES / f"{name}.yaml"), resolve=False)
    about = settings.pop("audit")
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
    if not any(line.switched.runs for line in lines):
        places = ", ".join(sorted({f"`lbt train -m +experiment={line.experiment}`" for line in lines}))
        return [*texts, f"- Measured effect: not measured yet; {places or 'no experiment has it'}."]
    several = len({line.fingerprint for line in lines if line.fingerprint}) > 1
    header = ["optimizer", "batch", "without", "with", f"difference, points [{CONFIDENCE:.0%}]"]
    aligned = ["---", "---:", "---:", "---:", "---"]
    table = [[*line.cells(), *([line.fingerprint] if several else [])] for line in lines]
    header, aligned = header + ["pixels"] * several, aligned + ["---"] * several
    return [*texts, "", *(f"| {' | '.join(cells)} |" for cells in (header, aligned, *table))]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
