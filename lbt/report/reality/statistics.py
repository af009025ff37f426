"""Statistics of a comparison of optimizers: best-of-k, exact rank intervals and tests, and what decides a verdict.

Scores are accuracies in %; a run that diverged has the score of chance wherever scores are ranked or averaged. The
intervals are exact at any number of seeds: they come of the ranks alone, and are none where too few could give one.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from lbt.report.kit.statistics import LEVEL, holm
from lbt.sweep.tuning import FEWEST_SEEDS

SPLITS = 20_000  # a rank test is exact, with ties, where there are no more ways to split the values (up to 8 and 8)
EXACT = 10_000  # pairs of values up to which the interval's rank is that of the exact distribution
SHIFT_FACTOR = math.pi / 3  # variance of a shift of two normal samples, relative to their means' (asymptotic)


@dataclass(frozen=True)
class Summary:
    """Location and spread of a sample; `interval` of the median is None where too few values could give one."""

    n: int
    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """Two samples compared: their shift (Hodges-Lehmann), its interval, and a two-sided Mann-Whitney test.

    The shift is the median of all differences of a value of `first` and one of `second`; the interval holds those that
    the test would not reject (Hodges and Lehmann 1963). It, `p` and `corrected`, its Holm-corrected value, are None
    where a sample is too small for an interval.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    corrected: float | None = None


def best_of_k(scores: Sequence[float], quantiles: Sequence[float] = (0.1, 0.9)) -> np.ndarray:
    """Returns the best score expected of k trials drawn without replacement from those made, and its quantiles.

    Exact: the best of k is at most the i-th smallest of n scores with probability C(i, k) / C(n, k).

    Args:
        scores: [n], a diverged trial's is that of chance.
        quantiles: of the best score, over the draws.

    Returns:
        float64 [n, 1 + len(quantiles)]: a row for each k from 1 to n.

    Raises:
        ValueError: no scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    n = len(ordered)
    if not n:
        raise ValueError("best_of_k needs at least one score")
    index = np.arange(1, n + 1)
    rows = []
    for k in range(1, n + 1):
        below = np.where(index >= k, special.comb(index, k) / special.comb(n, k), 0.0)  # P(best <= the i-th score)
        expected = float(np.diff(below, prepend=0.0) @ ordered)
        rows.append([expected, *(ordered[np.searchsorted(below, q - 1e-12)] for q in quantiles)])
    return np.array(rows)


def summarise(values: Sequence[float]) -> Summary:
    """Returns a sample's summary, with the exact interval of the median between two of its values.

    The interval leaves out as many values at each end as a fair coin's sign test allows; fewer than six values allow
    none at 95 %.

    Raises:
        ValueError: no values.
    """
    sample = np.sort(np.asarray(values, dtype=float))
    if not len(sample):
        raise ValueError("summarise needs at least one value")
    low, median, high = np.percentile(sample, [25, 50, 75])
    heads = special.bdtr(np.arange(len(sample) + 1), len(sample), 0.5)
    kept = int(np.searchsorted(heads, (1 - LEVEL) / 2))  # the first count that is not too improbable
    interval = (float(sample[kept - 1]), float(sample[-kept])) if kept else None
    return Summary(len(sample), float(median), (float(low), float(high)), interval)


def compare(samples: dict[str, Sequence[float]], *, family: int = 0) -> list[Comparison]:
    """Returns all pairwise comparisons of the samples, their p-values corrected by Holm's method.

    Args:
        samples: by name.
        family: comparisons that are planned, where some samples are still missing; at least those made are counted.
    """
    names = list(samples)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = [_pair(a, b, samples[a], samples[b]) for a, b in pairs]
    tested = [pair.p for pair in found if pair.p is not None]
    corrected = iter(holm(tested, family))
    return [
        Comparison(c.first, c.second, c.difference, c.interval, c.p, None if c.p is None else next(corrected))
        for c in found
    ]


def _pair(first: str, second: str, a: Sequence[float], b: Sequence[float]) -> Comparison:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    differences = np.sort(np.subtract.outer(a, b), axis=None)
    shift = float(np.median(differences))
    rank = _rank(*sorted((len(a), len(b))))
    if min(len(a), len(b)) < FEWEST_SEEDS or not rank:
        return Comparison(first, second, shift, None, None)
    interval = float(differences[rank - 1]), float(differences[-rank])
    same = len({*a, *b}) == 1  # the rank test is not defined there; nothing differs
    p = 1.0 if same else _p_value(a, b)
    return Comparison(first, second, shift, interval, p)


@cache
def _rank(n: int, m: int) -> int:
    """Returns which of the sorted differences of n and m values bounds the interval of their shift; 0: none does.

    It is the first that is not too improbable as the Mann-Whitney statistic plus one, without ties; those of tied
    values lie wider.
    """
    tail = (1 - LEVEL) / 2
    if n * m > EXACT:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return max(0, math.floor(n * m / 2 - 0.5 + special.ndtri(tail) * spread) + 1)
    return int(np.searchsorted(np.cumsum(_ways(n, m)) / special.comb(n + m, n, exact=True), tail, side="right"))


def _ways(n: int, m: int) -> np.ndarray:
    """Returns in how many orders of n and m values each Mann-Whitney statistic comes, [n*m + 1]: Gauss's binomial."""
    ways = [1]
    for i in range(1, n + 1):
        grown = np.zeros(len(ways) + m + i, dtype=object)
        grown[: len(ways)] += ways
        grown[m + i :] -= ways  # times 1 - q**(m + i)
        for power in range(i, len(grown)):  # over 1 - q**i
            grown[power] += grown[power - i]
        ways = grown[: i * m + 1]
    return np.array(ways, dtype=object)


