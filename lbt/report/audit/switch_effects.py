"""The audit's comparisons: what a switch does to an optimizer at a batch, over the seeds of an experiment's grid."""

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from lbt import sweep
from lbt.config import Config, groups
from lbt.errors import UserError
from lbt.identity import identity, run_id
from lbt.report.kit.statistics import at_chance, binomial_error, chance, dunnett, scored_images, value_of
from lbt.report.kit.wording import counted, mean_and_spread

EXPERIMENTS = "tvlars_audit*"  # whose grids compare `audit=none` with one row at a time
BASE = "none"
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
        """Accuracies, in %, of those that trained to the end, and chance for each that diverged."""
        return [value for run in self.runs if (value := value_of(run, METRIC)) is not None]

    @property
    def diverged(self) -> int:
        """How many of them diverged."""
        return sum(run["status"] == "diverged" for run in self.runs)

    @property
    def untrained(self) -> int:
        """How many of them diverged or ended at chance."""
        known = [(run, value_of(run, METRIC)) for run in self.runs]
        return sum(
            run["status"] == "diverged" or at_chance(value, chance(run, METRIC), scored_images(run))
            for run, value in known
            if value is not None
        )

    @property
    def images(self) -> int:
        """On how many images the fewest of their accuracies were counted."""
        return min(scored_images(run) for run in self.runs)

    def text(self) -> str:
        """Returns mean, spread and n, and what else became of the runs."""
        statuses = Counter(run["status"] for run in self.runs)
        if not self.values or self.diverged == len(self.values):
            return ", ".join(counted(statuses)) or "-"
        return mean_and_spread(self.values, counted(statuses, chance(self.runs[0], METRIC)))


@dataclass(frozen=True)
class Comparison:
    """One line of a row's table: an optimizer at a batch on the same pixels, without and with the switch.

    Attributes:
        epochs: length of its runs.
        rate: peak learning rate of those without the switch.
        precision: that both sides were computed in.
        interval: of the difference, Dunnett's over all comparisons with the same base; None where there is none.
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
    interval: tuple[float, float] | None = None

    def place(self) -> list[str]:
        """Returns the cells that say where it was measured."""
        return [self.optimizer, f"{self.batch:,}", f"{self.rate:g}", f"{self.epochs}"]

    def said(self) -> str:
        """Returns what the two sides differ in."""
        if not self.base.runs or not self.switched.runs:
            return "not measured yet"
        if not self.base.values or not self.switched.values:
            return "no means to compare"
        if self.of_part:
            return self._sampling_error()
        if self.base.untrained or self.switched.untrained:
            return self._without_training()
        if self.interval is None:
            return f"{_points(self.difference)} (n too small for an interval)"
        low, high = self.interval
        found = "higher" if low > 0 else "lower" if high < 0 else "no effect shown"
        return f"{_points(self.difference)} [{low:+.2f}, {high:+.2f}]: {found}"

    @property
    def difference(self) -> float:
        """Difference of mean accuracy, switched minus base, in percentage points."""
        return statistics.fmean(self.switched.values) - statistics.fmean(self.base.values)

    @property
    def of_part(self) -> bool:
        """Whether the switched runs are scored on a part of the images: they differ by sampling alone."""
        return self.switched.images < self.base.images

    @property
    def shares_base(self) -> bool:
        """Whether it takes part in the comparison of all switches with one base: two trained sides, scored alike."""
        sides = (self.base, self.switched)
        return all(side.values and not side.untrained for side in sides) and self.base.images == self.switched.images

    def _sampling_error(self) -> str:
        accuracy, part, whole = statistics.fmean(self.base.values), self.switched.images, self.base.images
        alone, against = binomial_error(accuracy, part), binomial_error(accuracy, part, whole)
        where = "within" if abs(self.difference) <= 2 * against else "beyond"
        return (
            f"{_points(self.difference)}: sampling error of {part:,} of {whole:,} images, the same in every run "
            f"(binomial standard error {alone:.2f}; {against:.2f} against all of them): {where} two of it"
        )

    def _without_training(self) -> str:
        kinds = [(side.untrained, len(side.values)) for side in (self.base, self.switched)]
        (without, of), (switched, of_switched) = kinds
        no_gain = "no gain: " if without and self.difference > 0 else ""
        return (
            f"{_points(self.difference)} ({no_gain}runs that do not train: {without} of {of} without, "
            f"{switched} of {of_switched} with; no interval)"
        )


def _points(difference: float) -> str:
    return f"{round(difference, 2) + 0.0:+.2f}"  # no minus before zero


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
    """Returns the runs of an experiment, as composed, by switch, optimizer and batch.

    Raises:
        UserError: it is no grid of switches, `audit=none` among them.
    """
    sides: dict[Place, list[Config]] = {}
    for job in sweep.grid([f"+experiment={experiment}", *overrides]):
        switch = next((text.removeprefix("audit=") for text in job.overrides if text.startswith("audit=")), None)
        sides.setdefault((switch, job.config.optimizer["name"], job.config.batch), []).append(job.config)
    for _, optimizer, batch in sides:
        if (BASE, optimizer, batch) not in sides:
            named = f"experiment {experiment}: by its name it is one of lbt audit's"
            raise UserError(f"{named}, and has no audit={BASE} to compare with for {optimizer} at batch {batch}")
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
    found: list[tuple[str, Comparison]] = []
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
        found += [(switch, line) for line in lines]
    return _by_switch(found)


def _by_switch(found: Sequence[tuple[str, Comparison]]) -> dict[str, list[Comparison]]:
    """Returns an experiment's comparisons by switch, those with one base with Dunnett's intervals over all of them."""
    of_base: dict[tuple, list[Comparison]] = {}
    for _, line in found:
        if line.shares_base:
            of_base.setdefault(_base_of(line), []).append(line)
    by_switch: dict[str, list[Comparison]] = {}
    for switch, line in found:
        together = of_base.get(_base_of(line), [])
        interval = None
        if line.shares_base:
            known = dunnett(line.base.values, [one.switched.values for one in together])
            (interval,) = [known[index] for index, one in enumerate(together) if one is line]
        by_switch.setdefault(switch, []).append(replace(line, interval=interval))
    return by_switch


def _base_of(line: Comparison) -> tuple:
    return line.optimizer, line.batch, line.fingerprint, line.precision


def _marks(config: Config, by_id: Mapping[str, pd.Series]) -> list[tuple[str, str]]:
    """Returns the (fingerprint, precision) there are runs of: `precision=auto` became what each machine computes in."""
    fingerprints = sorted({run["fingerprint"] for run in by_id.values()})
    used = sorted({run["precision"] for run in by_id.values()}) if config.precision == "auto" else [config.precision]
    return list(itertools.product(fingerprints, used))


def _side(configs: Sequence[Config], fingerprint: str, precision: str, by_id: Mapping[str, pd.Series]) -> Side:
    names = [run_id(identity(replace(config, precision=precision)), fingerprint) for config in configs]
    return Side([by_id[name] for name in names if name in by_id])
