"""The figures claims are judged by: accuracies of runs of one configuration, from the records or from print."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lbt.report.kit.cells import Cell, make_cells
from lbt.report.kit.published import Published
from lbt.report.kit.statistics import CLASSES, IMAGES, at_chance, chance, chance_of, scored_images, value_of

KEYS = (
    "task.name", "data.name", "model.name", "batch", "optimizer.name", "lr", "optimizer.lam", "model.init",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Runs of one configuration.

    Attributes:
        where: task and data set, and what else their figures stand on: only samples of one `where` are compared.
        batch, optimizer, lr, lam, init: their settings; None where there is none.
        values: a run's accuracy in %, for a diverged one that of chance.
        curves: each run's accuracy after each epoch; none for published figures.
        untrained: how many of them diverged or ended at chance.
        validation: mean accuracy in % on the validation split, None without one.
        runs: their ids.
    """

    where: tuple[str, str, Any]
    batch: int
    optimizer: str
    lr: float
    values: tuple[float, ...]
    lam: float | None = None
    init: str | None = None
    curves: tuple[np.ndarray, ...] = ()
    untrained: int = 0
    validation: float | None = None
    runs: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean accuracy in %."""
        return statistics.fmean(self.values)

    @property
    def trains(self) -> bool:
        """Whether any of them does."""
        return self.untrained < len(self.values)

    @property
    def place(self) -> tuple[str, str, int]:
        """Task, data set and batch."""
        return (*self.where[:2], self.batch)


def of_runs(runs: pd.DataFrame, metric: str) -> tuple[list[Sample], list[str]]:
    """Returns the samples of these rows of a frame, and a line for each place of mixed settings, which has none."""
    cells = make_cells(runs, KEYS, metric)
    mixed = [note for cell in cells if cell.differing for note in cell.notes()]
    samples = [_sample(cell) for cell in cells if not cell.differing]
    return [sample for sample in samples if sample.values], mixed


@dataclass(frozen=True)
class Measured:
    """What the runs of a cell measured: those of them that have a figure, and as `Sample` says `values` and the rest.

    Attributes:
        runs: their rows of the frame.
    """

    runs: list[dict[str, Any]]
    values: tuple[float, ...]
    untrained: int
    validation: float | None


def measured(cell: Cell) -> Measured:
    """Returns the figures of a cell's runs."""
    known = [(run, value_of(run, cell.name)) for run in cell.rows]
    found = [(run, value) for run, value in known if value is not None]
    untrained = sum(
        run["status"] == "diverged" or at_chance(value, chance(run, cell.name), scored_images(run, cell.name))
        for run, value in found
    )
    validated = [value_of(run, cell.name.replace("test_", "val_")) for run, _ in found]
    mean = None if not validated or None in validated else statistics.fmean(validated)
    validation = mean if all((run.get("data.val") or 0) > 0 for run in cell.rows) else None
    return Measured([run for run, _ in found], tuple(value for _, value in found), untrained, validation)


def _sample(cell: Cell) -> Sample:
    task, data, _, batch, optimizer, lr, lam, init = cell.key.values()
    found, where = measured(cell), (task, data, cell.standing)
    curves = tuple(run["curve"] for run in found.runs)
    ids = tuple(run["id"] for run in found.runs)
    return Sample(where, batch, optimizer, lr, found.values, lam, init, curves, found.untrained, found.validation, ids)


def _printed(published: Published, known: Mapping[str, Any]) -> Sample:
    value, data = published.value(known), known["data.name"]
    guess = at_chance(value, chance_of(CLASSES.get(data), "accuracy"), IMAGES)
    where = (known["task.name"], data, None)
    return Sample(where, known["batch"], known["optimizer.name"], known["lr"], (value,), untrained=int(guess))


def of_print(published: Published) -> list[Sample]:
    """Returns the published figures, each a sample of one."""
    return [_printed(published, known) for known in published]


def at_printed_rates(samples: Sequence[Sample], published: Published) -> tuple[list[Sample], list[str]]:
    """Returns the samples at the rates of print, of places that have all of them, and what the other places lack."""
    rates: dict[tuple, set[float]] = {}
    for one in of_print(published):
        rates.setdefault((*one.place, one.optimizer), set()).add(one.lr)
    groups: dict[tuple, list[Sample]] = {}
    for sample in samples:
        if sample.lr in rates.get((*sample.place, sample.optimizer), ()):
            groups.setdefault((sample.where, sample.batch, sample.optimizer), []).append(sample)
    kept, lacking = [], []
    for found in groups.values():
        first = found[0]
        if missing := rates[(*first.place, first.optimizer)] - {one.lr for one in found}:
            listed = ", ".join(f"{rate:g}" for rate in sorted(missing))
            lacking.append(f"{first.optimizer} at {' '.join(map(str, first.place))}: {listed}")
        else:
            kept += found
    return kept, sorted(set(lacking))


def best(samples: Sequence[Sample], **settings: Any) -> dict[tuple, Sample]:
    """Returns, for each `where` and batch, the sample with these settings at its best rate.

    That is the one of the highest mean on the validation split; without a split, on the test set.
    """
    found: dict[tuple, Sample] = {}
    for sample in samples:
        key = (sample.where, sample.batch)
        fits = all(getattr(sample, name) == value for name, value in settings.items())
        if fits and (key not in found or _worth(sample) > _worth(found[key])):
            found[key] = sample
    return found


def _worth(sample: Sample) -> float:
    return sample.mean if sample.validation is None else sample.validation


def pairs(
    samples: Sequence[Sample], first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[Sample, Sample]]:
    """Yields the two at each place that has both, each at its best rate."""
    of_first, of_second = best(samples, **first), best(samples, **second)
    for key in of_first.keys() & of_second.keys():
        yield of_first[key], of_second[key]
