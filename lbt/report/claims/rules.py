"""The rules by which a claim holds, does not hold or is not decided yet; pure functions of the runs' figures.

Every comparison is the difference of two means with its Welch interval (unequal variances, Student's t). It is decided
when each side has `needed` runs and the interval lies on one side of the threshold. A run that diverged counts with the
accuracy it was left with. Published figures are one run a cell: they are compared as they stand (`needed=1`).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided yet"
NEEDED = 3  # runs of each side before a comparison counts
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of `first` minus mean of `second` at one place, with its interval where both have at least two runs."""

    place: str
    first: Sequence[float]
    second: Sequence[float]
    level: float = LEVEL

    @property
    def n(self) -> int:
        """Runs of the side that has fewer."""
        return min(len(self.first), len(self.second))

    @property
    def mean(self) -> float:
        """The difference of the means."""
        return statistics.fmean(self.first) - statistics.fmean(self.second)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Welch's interval at `level`, None for a single run."""
        if self.n < 2:
            return None
        parts = [(statistics.variance(side) / len(side), len(side) - 1) for side in (self.first, self.second)]
        squared = sum(part for part, _ in parts)
        if squared == 0:
            return self.mean, self.mean
        freedom = squared**2 / sum(part**2 / degrees for part, degrees in parts)
        half = float(stdtrit(freedom, (1 + self.level) / 2)) * math.sqrt(squared)
        return self.mean - half, self.mean + half

    def side(self, threshold: float, needed: int) -> int:
        """Returns 1 where the difference lies above the threshold, -1 where below, 0 where that is open."""
        low, high = self.interval or (self.mean, self.mean)
        if self.n < needed:
            return 0
        return (low > threshold) - (high < threshold)


@dataclass(frozen=True)
class Finding:
    """What the figures say of a claim: the figures in words, runs a side, interval, verdict and what is missing."""

    figures: str
    n: str
    interval: str
    verdict: str
    missing: str = ""


def at_every_place(found: Sequence[Difference], absent: Sequence[str], needed: int, unit: str = "points") -> Finding:
    """Above at every place: holds if all are decided above, fails with one decided below.

    Args:
        found: a difference a place.
        absent: places that have no run.
        needed: runs a side.
        unit: of the differences.
    """
    sides = [one.side(0.0, needed) for one in found]
    verdict = HOLDS if found and not absent and set(sides) == {1} else FAILS if -1 in sides else OPEN
    return _finding(verdict, found, absent, needed, min(found, key=lambda one: one.mean, default=None), unit)


