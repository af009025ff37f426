"""The audit's comparisons: what a switch does to an optimizer at a batch, over the seeds of an experiment's grid."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from lbt import sweep
from lbt.config import Config, groups
from lbt.identity import identity, run_id
from lbt.report.claims.rules import Difference
from lbt.report.kit.wording import counted, mean_and_spread

EXPERIMENTS = "tvlars_audit*"  # whose grids compare `audit=none` with one row at a time
BASE = "none"
CONFIDENCE = 0.95
METRIC = "test_accuracy"
Place = tuple[str, str, int]  # switch, optimizer and batch


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
        others = counted(Counter(run["status"] for run in self.runs))
        return mean_and_spread(self.values, others) if self.values else ", ".join(others) or "-"


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
    """One line of a row's table: an optimizer at a batch on the same pixels, without and with the switch.

    Attributes:
        epochs: length of its runs.
        rate: peak learning rate of those without the switch.
        precision: that both sides were computed in.
    """

    experiment: str
    optimizer: str
    batch: int
    epochs: int
    rate: float
    fingerprint: str
    base: Side
    switched: Side
    precision: str = ""

    def place(self) -> list[str]:
        """Returns the cells that say where it was measured."""
        return [self.optimizer, f"{self.batch:,}", f"{self.rate:g}", f"{self.epochs}"]

    def said(self) -> str:
        """Returns what the two sides differ in."""
        if not self.base.runs or not self.switched.runs:
            return "not measured yet"
        found = effect(self.base.values, self.switched.values)
        said = "no means to compare" if found is None else found.text()
        if self.base.diverged or self.switched.diverged:
            said += f"; diverged: {self.base.diverged} of {len(self.base.runs)} without, "
            said += f"{self.switched.diverged} of {len(self.switched.runs)} with"
        return said


def comparisons(runs: pd.DataFrame) -> dict[str, list[Comparison]]:
    """Returns each switch's comparisons: one for every optimizer and batch of the audit's grids, and data set.

    A switch that has no effect on an optimizer has no comparison there: its run is the one without the switch.
    """
    by_id = {run["id"]: run for _, run in runs.iterrows()}
    found: dict[str, list[Comparison]] = {}
    for experiment in groups.choices("experiment", EXPERIMENTS):
        for switch, lines in of_experiment(experiment, grid(experiment), by_id).items():
            found.setdefault(switch, []).extend(lines)
    return {
        switch: sorted(lines, key=lambda line: (line.optimizer, line.batch, line.rate, line.epochs))
        for switch, lines in found.items()
    }


@cache
def grid(experiment: str, *overrides: str) -> dict[Place, list[Config]]:
    """Returns the runs of an experiment, as composed, by switch, optimizer and batch."""
    sides: dict[Place, list[Config]] = {}
    for job in sweep.grid([f"+experiment={experiment}", *overrides]):
        (switch,) = [text.removeprefix("audit=") for text in job.overrides if text.startswith("audit=")]
        sides.setdefault((switch, job.config.optimizer["name"], job.config.batch), []).append(job.config)
    return sides


def of_experiment(
    experiment: str, sides: Mapping[Place, Sequence[Config]], by_id: Mapping[str, pd.Series]
) -> dict[str, list[Comparison]]:
    """Returns an experiment's comparisons by switch.

    Args:
        experiment: its name.
        sides: its runs, of `grid`.
        by_id: the rows of the frame.
    """
    found: dict[str, list[Comparison]] = {}
    for (switch, optimizer, batch), configs in sides.items():
        if switch == BASE:
            continue
        base = sides[BASE, optimizer, batch]
        both = [(mark, _side(base, *mark, by_id), _side(configs, *mark, by_id)) for mark in _marks(configs[0], by_id)]
        both = [one for one in both if one[1].runs or one[2].runs] or [(("", ""), Side(), Side())]
        length, rate = configs[0].epochs, base[0].peak_lr
        lines = [
            Comparison(experiment, optimizer, batch, length, rate, fingerprint, without, switched, precision)
            for (fingerprint, precision), without, switched in both
        ]
        found.setdefault(switch, []).extend(lines)
    return found


def _marks(config: Config, by_id: Mapping[str, pd.Series]) -> list[tuple[str, str]]:
    """Returns the (fingerprint, precision) there are runs of: `precision=auto` became what each machine computes in."""
    fingerprints = sorted({run["fingerprint"] for run in by_id.values()})
    used = sorted({run["precision"] for run in by_id.values()}) if config.precision == "auto" else [config.precision]
    return list(itertools.product(fingerprints, used))


def _side(configs: Sequence[Config], fingerprint: str, precision: str, by_id: Mapping[str, pd.Series]) -> Side:
    names = [run_id(identity(replace(config, precision=precision)), fingerprint) for config in configs]
    return Side([by_id[name] for name in names if name in by_id])
