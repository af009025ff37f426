"""The figures claims are judged by: accuracies of runs of one configuration, from the records or from print."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lbt.report.kit.cells import Cell, make_cells
from lbt.report.kit.published import Published

KEYS = (
    "task.name", "data.name", "model.name", "batch", "optimizer.name", "lr", "optimizer.lam", "model.init",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Runs of one configuration.

    Attributes:
        where: task and data set, and what else their figures stand on: only samples of one `where` are compared.
        batch, optimizer, lr, lam, init: their settings; None where there is none.
        values: a run's accuracy in %, for a diverged one that it was left with.
        curves: each run's accuracy after each epoch; none for published figures.
        diverged: how many of them diverged.
    """

    where: tuple[str, str, Any]
    batch: int
    optimizer: str
    lr: float
    values: tuple[float, ...]
    lam: float | None = None
    init: str | None = None
    curves: tuple[np.ndarray, ...] = ()
    diverged: int = 0

    @property
    def mean(self) -> float:
        """Mean accuracy in %."""
        return statistics.fmean(self.values)

    @property
    def place(self) -> tuple[str, str, int]:
        """Task, data set and batch."""
        return (*self.where[:2], self.batch)


def of_runs(runs: pd.DataFrame, metric: str) -> tuple[list[Sample], list[str]]:
    """Returns the samples of these rows of a frame, and a line for each place of mixed settings, which has none."""
    cells = make_cells(runs, KEYS, metric)
    mixed = [note for cell in cells for note in cell.notes()]
    samples = [_sample(cell) for cell in cells if not cell.differing]
    return [sample for sample in samples if sample.values], mixed


def _sample(cell: Cell) -> Sample:
    task, data, _, batch, optimizer, lr, lam, init = cell.key.values()
    runs = cell.runs[cell.runs["status"].isin(["done", "diverged"])]
    found = [
        (summary.get(cell.name) or 0.0, curve, status)
        for summary, curve, status in zip(runs["summary"], runs["curve"], runs["status"], strict=True)
        if status == "diverged" or summary.get(cell.name) is not None
    ]
    values, curves = tuple(value for value, _, _ in found), tuple(curve for _, curve, _ in found)
    diverged = sum(status == "diverged" for _, _, status in found)
    return Sample((task, data, cell.standing), batch, optimizer, lr, values, lam, init, curves, diverged)


def of_print(published: Published) -> list[Sample]:
    """Returns the published figures, each a sample of one."""
    return [
        Sample(
            (known["task.name"], known["data.name"], None),
            known["batch"],
            known["optimizer.name"],
            known["lr"],
            (published.value(known),),
        )
        for known in published
    ]


def best(samples: Sequence[Sample], **settings: Any) -> dict[tuple, Sample]:
    """Returns, for each `where` and batch, the sample with these settings at the rate of the highest mean."""
    found: dict[tuple, Sample] = {}
    for sample in samples:
        key = (sample.where, sample.batch)
        fits = all(getattr(sample, name) == value for name, value in settings.items())
        if fits and (key not in found or sample.mean > found[key].mean):
            found[key] = sample
    return found


def pairs(
    samples: Sequence[Sample], first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[Sample, Sample]]:
    """Yields the two at each place that has both, each at its best rate."""
    of_first, of_second = best(samples, **first), best(samples, **second)
    for key in of_first.keys() & of_second.keys():
        yield of_first[key], of_second[key]
