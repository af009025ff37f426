"""Figures of one run that claims about curvature and gradient noise are judged by, from its record."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lbt.report.looks import Looks

EARLY = 0.2  # share of a training that is early: that of the warm-up in these runs


@dataclass(frozen=True)
class Measure:
    """A figure of a run.

    Attributes:
        unit: of the figure; decades are powers of ten.
        of: computes it, None where the record has none.
    """

    unit: str
    of: Callable[[Looks], float | None]


def _early(figure: str) -> Callable[[Looks], float | None]:
    """Returns what gives the mean decadic logarithm over the looks after the first update and within `EARLY`."""

    def of(looks: Looks) -> float | None:
        found = [value for step, value in looks.series("sharpness", figure) if 0 < step <= EARLY * looks.steps]
        return statistics.fmean(map(math.log10, found)) if found and min(found) > 0 else None

    return of


def _end(looks: Looks) -> float | None:
    """Returns the decadic logarithm of lambda_max after the last update."""
    found = [value for step, value in looks.series("sharpness", "lambda_max") if step == looks.steps]
    return math.log10(found[-1]) if found and found[-1] > 0 else None


def _gradient_drop(looks: Looks) -> float | None:
    """Returns by how many decades the layers' gradient norms within `EARLY` are below those of the rest (mean logs)."""
    steps, norms = looks.norms()
    if not len(steps):
        return None
    logs = np.log10(np.where(norms > 0, norms, np.nan))
    early = steps < EARLY * looks.steps
    if not np.isfinite(logs[early]).any() or not np.isfinite(logs[~early]).any():
        return None
    return float(np.nanmean(logs[~early]) - np.nanmean(logs[early]))


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _after_the_first_update(looks: Looks, probe: str, figure: str) -> list[float]:
    """Returns a figure of the looks that tell variants of one seed apart: before, they have the same weights."""
    return [value for step, value in looks.series(probe, figure) if step > 0]


def _change(looks: Looks) -> float | None:
    """Returns the mean over the looks of what micro-batched batch norm changes of the gradient, in %."""
    return _mean([100 * value for value in _after_the_first_update(looks, "batch_norm", "change")])


def _gain(figure: str) -> Callable[[Looks], float | None]:
    """Returns what gives the mean over the looks of how much less stratified batches vary, in % of random ones."""
    return lambda looks: _mean([100 * (1 - value) for value in _after_the_first_update(looks, "stratified", figure)])


def _more_gain(looks: Looks) -> float | None:
    """Returns how much larger the gain is on imbalanced images, in points of %."""
    own, imbalanced = (MEASURES[name].of(looks) for name in ("stratified_gain", "stratified_gain_imbalanced"))
    return None if own is None or imbalanced is None else imbalanced - own


MEASURES = {
    "early_sharpness": Measure("decades", _early("lambda_max")),
    "early_sharpness_normalised": Measure("decades", _early("lambda_max_normalised")),
    "end_sharpness": Measure("decades", _end),
    "gradient_drop": Measure("decades", _gradient_drop),
    "batch_norm_change": Measure("%", _change),
    "stratified_gain": Measure("%", _gain("ratio")),
    "stratified_gain_imbalanced": Measure("%", _gain("imbalanced.ratio")),
    "stratified_gain_more": Measure("points of %", _more_gain),
}
