"""What a task measures: the name, unit and direction of each figure, and where it is shown.

A task declares its metrics (`metrics = (LOSS, ACCURACY)`), a record carries what its task declared, and everybody else
asks here instead of reading names. Imports no torch: reports need it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

SPLITS = ("train_", "val_", "test_")  # what a metric's name has before it in a record

Place = Literal["summary", "console", "sweep"]


@dataclass(frozen=True)
class Metric:
    """A figure that a task's `loss` or `evaluate` returns, or that a report reads.

    Attributes:
        name: as the task returns it; in a record the split stands before it (`test_accuracy`).
        unit: "%" or another one; "" for a plain number.
        higher_is_better: whether the best run is the one with the highest.
        of_classes: whether guessing scores what the data's number of classes tells, if it is an accuracy.
        finite: whether a run whose last epoch has no finite value of it has diverged.
        shown: `summary` (a record's last line, from which tables and figures are made), `console` (the progress line)
            and `sweep` (the table at the end of a sweep).
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True
    finite: bool = False
    shown: tuple[Place, ...] = ("summary", "console", "sweep")
    of_classes: bool = True

    @property
    def label(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ")

    @property
    def in_unit(self) -> str:
        """What a text says after the name, "in %"; nothing where there is no unit."""
        return f" in {self.unit}" if self.unit else ""

    def number(self, value: float) -> str:
        """Returns a value as shown, without its unit: percentages with two decimals, others with three."""
        if self.unit == "%":
            return f"{value:.2f}"
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"

    def text(self, value: float | None) -> str:
        """Returns a value as shown, with its unit."""
        if value is None:
            return "not finite"
        return f"{self.number(value)} {self.unit}".rstrip()


LOSS = Metric("loss", higher_is_better=False, finite=True, shown=("summary", "console"))
ACCURACY = Metric("accuracy", "%")
TOP5_ACCURACY = Metric("top5_accuracy", "%")
KNN_ACCURACY = Metric("knn_accuracy", "%")
PERPLEXITY = Metric("perplexity", higher_is_better=False)
MASKED_ACCURACY = Metric("masked_accuracy", "%", of_classes=False)

Declared = Mapping[str, Metric]


def percentage(count: float, of: int) -> float:
    """Returns how many in a hundred: the number nearest to the exact quotient, 14.25 and not 14.249999999999998."""
    return 100.0 * count / of


# Of records made before a record carried its task's own declaration.
_OLDER: Declared = {one.name: one for one in (LOSS, ACCURACY, TOP5_ACCURACY, KNN_ACCURACY)}


def declared_by(task: Any) -> dict[str, Metric]:
    """Returns a task's metrics by name; of one that declares none, its loss.

    Args:
        task: a task or its class.
    """
    return {one.name: one for one in getattr(task, "metrics", (LOSS,))}


def to_json(task: Any) -> list[dict[str, Any]]:
    """Returns a task's declaration as a record's first line holds it, under "metrics"."""
    return [asdict(one) for one in declared_by(task).values()]


def of_record(run: Mapping[str, Any]) -> Declared:
    """Returns what a record's first line declares.

    Raises:
        TypeError, KeyError: it declares something else than metrics.
    """
    if "metrics" not in run:
        return _OLDER
    found = [Metric(**{**one, "shown": tuple(one["shown"])}) for one in run["metrics"]]
    if not all(isinstance(text, str) for one in found for text in (one.name, one.unit)):
        raise TypeError(f"metrics: expected texts as names and units, not {run['metrics']}")
    return {one.name: one for one in found}


def leading(declared: Declared) -> str:
    """Returns the name of the metric a task's curves are drawn by: the first that a sweep's table shows."""
    return next((one.name for one in declared.values() if "sweep" in one.shown), "loss")


def metric_of(key: str, declared: Declared) -> Metric | None:
    """Returns the metric whose value a record's line holds under `key`, None where that is no metric's."""
    split = next((split for split in SPLITS if key.startswith(split)), None)
    return declared.get(key.removeprefix(split)) if split else None


def is_metric(key: str, declared: Declared, place: Place = "summary") -> bool:
    """Says whether a record's line holds under `key` a metric that is shown at this place."""
    found = metric_of(key, declared)
    return found is not None and place in found.shown


def summary_of(line: Mapping[str, Any], declared: Declared) -> dict[str, Any]:
    """Returns the figures of an epoch's line that a run's summary repeats."""
    return {key: value for key, value in line.items() if is_metric(key, declared)}


def diverged(line: Mapping[str, Any], declared: Declared, *, last: bool) -> bool:
    """Says whether a run has diverged by an epoch's line.

    Args:
        line: of the epoch, with `train_loss`.
        declared: the task's metrics.
        last: whether it is the run's last epoch, whose last update may spoil the scored metrics alone.
    """
    must_be = {key for key in line if (found := metric_of(key, declared)) and found.finite} if last else {"train_loss"}
    return not _all_finite(line[key] for key in must_be | {"train_loss"})


def _all_finite(values: Iterable[float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def in_words(line: Mapping[str, Any], declared: Declared) -> str:
    """Returns the metrics of a record's line that the console shows, as a text."""
    shown = [key for key in line if is_metric(key, declared, "console")]
    return "  ".join(f"{key.replace('_', ' ')} {metric_of(key, declared).text(line[key])}" for key in shown)
