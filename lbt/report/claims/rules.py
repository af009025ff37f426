"""The rules by which a claim holds, does not hold or is not decided yet; pure functions of the runs' figures.

Every comparison is the difference of two means, tested by Welch's test (unequal variances). It is decided when each
side has `needed` runs and the two-sided p-value, corrected by Holm's method for all the places the claim looks at
(those without a run included), is below 0.05. A run that diverged counts as chance, and a gain against runs that do not
train is no gain. Published figures are one run a cell: they are compared as they stand (`needed=1`).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lbt.report.kit.statistics import LEVEL, holm, welch, welch_p
from lbt.report.kit.wording import p_value

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided yet"
NEEDED = 3  # runs of each side before a comparison counts
BOTH, LOSS, NEITHER = (-1, 1), (-1,), ()  # sides on which a difference may be decided


@dataclass(frozen=True)
class Difference:
    """Mean of `first` minus mean of `second` at one place, with its interval where both have at least two runs.

    `allowed`: where `second` does not train in some run, being above it is no gain; where it never trains, neither side
    of the threshold says anything.
    """

    place: str
    first: Sequence[float]
    second: Sequence[float]
    allowed: tuple[int, ...] = BOTH

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
        """Welch's interval at 95 %, None for a single run."""
        return welch(self.first, self.second)


@dataclass(frozen=True)
class Decision:
    """On which side of a threshold a difference lies: 1 above, -1 below, 0 open; with its corrected p-value."""

    side: int
    p: float | None = None


def decide(found: Sequence[Difference], threshold: float, needed: int, places: int = 0) -> list[Decision]:
    """Returns on which side of the threshold each difference is decided to lie.

    Args:
        found: the differences.
        threshold: that they are compared with.
        needed: runs a side.
        places: that the claim looks at, if more: Holm's correction is for all of them.
    """
    enough = [one.n >= needed for one in found]
    raw = [welch_p(one.first, one.second, threshold) if fit else None for one, fit in zip(found, enough, strict=True)]
    corrected = iter(holm([p for p in raw if p is not None], max(places, len(found))))
    decided = []
    for one, fit, p in zip(found, enough, raw, strict=True):
        p = None if p is None else next(corrected)
        clear = fit and (p is None or p < 1 - LEVEL)  # a single run a side, where that is enough, stands as it is
        side = (one.mean > threshold) - (one.mean < threshold) if clear else 0
        decided.append(Decision(side if side in one.allowed else 0, p))
    return decided


