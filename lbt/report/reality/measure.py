"""What a study's runs are compared by: a metric of their task, which way is better, and what guessing scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lbt.metrics import ACCURACY, Metric
from lbt.report.kit.cells import metric_named
from lbt.report.kit.statistics import at_chance, chance, scored_images, value_of

INFEASIBLE = ("diverged", "oom", "failed")  # ends that count as guessing


@dataclass(frozen=True)
class Measure:
    """A metric and its use in a study.

    Attributes:
        metric: as its task declares it.
        guess: what guessing scores; None: an accuracy, of which the number of classes tells it.
    """

    metric: Metric = ACCURACY
    guess: float | None = None

    @classmethod
    def of(cls, runs: pd.DataFrame, name: str, guess: float | None) -> "Measure":
        """Returns the measure of some runs.

        Args:
            runs: of a frame.
            name: of the figure in a run's summary.
            guess: of the study.
        """
        return cls(metric_named(runs, name), guess)

    def worth(self, value: float) -> float:
        """Returns what to compare a figure by, higher is better; of that again, the figure."""
        return value if self.metric.higher_is_better else -value

    def reaches(self, value: float, target: float) -> bool:
        """Says whether a figure is at the target."""
        return self.worth(value) >= self.worth(target)

    def score(self, row: Mapping[str, Any], name: str, value: float | None) -> float:
        """Returns what a finished run counts as: its figure, and as guessing without one or with a worse one.

        An accuracy counts as it is: there a run below chance is no worse than others.

        Args:
            row: of a frame.
            name: of the figure in its summary.
            value: the figure, None where it has none.
        """
        if self.guess is not None:
            return self.guess if value is None else max(value, self.guess, key=self.worth)
        if value is not None:
            return value
        found = value_of({**row, "status": "failed"}, name, INFEASIBLE)
        return 0.0 if found is None else found

    def is_guess(self, row: Mapping[str, Any], name: str, value: float) -> bool:
        """Says whether a finished run did not train, or its figure may be a guess; arguments as of `score`."""
        if self.guess is not None:
            return row["status"] != "done" or self.worth(value) <= self.worth(self.guess)
        return row["status"] != "done" or at_chance(value, chance(row, name), scored_images(row, name))

    @property
    def digits(self) -> int:
        """Decimals that its figures are shown with."""
        return 2 if self.metric.unit == "%" else 3

    @property
    def unit(self) -> str:
        """What stands after a figure: " %"."""
        return f" {self.metric.unit}" if self.metric.unit else ""

    def axis(self, split: str, of: str = "") -> str:
        """Returns what an axis of its figures is called: "validation accuracy of the best (%)"."""
        words = [split, self.metric.label, of, f"({self.metric.unit})" if self.metric.unit else ""]
        return " ".join(filter(None, words))

    @property
    def difference(self) -> str:
        """What a difference of two figures is in: "% points"."""
        return "% points" if self.metric.unit == "%" else self.metric.unit or self.metric.label

    def text(self, value: float, *, signed: bool = False) -> str:
        """Returns a figure, or with its sign a difference, as a sentence shows it, without its unit."""
        return f"{value:{'+' if signed else ''}.{self.digits}f}"


OF_ACCURACY = Measure()