def at_most_places(found: Sequence[Difference], absent: Sequence[str], needed: int, unit: str = "points") -> Finding:
    """Above as a rule: holds if decided above at more than half of all places, fails if decided below at half of them.

    Args: as of `at_every_place`.
    """
    sides, places = [one.side(0.0, needed) for one in found], len(found) + len(absent)
    more, less = sides.count(1) > places / 2, places and sides.count(-1) >= places / 2
    verdict = HOLDS if more else FAILS if less else OPEN
    middle = sorted(found, key=lambda one: one.mean)[(len(found) - 1) // 2] if found else None
    return _finding(verdict, found, absent, needed, middle, unit)


def up_to(found: Sequence[Difference], absent: Sequence[str], needed: int, amount: float) -> Finding:
    """Above by up to `amount`: holds if a difference is decided above what rounds to it, fails if all are below.

    Args:
        found: a difference a place, in points.
        absent: places that have no run.
        needed: runs a side.
        amount: in points; `amount - 0.5` is the threshold.
    """
    sides = [one.side(amount - 0.5, needed) for one in found]
    fails = found and not absent and set(sides) == {-1}
    largest = max(found, key=lambda one: one.mean, default=None)
    return _finding(HOLDS if 1 in sides else FAILS if fails else OPEN, found, absent, needed, largest, "points")


def hardly_matters(found: Sequence[Difference], absent: Sequence[str], needed: int, margin: float = 1.0) -> Finding:
    """No effect worth the name: holds if every difference is decided within ±`margin`, fails with one beyond it.

    Args:
        found: the differences of all pairs at all places, in points, their `level` corrected for their number.
        absent: places that have no pair.
        needed: runs a side.
        margin: in points.
    """
    within = all(one.side(-margin, needed) == 1 and one.side(margin, needed) == -1 for one in found)
    beyond = any(one.side(margin, needed) == 1 or one.side(-margin, needed) == -1 for one in found)
    verdict = FAILS if beyond else HOLDS if found and within and not absent else OPEN
    largest = max(found, key=lambda one: abs(one.mean), default=None)
    return _finding(verdict, found, absent, needed, largest, "points", counted=False)


def shifts(
    at_small: Mapping[float, Sequence[float]], at_large: Mapping[float, Sequence[float]], needed: int
) -> Finding:
    """The best setting is smaller at the small batch than at the large one.

    s is the best at the small batch, l at the large one. s < l: holds if s beats l at the small batch and l beats s at
    the large one. s > l: fails if both are decided likewise. s = l: fails if at the small batch every smaller setting
    is decided worse and at the large one every larger.

    Args:
        at_small: setting -> accuracies at the small batch.
        at_large: setting -> accuracies at the large batch; at least one setting in common.
        needed: runs a setting.
    """
    common = sorted(at_small.keys() & at_large.keys())
    if len(common) < 2:
        return Finding(
            "no two settings at both batches", "0", "-", OPEN, "runs of two settings or more at both batches"
        )
    s, large = (max(common, key=lambda one: statistics.fmean(runs[one])) for runs in (at_small, at_large))
    if s != large:
        found = [
            Difference(f"small batch, {s:g} against {large:g}", at_small[s], at_small[large]),
            Difference(f"large batch, {large:g} against {s:g}", at_large[large], at_large[s]),
        ]
    else:
        found = [
            Difference(f"small batch, {s:g} against {one:g}", at_small[s], at_small[one]) for one in common if one < s
        ]
        found += [
            Difference(f"large batch, {s:g} against {one:g}", at_large[s], at_large[one]) for one in common if one > s
        ]
    decided = all(one.side(0.0, needed) == 1 for one in found)
    verdict = OPEN if not decided else HOLDS if s < large else FAILS
    finding = _finding(verdict, found, [], needed, min(found, key=lambda one: one.mean), "points", counted=False)
    figures = f"best {s:g} at the small batch, {large:g} at the large one; {finding.figures}"
    return Finding(figures, finding.n, finding.interval, finding.verdict, finding.missing)


def _finding(
    verdict: str,
    found: Sequence[Difference],
    absent: Sequence[str],
    needed: int,
    shown: Difference | None,
    unit: str,
    *,
    counted: bool = True,
) -> Finding:
    """Puts a verdict into words; `shown` is the difference that stands for the others."""
    if shown is None:
        return Finding("no run", "0", "-", OPEN, _missing([], absent, needed))
    above = f"above at {sum(one.mean > 0 for one in found)} of {len(found)} places; " if counted else ""
    ns = sorted({one.n for one in found})
    interval = shown.interval
    text = f"{interval[0]:+.2f} to {interval[1]:+.2f} ({shown.level:.1%})" if interval else "n=1: no interval"
    missing = _missing(found, absent, needed) if verdict == OPEN else ""
    n = f"{ns[0]} to {ns[-1]}" if len(ns) > 1 else str(ns[0])
    return Finding(f"{above}{shown.mean:+.2f} {unit} at {shown.place}", n, text.replace(".0%", " %"), verdict, missing)


def _missing(found: Sequence[Difference], absent: Sequence[str], needed: int) -> str:
    parts = []
    few = [one.place for one in found if one.n < needed]
    if few:
        parts.append(f"{needed} runs of each side at {_some(few)}")
    if absent:
        parts.append(f"any run at {_some(absent)}")
    return "; ".join(parts) or "more runs: an interval still holds the threshold"


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more places" if len(places) > 3 else "")
