"""The statistics that all reports share: what a run counts as in a mean, and tests that are honest at few runs.

A run that diverged predicts one class: it counts as guessing, 100/classes %, wherever it enters a mean or a median.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special  # and not stats, which takes longer to import than most pages to write

from lbt.metrics import metric_of

LEVEL = 0.95
CLASSES = {"cifar10": 10, "digits": 10, "tiny_imagenet": 200}  # of records that do not say
IMAGES = 10_000  # scored, of records that do not say
CERTAIN = 3.0  # binomial standard errors: a run that ends no higher above chance ends at chance
LAST = 5  # epochs whose mean stands beside the last one's figure
SHORT = 4 * LAST  # epochs; the last ones of fewer are a large part of the training
APART = 1.0  # points between the two from which on a report says so
POWER = 0.8  # of a test, for which a report says how many seeds it needs
FAR = 30.0  # standard errors beyond what a test asks for, where it is sure to show a difference
MOST_SEEDS = 1000  # a side; a difference that needs more is none that seeds would show


def classes(run: Mapping[str, Any]) -> int | None:
    """Returns the number of classes of a run's data, None where nothing tells it.

    Args:
        run: row of a frame.
    """
    for key in ("classes", "data.classes"):
        if _known(run.get(key)):
            return int(run[key])
    return CLASSES.get(run.get("data.name"))


def chance_of(count: int | None, metric: str) -> float | None:
    """Returns the accuracy in % of guessing among so many classes; None for another metric or an unknown number."""
    if count is None or not metric.endswith("accuracy"):
        return None
    return min(100.0, 100.0 * (5 if metric.endswith("top5_accuracy") else 1) / count)


def chance(run: Mapping[str, Any], metric: str) -> float | None:
    """Returns what guessing scores in a metric on a run's data, in %; None where that is not known from its classes.

    Args:
        run: row of a frame.
        metric: name in the run's summary.
    """
    return chance_of(classes(run), metric) if _of_classes(run, metric) else None


def _of_classes(run: Mapping[str, Any], metric: str) -> bool:
    """Says whether a metric is an accuracy over the data's classes, as far as the run's task declares it."""
    declared = metric_of(metric, run.get("metrics") or {})
    return metric.endswith("accuracy") and (declared is None or declared.of_classes)


def scored_images(run: Mapping[str, Any], metric: str = "test_accuracy") -> int:
    """Returns on how many images a run's metric was counted.

    Args:
        run: row of a frame.
        metric: name in the run's summary; `val_...` is of the validation split.
    """
    if metric.startswith("val_"):
        share, train = run.get("data.val"), run.get("train_images")
        if _known(share) and _known(train) and 0 < share < 1:
            return max(1, round(train * share / (1 - share)))
        return IMAGES
    if _known(run.get("test_images")):
        return int(run["test_images"])
    every = run.get("data.test_every")
    return IMAGES // int(every) if _known(every) else IMAGES


def at_chance(value: float, guessing: float | None, images: int = IMAGES) -> bool:
    """Says whether an accuracy may be a guess: no more than `CERTAIN` binomial standard errors above it.

    Args:
        value: accuracy in %.
        guessing: that of chance; None: not known, and nothing is at chance.
        images: scored.
    """
    return guessing is not None and value <= guessing + CERTAIN * binomial_error(guessing, images)


def value_of(run: Mapping[str, Any], metric: str, infeasible: Sequence[str] = ("diverged",)) -> float | None:
    """Returns the figure with which a run enters a mean or median, None for one that enters none.

    A finished run enters with its figure, an infeasible one with that of chance. Where the number of classes is not
    known, an infeasible one enters with the accuracy it was left with, or 0.

    Args:
        run: row of a frame.
        metric: name in the run's summary.
        infeasible: statuses of runs that count as chance.
    """
    if run["status"] == "done":
        return run["summary"].get(metric)
    if run["status"] not in infeasible or not _of_classes(run, metric):
        return None
    guessing = chance(run, metric)
    return guessing if guessing is not None else run["summary"].get(metric) or 0.0


def binomial_error(accuracy: float, images: int, of: int | None = None) -> float:
    """Returns the standard error, in points, of an accuracy that was counted on some images.

    Args:
        accuracy: in %.
        images: scored.
        of: of how many, if the error is that against the accuracy on all of them (finite population).
    """
    share = min(max(accuracy / 100, 0.0), 1.0)
    part = 1 / images - (1 / of if of else 0.0)
    return 100 * math.sqrt(max(share * (1 - share) * part, 0.0))


def last_mean(curve: Sequence[float]) -> float | None:
    """Returns the mean of the last `LAST` epochs; None of a curve with gaps there, or so short that it still rises.

    Args:
        curve: a figure after each epoch.
    """
    values = np.asarray(curve, dtype=float)
    if len(values) < SHORT or not np.isfinite(values[-LAST:]).all():
        return None
    return float(values[-LAST:].mean())


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Returns Welch's interval of the difference of two means at `LEVEL`, None where a side has less than two values.

    Two sides without any spread give the difference itself.
    """
    if min(len(first), len(second)) < 2:
        return None
    mean = statistics.fmean(first) - statistics.fmean(second)
    error, free = _error_of_difference(first, second)
    half = float(special.stdtrit(free, 0.5 + LEVEL / 2)) * error if error else 0.0
    return mean - half, mean + half