@dataclass(frozen=True)
class Finding:
    """What the figures say of a claim: the figures in words, runs a side, interval, verdict and what is missing."""

    figures: str
    n: str
    interval: str
    verdict: str
    missing: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a verdict stands on: the differences, their decisions and the places without runs."""

    found: Sequence[Difference]
    decided: Sequence[Decision]
    absent: Sequence[str]
    needed: int

    @property
    def places(self) -> int:
        """How many places the claim looks at."""
        return len(self.found) + len(self.absent)

    @property
    def sides(self) -> list[int]:
        """The side of each difference."""
        return [one.side for one in self.decided]


def _weigh(found: Sequence[Difference], threshold: float, absent: Sequence[str], needed: int) -> Evidence:
    return Evidence(found, decide(found, threshold, needed, len(found) + len(absent)), absent, needed)


def at_every_place(
    found: Sequence[Difference], absent: Sequence[str], needed: int, unit: str = "points", threshold: float = 0.0
) -> Finding:
    """Above at every place: holds if all are decided above, fails with one decided below.

    Args:
        found: a difference a place.
        absent: places that have no run.
        needed: runs a side.
        unit: of the differences.
        threshold: that they are compared with.
    """
    weighed = _weigh(found, threshold, absent, needed)
    verdict = HOLDS if found and not absent and set(weighed.sides) == {1} else FAILS if -1 in weighed.sides else OPEN
    return _finding(verdict, weighed, _deciding(verdict, weighed), unit, threshold=threshold)


def at_most_places(found: Sequence[Difference], absent: Sequence[str], needed: int, unit: str = "points") -> Finding:
    """Above as a rule: holds if decided above at more than half of all places, fails if decided below at half of them.

    Args: as of `at_every_place`.
    """
    weighed = _weigh(found, 0.0, absent, needed)
    more = weighed.sides.count(1) > weighed.places / 2
    less = weighed.places and weighed.sides.count(-1) >= weighed.places / 2
    verdict = HOLDS if more else FAILS if less else OPEN
    middle = sorted(found, key=lambda one: one.mean)[(len(found) - 1) // 2] if found else None
    return _finding(verdict, weighed, middle, unit)


def up_to(found: Sequence[Difference], absent: Sequence[str], needed: int, amount: float) -> Finding:
    """Above by up to `amount`: holds if a difference is decided above what rounds to it, fails if all are below.

    Args:
        found: a difference a place, in points.
        absent: places that have no run.
        needed: runs a side.
        amount: in points; `amount - 0.5` is the threshold.
    """
    weighed = _weigh(found, amount - 0.5, absent, needed)
    fails = found and not absent and set(weighed.sides) == {-1}
    largest = max(found, key=lambda one: one.mean, default=None)
    return _finding(HOLDS if 1 in weighed.sides else FAILS if fails else OPEN, weighed, largest, "points")


def hardly_matters(found: Sequence[Difference], absent: Sequence[str], needed: int, margin: float = 1.0) -> Finding:
    """No effect worth the name: holds if every difference is decided within ±`margin`, fails with one beyond it.

    Args:
        found: the differences of all pairs at all places, in points.
        absent: places that have no pair.
        needed: runs a side.
        margin: in points.
    """
    low, high = (_weigh(found, bound, absent, needed) for bound in (-margin, margin))
    within = set(low.sides) == {1} and set(high.sides) == {-1}
    beyond = -1 in low.sides or 1 in high.sides
    verdict = FAILS if beyond else HOLDS if found and within and not absent else OPEN
    largest = max(found, key=lambda one: abs(one.mean), default=None)
    weighed = high if largest and largest.mean > 0 else low  # its nearer bound
    return _finding(verdict, weighed, largest, "points", counted=False)


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
    weighed = _weigh(found, 0.0, [], needed)
    verdict = OPEN if set(weighed.sides) != {1} else HOLDS if s < large else FAILS
    finding = _finding(verdict, weighed, _deciding(verdict, weighed), "points", counted=False)
    figures = f"best {s:g} at the small batch, {large:g} at the large one; {finding.figures}"
    return Finding(figures, finding.n, finding.interval, finding.verdict, finding.missing)


def _deciding(verdict: str, weighed: Evidence) -> Difference | None:
    """Returns the smallest difference; where nothing is decided yet, the smallest of those that keep it open."""
    still = [one for one, side in zip(weighed.found, weighed.sides, strict=True) if not side]
    return min(still if verdict == OPEN and still else weighed.found, key=lambda one: one.mean, default=None)


def _finding(
    verdict: str,
    weighed: Evidence,
    shown: Difference | None,
    unit: str,
    *,
    counted: bool = True,
    threshold: float = 0.0,
) -> Finding:
    """Puts a verdict into words; `shown` is the difference that stands for the others."""
    found = weighed.found
    if shown is None:
        return Finding("no run", "0", "-", OPEN, _missing(weighed))
    gains = [one for one in found if one.mean > threshold and 1 in one.allowed]
    above = f"above at {len(gains)} of {len(found)} places; " if counted else ""
    ns = sorted({one.n for one in found})
    n = f"{ns[0]} to {ns[-1]}" if len(ns) > 1 else str(ns[0])
    missing = _missing(weighed) if verdict == OPEN else ""
    figures = f"{above}{shown.mean:+.2f} {unit} at {shown.place}"
    p = next(decision.p for one, decision in zip(found, weighed.decided, strict=True) if one is shown)
    return Finding(figures, n, _interval(shown, p, weighed.places), verdict, missing)


def _interval(shown: Difference, p: float | None, places: int) -> str:
    """Returns the interval of one difference, and the p-value that decides."""
    if shown.interval is None:
        return "n=1: no interval"
    low, high = shown.interval
    corrected = "" if p is None else f"; p {p_value(p)} (Holm, of {places})"
    return f"{low:+.2f} to {high:+.2f} ({100 * LEVEL:g} %){corrected}"


def _missing(weighed: Evidence) -> str:
    parts = []
    few = [one.place for one in weighed.found if one.n < weighed.needed]
    if few:
        parts.append(f"{weighed.needed} runs of each side at {_some(few)}")
    if weighed.absent:
        parts.append(f"any run at {_some(weighed.absent)}")
    if idle := [one.place for one in weighed.found if 1 not in one.allowed and one.mean > 0]:
        parts.append(f"a run of the other side that trains, at {_some(idle)}")
    still = [one.place for one, side in zip(weighed.found, weighed.sides, strict=True) if not side]
    where = f" at {_some(still)}" if still else ""
    return "; ".join(parts) or f"more runs{where}: no side of the threshold at a corrected p below 0.05"


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more places" if len(places) > 3 else "")
