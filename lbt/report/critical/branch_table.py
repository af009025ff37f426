"""The table of a training's branches, and the critical batch that they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lbt.report.critical.branches import FACTOR, POINT, Point, factors, points
from lbt.report.frame import Frame, select
from lbt.report.kit import render
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.kit.wording import stands_on

FIGURES = ("n", "mean", "sd", "min", "max", "status", "excess", "critical_batch", "bounded")


@dataclass(frozen=True)
class Spec:
    """What a file of `configs/table` says of branches.

    Attributes:
        title, about: its name and what it shows.
        select: setting -> value or values of the runs.
        tolerance: how much worse than at factor 1 the metric may be, in its unit; stated before the runs.
        metric: the figure at the end of a branch.
        series: the setting that the curves are of.
        labels: value -> what the table calls it.
    """

    title: str
    about: str
    select: Mapping[str, Any]
    tolerance: float
    metric: str = "test_loss"
    series: str = "optimizer.name"
    labels: Mapping[Any, Any] = field(default_factory=dict)


class BranchTable:
    """One table.

    Args:
        name: of its YAML file.
        spec: what that file says.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, Spec(**spec), frame.problems
        self.runs = select(frame.runs, self.spec.select)
        options = {key: getattr(self.spec, key) for key in ("series", "metric", "tolerance")}
        self.points, self.mixed = points(self.spec.select, frame, **options)

    def page(self) -> Page:
        """Returns the table laid out: a section for each set of runs that may be compared."""
        sections = [
            self._section([one for one in self.points if one.standing == standing])
            for standing in dict.fromkeys(one.standing for one in self.points)
        ]
        figure = self.spec.metric.replace("_", " ")
        legend = [
            f"Each row is a point of a training, after so many epochs, from which branches go on for as many images "
            f"with the batch times 1, 2, ...; shown is the {figure} at their ends: mean ± standard deviation over n "
            f"seeds. The critical batch is the largest up to which no mean is worse than that of factor 1 by more than "
            f"{self.spec.tolerance:g} (Merrill et al. 2025, arXiv 2505.23971); `at least`: none of those tried was. "
            f"Each figure's runs are named in `{self.name}.csv`. Made by `lbt tables {self.name}`."
        ]
        notes = [f"left out: {problem}" for problem in self.problems]
        notes += [note for cell in self.mixed for note in cell.notes()]
        empty = Section("", "No run yet.", [("", 1)], ["optimizer"], [])
        return Page(self.spec.title, " ".join(self.spec.about.split()), sections or [empty], legend, notes)

    def _section(self, found: Sequence[Point]) -> Section:
        tried = factors(found)
        header = [self.spec.series.removesuffix(".name"), "batch", "branches after", *[f"x {one}" for one in tried]]
        rows = []
        for one in found:
            cells = [one.cells[factor].text() if factor in one.cells else "-" for factor in tried]
            place = [str(self.spec.labels.get(one.series, one.series)), f"{one.batch:,}", f"epoch {one.at}"]
            rows.append([*map(Entry, place), *map(Entry, cells), Entry(one.text())])
        groups = [("", 3), (f"{self.spec.metric.replace('_', ' ')} with the batch times", len(tried)), ("", 1)]
        return Section("", _caption(found), groups, [*header, "critical batch"], rows)

    def csv(self) -> str:
        """Returns the table as CSV: a row for each batch of each point."""
        lines = []
        for one in self.points:
            at = {self.spec.series: one.series, "batch": one.batch, POINT: one.at}
            critical = None if one.factor is None else one.batch * one.factor
            for factor, excess in one.excess.items():
                said = {"excess": None if excess is None else f"{excess:.6g}", "critical_batch": critical}
                lines.append({**at, FACTOR: factor, **one.cells[factor].figures(), **said, "bounded": one.bounded})
        place = [self.spec.series, "batch", POINT, FACTOR]
        return render.csv(lines, [*place, *FIGURES, "origin", "fingerprint", "runs"])


def _caption(found: Sequence[Point]) -> str:
    """Returns what a section's runs stand on, and how long their branches are."""
    runs = [run for one in found for cell in one.cells.values() for run in cell.rows]
    lengths = sorted({one["branch.epochs"] for cell in found for one in _settings(cell)})
    trained = sorted({int(value) for run in runs if pd.notna(value := run.get("train_images"))})
    images = f" ({int(lengths[0]) * trained[0]:,} images)" if len(lengths) == len(trained) == 1 else ""
    length = f"branches of {' or '.join(f'{int(one)}' for one in lengths)} epoch{'s' * (lengths != [1])}{images}"
    epochs = found[0].standing.epochs

    def column(name: str) -> list:
        return [run[name] for run in runs]

    return stands_on(column, f"Trainings of {epochs} epochs and {length} of", "")


def _settings(one: Point) -> list[Mapping[str, Any]]:
    return [settings for cell in one.cells.values() for settings in cell.column("settings")]
