"""Statistics of a comparison of optimizers: best-of-k, bootstrap intervals, rank tests, and what decides a verdict.

Scores are accuracies in %; a run that diverged has the score 0 wherever scores are ranked or averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from lbt.sweep.tuning import FEWEST_SEEDS

LEVEL = 0.95
RESAMPLES = 10_000
SPLITS = 20_000  # a rank test is exact, with ties, where there are no more ways to split the values (up to 8 and 8)
MEDIAN_FACTOR = math.pi / 2  # variance of a normal sample's median, relative to its mean's (asymptotic)


@dataclass(frozen=True)
class Summary:
    """Location and spread of a sample; `interval` of the median is None for fewer than `FEWEST_SEEDS` values."""

    n: int
    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """Two samples compared: difference of the medians, its interval, and a two-sided Mann-Whitney test.

    `p` and `corrected`, its Holm-corrected value, are None where a sample is too small for an interval.
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
        scores: [n], a diverged trial's is 0.
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


def summarise(values: Sequence[float], seed: int = 0) -> Summary:
    """Returns a sample's summary, with a percentile-bootstrap interval of the median at `LEVEL`.

    Raises:
        ValueError: no values.
    """
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        raise ValueError("summarise needs at least one value")
    low, median, high = np.percentile(sample, [25, 50, 75])
    interval = None
    if len(sample) >= FEWEST_SEEDS:
        interval = _interval(_medians(sample, np.random.default_rng(seed)))
    return Summary(len(sample), float(median), (float(low), float(high)), interval)


def compare(samples: dict[str, Sequence[float]], seed: int = 0, *, family: int = 0) -> list[Comparison]:
    """Returns all pairwise comparisons of the samples, their p-values corrected by Holm's method.

    Args:
        samples: by name.
        seed: of the bootstrap.
        family: comparisons that are planned, where some samples are still missing; at least those made are counted.
    """
    names = list(samples)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = [_pair(a, b, samples[a], samples[b], seed) for a, b in pairs]
    tested = [pair.p for pair in found if pair.p is not None]
    corrected = iter(holm(tested, family))
    return [
        Comparison(c.first, c.second, c.difference, c.interval, c.p, None if c.p is None else next(corrected))
        for c in found
    ]


def _pair(first: str, second: str, a: Sequence[float], b: Sequence[float], seed: int) -> Comparison:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    difference = float(np.median(a) - np.median(b))
    if min(len(a), len(b)) < FEWEST_SEEDS:
        return Comparison(first, second, difference, None, None)
    rng = np.random.default_rng(seed)
    interval = _interval(_medians(a, rng) - _medians(b, rng))
    same = len({*a, *b}) == 1  # the rank test is not defined there; nothing differs
    p = 1.0 if same else float(stats.mannwhitneyu(a, b, method=_method(a, b)).pvalue)
    return Comparison(first, second, difference, interval, p)


def _method(a: np.ndarray, b: np.ndarray) -> str | stats.PermutationMethod:
    # scipy's own choice is the normal approximation as soon as two values are equal, and that is poor for few values.
    return stats.PermutationMethod(n_resamples=SPLITS) if special.comb(len(a) + len(b), len(a)) <= SPLITS else "auto"


def _medians(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.median(rng.choice(sample, size=(RESAMPLES, len(sample))), axis=1)


def _interval(estimates: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float], family: int = 0) -> list[float]:
    """Returns p-values corrected by Holm's step-down method (Holm 1979), in the order given.

    Args:
        p_values: of the tests made.
        family: number of tests it is corrected for, if more; those not made count as the largest p-values.
    """
    count = max(family, len(p_values))
    order = np.argsort(p_values, kind="stable")
    corrected, running = [0.0] * len(order), 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, (count - rank) * p_values[position]))
        corrected[position] = running
    return corrected


def seeds_needed(a: Sequence[float], b: Sequence[float], distance: float) -> int | None:
    """Returns about how many seeds a side put an interval of half-width `distance` around the medians' difference.

    From the normal approximation of a median's variance, (pi/2) s^2 / n, with the spread seen so far.

    Args:
        a: values of one side, at least two.
        b: values of the other.
        distance: between the difference and the bound its interval must not reach; None is returned for none.
    """
    if distance <= 0:
        return None
    variance = MEDIAN_FACTOR * (np.var(a, ddof=1) + np.var(b, ddof=1))
    z = stats.norm.ppf(0.5 + LEVEL / 2)
    return max(FEWEST_SEEDS, math.ceil(z**2 * variance / distance**2))


def steps_to_target(steps: Sequence[int], accuracies: Sequence[float | None], target: float) -> float:
    """Returns the step of the first evaluation at which the target was reached; infinity where it never was."""
    reached = (step for step, value in zip(steps, accuracies, strict=True) if value is not None and value >= target)
    return float(next(reached, math.inf))
