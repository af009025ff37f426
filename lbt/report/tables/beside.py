"""A table of ours, and published figures of another measure before it, in a section of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lbt.config import groups
from lbt.errors import reading
from lbt.report.frame import Frame
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.tables.grid import PUBLISHED, Table

NOT_RUN = "not run"


@dataclass(frozen=True)
class Spec:
    """What such a file of `configs/table` says.

    Attributes:
        title, about: its name and what it shows.
        beside: the published figures: `file` (CSV, in `configs/table`), `value`, `rows` and `columns` (of it),
            `measure` (what they are) and `source`.
        select, rows, columns, metric, axes, labels: of our table, as of a grid.
    """

    title: str
    about: str
    beside: Mapping[str, str]
    select: Mapping[str, Any]
    rows: Sequence[str]
    columns: Sequence[str]
    metric: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[Any, Any] = field(default_factory=dict)


class BesideTable(Table):
    """The table; nothing of ours is measured as the published figures are, and so that side is not run.

    Args:
        name: of its YAML file.
        spec: what that file says.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        super().__init__(name, spec, frame)
        self.beside = spec["beside"]
        path = groups.beside("table", self.beside["file"])
        with reading(path):
            self.known = pd.read_csv(path)

    def page(self) -> Page:
        """Returns the table laid out: what is published, then ours."""
        page = super().page()
        for section in page.sections:
            section.title = section.title or f"Ours: {self.spec['metric'].replace('_', ' ')}"
        return Page(page.title, page.about, [self._published(), *page.sections], page.legend, page.notes)

    def _published(self) -> Section:
        rows, columns, value = (self.beside[key] for key in ("rows", "columns", "value"))
        names = list(dict.fromkeys(self.known[columns]))
        labels = [self._label(name) for name in names]
        grid = []
        for row, own in self.known.groupby(rows, sort=False):
            figures = dict(zip(own[columns], own[value], strict=True))
            entries = [
                Entry(f"{figures[name]:.2f}" if name in figures else "not at hand", kind=PUBLISHED) for name in names
            ]
            grid.append([Entry(str(row), kind="label"), *entries, *[Entry(NOT_RUN, kind="missing") for _ in names]])
        groups_of = [("", 1), (PUBLISHED, len(names)), ("ours", len(names))]
        caption = f"{self.beside['source']}. Ours: not run; what is measured below is something else."
        title = f"Published: {self.beside['measure']}"
        return Section(title, caption, groups_of, [rows, *labels, *labels], grid)

    def lines(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Returns the rows of our table, and one for each published figure; `measure` says what a row's figures are."""
        ours, header = super().lines()
        rows, columns, value = (self.beside[key] for key in ("rows", "columns", "value"))
        lines = [{"measure": self.spec["metric"], **line} for line in ours]
        for known in self.known.to_dict("records"):
            place = {self.keys[0]: known[rows], self.keys[-1]: known[columns], "published": known[value]}
            lines.append({"measure": self.beside["measure"], **place, "n": 0, "status": "missing"})
        return lines, ["measure", *header]