def welch_p(first: Sequence[float], second: Sequence[float], threshold: float = 0.0) -> float | None:
    """Returns the two-sided p-value of "the means differ by `threshold`", None as `welch` does."""
    if min(len(first), len(second)) < 2:
        return None
    mean = statistics.fmean(first) - statistics.fmean(second)
    error, free = _error_of_difference(first, second)
    if not error:
        return 1.0 if math.isclose(mean, threshold) else 0.0
    return float(2 * special.stdtr(free, -abs(mean - threshold) / error))


def _error_of_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Returns the standard error of a difference of means, and its degrees of freedom (Welch 1947); 0, 0 of none."""
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (first, second)]
    square = sum(part for part, _ in parts)
    if not square:
        return 0.0, 0.0
    return math.sqrt(square), 1 / sum((part / square) ** 2 / free for part, free in parts)


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


def dunnett(base: Sequence[float], others: Sequence[Sequence[float]]) -> list[tuple[float, float] | None]:
    """Returns Dunnett's simultaneous intervals of several means against one base's, from the pooled variance.

    With probability `LEVEL` all of them hold the true difference (Dunnett 1955); every side has the same variance.

    Args:
        base: what all are compared with.
        others: the samples; one of a single value has no interval, and no part in the variance.

    Returns:
        (low, high) for each sample, None where there is none: fewer than two values, or no spread at all.
    """
    samples = [values for values in others if len(values) > 1]
    if len(base) < 2 or not samples or not any(np.ptp(values) > 0 for values in [base, *samples]):
        return [None] * len(others)
    from scipy import stats

    found = stats.dunnett(*map(np.asarray, samples), control=np.asarray(base), rng=np.random.default_rng(0))
    interval = found.confidence_interval(LEVEL)
    bounds = iter(zip(interval.low.tolist(), interval.high.tolist(), strict=True))
    return [next(bounds) if len(values) > 1 else None for values in others]


def pooled_spread(samples: Sequence[Sequence[float]]) -> float | None:
    """Returns the standard deviation within samples, pooled over them; None where none has two values.

    Args:
        samples: taken to have one variance, as of `dunnett`; one of a single value has no part in it.
    """
    several = [values for values in samples if len(values) > 1]
    if not several:
        return None
    squares = sum((len(values) - 1) * statistics.variance(values) for values in several)
    return math.sqrt(squares / sum(len(values) - 1 for values in several))


def seeds_for(difference: float, spread: float, tests: int = 1) -> int | None:
    """Returns how many seeds a side a two-sided t-test needs to show a difference, with a power of `POWER`.

    From the noncentral t distribution, of equally many values of one variance a side (Cohen 1988, section 2.3).

    Args:
        difference: of the two means, taken to be the true one.
        spread: standard deviation of either side's values, taken to be the true one.
        tests: by which Holm's method divides the level of this one.

    Returns:
        Two or more; None where `MOST_SEEDS` do not suffice.
    """
    if difference == 0:
        return None
    effect, level = abs(difference) / spread if spread else math.inf, (1 - LEVEL) / tests

    def shows(count: int) -> bool:
        free, shift = 2 * count - 2, effect * math.sqrt(count / 2)
        critical = special.stdtrit(free, 1 - level / 2)
        if shift > critical + FAR:
            return True
        return special.nctdtr(free, -shift, -critical) + special.nctdtr(free, shift, -critical) >= POWER

    few, enough = 1, 2
    while not shows(enough):  # upwards, as the distribution far beyond what is asked for is not computed well
        few, enough = enough, 2 * enough
        if few >= MOST_SEEDS:
            return None
    while enough - few > 1:  # the power grows with the number of values
        middle = (few + enough) // 2
        few, enough = (few, middle) if shows(middle) else (middle, enough)
    return enough if enough <= MOST_SEEDS else None


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