def _p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the two-sided p-value of a Mann-Whitney test, exact where there are few ways to split the values."""
    if special.comb(len(a) + len(b), len(a)) > SPLITS:
        from scipy import stats  # it takes longer to import than a page to write

        return float(stats.mannwhitneyu(a, b, method="auto").pvalue)
    # scipy's own choice is the normal approximation as soon as two values are equal, and that is poor for few values.
    values = np.sort([*a, *b])
    ranks = np.searchsorted(values, values, "left") + np.searchsorted(values, values, "right")  # twice, less 1
    ways = [Counter() for _ in range(len(a) + 1)]  # by how many values are chosen: their sum -> in how many ways
    ways[0][0] = 1
    for rank in ranks.tolist():
        for chosen in range(len(a), 0, -1):
            ways[chosen].update({total + rank: count for total, count in ways[chosen - 1].items()})
    seen = int((np.searchsorted(values, a, "left") + np.searchsorted(values, a, "right")).sum())
    splits = ways[-1]
    lower = sum(count for total, count in splits.items() if total <= seen)
    upper = sum(count for total, count in splits.items() if total >= seen)
    return min(1.0, 2 * min(lower, upper) / splits.total())


def seeds_needed(a: Sequence[float], b: Sequence[float], distance: float) -> int | None:
    """Returns about how many seeds a side put an interval of half-width `distance` around the shift.

    From the normal approximation of a shift's variance, (pi/3) (s^2 + t^2) / n, with the spreads seen so far.

    Args:
        a: values of one side, at least two.
        b: values of the other.
        distance: between the difference and the bound its interval must not reach; None is returned for none.
    """
    if distance <= 0:
        return None
    variance = SHIFT_FACTOR * (np.var(a, ddof=1) + np.var(b, ddof=1))
    z = special.ndtri(0.5 + LEVEL / 2)
    return max(FEWEST_SEEDS, math.ceil(z**2 * variance / distance**2))


def steps_to_target(steps: Sequence[int], accuracies: Sequence[float | None], target: float) -> float:
    """Returns the step of the first evaluation at which the target was reached; infinity where it never was."""
    reached = (step for step, value in zip(steps, accuracies, strict=True) if value is not None and value >= target)
    return float(next(reached, math.inf))
