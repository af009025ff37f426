"""How the updates that a training needs fall with the batch: perfect scaling, and where it ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from lbt.report.kit.statistics import LEVEL

FEWEST = 3  # batches; two determine the curve, and nothing then says how well
BEYOND = 64.0  # times the batches measured: what lies further out is not told apart from infinity or 0


@dataclass(frozen=True)
class Scaling:
    """steps = s_min (1 + b_crit / batch), McCandlish et al. 2018 (arXiv 1812.06162).

    With E = batch * steps images that is their (S / S_min - 1) (E / E_min - 1) = 1.

    Attributes:
        s_min: updates that no batch gets below.
        b_crit: critical batch size, images: there twice as many updates as `s_min` are needed, and twice as many
            images as the smallest batches need.
        interval: of `b_crit` at 95 %, from the residuals in the logarithm; it holds no other uncertainty.
        smallest, largest: batches it was fitted to.
    """

    s_min: float
    b_crit: float
    interval: tuple[float, float]
    smallest: int
    largest: int

    def steps(self, batch: float) -> float:
        """Returns the updates at a batch."""
        return self.s_min * (1 + self.b_crit / batch)

    def text(self) -> str:
        """Returns the fit in words: "B_crit 3,100 (95 %: 2,000 to 4,800), S_min 290"."""
        if not self.decided:
            return "B_crit not determined by these batches"
        low, high = self.interval
        outside = "" if self.smallest <= self.b_crit <= self.largest else ", extrapolated"
        bounds = f"(95 %: {_round(low)} to {_round(high)}{outside})"
        return f"B_crit {_round(self.b_crit)} {bounds}, S_min {_round(self.s_min)}"

    @property
    def decided(self) -> bool:
        """Whether the data bound the critical batch at all."""
        low, high = self.interval
        return self.smallest / BEYOND < low and high < self.largest * BEYOND


def fit(batches: Sequence[float], steps: Sequence[float]) -> Scaling | None:
    """Fits `Scaling` by least squares in the logarithm; None of fewer than `FEWEST` batches.

    Args:
        batches: images, distinct.
        steps: updates to the target at each.
    """
    if len(batches) < FEWEST:
        return None
    from scipy import optimize  # only where there is something to fit: it takes a while to import

    batch, wanted = np.asarray(batches, dtype=float), np.log(np.asarray(steps, dtype=float))

    def residuals(place: np.ndarray) -> np.ndarray:
        return place[0] + np.log1p(np.exp(place[1]) / batch) - wanted

    low, high = math.log(batch.min() / BEYOND**2), math.log(batch.max() * BEYOND**2)
    begin = [wanted.min(), math.log(batch.mean())]
    bounds = ([-np.inf, low], [np.inf, high])
    found = optimize.least_squares(residuals, begin, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    free = len(batch) - 2
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * (2 * found.cost / free)
    width = float(special.stdtrit(free, 0.5 + LEVEL / 2) * math.sqrt(max(covariance[1, 1], 0.0)))
    s_min, b_crit = np.exp(found.x).tolist()
    interval = _exp(found.x[1] - width), _exp(found.x[1] + width)
    return Scaling(s_min, b_crit, interval, int(batch.min()), int(batch.max()))


def _exp(value: float) -> float:
    return math.exp(min(float(value), 700.0))


def _round(value: float) -> str:
    """Returns a number with two digits: the batches are a factor of two apart."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(digits, 0)}f}"
