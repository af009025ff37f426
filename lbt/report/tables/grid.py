"""A table over a grid of settings: rows, blocks of columns, published figures beside ours."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lbt.records.variation import order
from lbt.report.frame import SUSPECT, Frame, select
from lbt.report.kit import best, render
from lbt.report.kit.cells import Cell, Standing, make_cells, metric_named
from lbt.report.kit.published import Published
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.kit.wording import setting
from lbt.report.tables import readings

PUBLISHED = "published"


@dataclass(frozen=True)
class Spec:
    """What a file of `configs/table` says.

    Attributes:
        title, about: its name and what it shows.
        select: setting -> value or values of the runs (`lbt.report.frame.select`).
        rows, columns, sections: the settings whose values they stand for; of several columns the last within blocks.
        metric: the figure of a run's summary.
        axes: setting -> values that have a place also without a run.
        best: `highest` marks the best of a row's block.
        best_of: settings of whose values a cell has the best one.
        labels: value -> what the table calls it.
        published: figures that stand beside ours, of a file in `configs/table` (`lbt.report.kit.published`).
        readings: choices of `configs/protocol` under which runs are placed (`lbt.report.tables.readings`).
    """

    title: str
    about: str
    select: Mapping[str, Any]
    rows: Sequence[str]
    columns: Sequence[str]
    metric: str
    sections: Sequence[str] = ()
    axes: Mapping[str, Any] = field(default_factory=dict)
    best: Literal["highest"] | None = None
    best_of: Sequence[str] = ()
    labels: Mapping[Any, Any] = field(default_factory=dict)
    published: Mapping[str, Any] | None = None
    readings: Sequence[str] = ()


class Table:
    """One table.

    Args:
        name: of its YAML file.
        spec: what that file says.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, spec, frame.problems
        self.runs = select(frame.runs, spec["select"])
        if "readings" in spec:
            self.runs = readings.placed(self.runs, spec["readings"])
        self.published = Published(spec.get("published"))
        self.sections, self.rows, self.columns = spec.get("sections", []), spec["rows"], spec["columns"]
        self.keys = [*self.sections, *self.rows, *self.columns]
        self.best_of, self.chosen = spec.get("best_of", []), {}
        if self.best_of:
            self.runs, self.chosen = best.of(self.runs, self.keys, self.best_of, spec["metric"])
        self.cells = make_cells(self.runs, self.keys, spec["metric"])
        self.metric = metric_named(self.runs, spec["metric"])

    def _grid(self, keys: Sequence[str]) -> list[tuple]:
        """Returns every combination of `keys` a row, column or section stands for: expected, published or measured."""
        axes = self.spec.get("axes", {})
        found: dict[tuple, None] = {}
        if all(key in axes for key in keys):
            found |= dict.fromkeys(itertools.product(*(axes[key] for key in keys)))
        for settings in self.published:
            if all(key in settings for key in keys):
                found |= {tuple(settings[key] for key in keys): None}
        for cell in self.cells:
            found |= {tuple(cell.key[key] for key in keys): None}
        return list(found)

    def page(self) -> Page:
        """Returns the table laid out: a section for each part and for each set of runs that may be compared."""
        sections = []
        for place in self._grid(self.sections) if self.sections else [()]:
            fixed = dict(zip(self.sections, place, strict=True))
            here = [cell for cell in self.cells if all(cell.key[key] == value for key, value in fixed.items())]
            standings = list(dict.fromkeys(cell.standing for cell in here)) or [None]
            parts = [[cell for cell in here if cell.standing == standing] for standing in standings]
            for number, (standing, own, apart) in enumerate(
                zip(standings, parts, _apart(standings, parts), strict=True)
            ):
                sections.append(self._section(fixed, standing, own, apart, whole=number == 0))
        about = " ".join(self.spec["about"].split())
        left_out = [f"left out: {problem}" for problem in self.problems]
        return Page(self.spec["title"], about, sections, self._legend(), left_out)

    def _section(
        self, fixed: Mapping[str, Any], standing: Standing | None, cells: Sequence[Cell], apart: str, *, whole: bool
    ) -> Section:
        """Returns one part; where it is not `whole` it has only rows with runs: what is missing stands in the first."""
        blocks = self._blocks()
        header = [key.removesuffix(".name") for key in self.rows]
        header += [self._label(column[-1]) for _, columns in blocks for column in columns]
        of_place = {tuple(cell.key[key] for key in self.keys): cell for cell in cells}
        run = {tuple(cell.key[key] for key in self.rows) for cell in cells}
        grid = [row for row in self._grid(self.rows) if (row in run or whole) and self._belongs(fixed, row, cells)]
        rows = []
        for row in sorted(grid, key=lambda row: tuple(map(order, row))):
            settings = {**fixed, **dict(zip(self.rows, row, strict=True))}
            entries = [Entry(setting(value), kind="label") for value in row]
            for label, columns in blocks:
                entries += self._entries(settings, columns, of_place, published=label == PUBLISHED)
            rows.append(entries)
        groups = [("", len(self.rows)), *[(label, len(columns)) for label, columns in blocks]]
        caption = standing.caption(cells) if standing else "No run yet."
        if self.best_of:
            caption += f" Each figure is the best of its {best.said(self.best_of, self.spec['metric'])}."
        notes = [note for cell in cells for note in cell.notes()]
        if suspect := sorted(run["id"] for cell in cells for run in cell.rows if run["suspect"]):
            notes.append(f"{SUSPECT}: {', '.join(suspect)}")
        if "readings" in self.spec:
            notes += readings.distances(cells, self.published, self._label)
        title = ", ".join([*itertools.starmap(_part, fixed.items()), *filter(None, [apart])])
        return Section(title, caption, groups, header, rows, notes, place=fixed)

    def _blocks(self) -> list[tuple[str, list[tuple]]]:
        """Returns (label, columns): the published block first, then one for each value of all but the last key."""
        columns = self._grid(self.columns)
        of_block: dict[tuple, list[tuple]] = {}
        for column in columns:
            of_block.setdefault(column[:-1], []).append(column)
        order_of = self.spec.get("axes", {}).get(self.columns[-1], [])
        for known in of_block.values():
            known.sort(key=lambda column: order_of.index(column[-1]) if column[-1] in order_of else len(order_of))
        blocks = [(" ".join(map(self._label, block)), columns) for block, columns in of_block.items()]
        if self.published:
            last = dict.fromkeys(column[-1:] for column in columns)
            blocks.insert(0, (PUBLISHED, list(last)))
        return blocks

    def _label(self, value: Any) -> str:
        return str(self.spec.get("labels", {}).get(value, value))

    def _entries(
        self, settings: Mapping[str, Any], columns: Sequence[tuple], of_place: Mapping[tuple, Cell], *, published: bool
    ) -> list[Entry]:
        """Returns one block of a row, with the best of at least two decided entries marked."""
        entries, worth = [], []
        for column in columns:
            placed = {**settings, **dict(zip(self.columns[-len(column) :], column, strict=True))}
            if published:
                value = self.published.value(placed)
                entries.append(Entry("not at hand" if value is None else self.metric.number(value), kind=PUBLISHED))
                entries[-1] = replace(entries[-1], value=value)
                value = value if value is None or self.metric.higher_is_better else -value
            else:
                cell = of_place.get(tuple(placed[key] for key in self.keys))
                value = cell.worth() if cell else None
                entries.append(self._entry(cell))
            worth.append(value)
        decided = [value for value in worth if value is not None]
        marked = "best" in self.spec and len(decided) > 1 and max(decided) > -math.inf
        return [
            replace(entry, best=marked and value == max(decided)) for entry, value in zip(entries, worth, strict=True)
        ]

    def _entry(self, cell: Cell | None) -> Entry:
        if cell is None:
            return Entry("-", kind="missing")
        value = None if cell.differing else cell.mean
        runs = sorted(cell.column("id"))
        return Entry(cell.text() + self._at(cell), False, "runs", runs, value, cell.statuses["diverged"])

    def _at(self, cell: Cell) -> str:
        """Returns where the cell's best was found: " at lr 0.1"."""
        known = self.chosen.get(cell.rows[0]["id"], {})
        return f" at {', '.join(f'{key} {setting(value)}' for key, value in known.items())}" if known else ""

    def _belongs(self, fixed: Mapping[str, Any], row: Sequence[Any], cells: Sequence[Cell]) -> bool:
        placed = {**fixed, **dict(zip(self.rows, row, strict=True))}
        if not self.published or any(all(cell.key[key] == placed[key] for key in placed) for cell in cells):
            return True
        return any(all(known.get(key) == value for key, value in placed.items()) for known in self.published)

    def _legend(self) -> list[str]:
        figure = self.spec["metric"].replace("_", " ")
        which = "highest" if self.metric.higher_is_better else "lowest"
        best = f"; bold: the {which} mean of a row's block, which says nothing of chance" if "best" in self.spec else ""
        lines = [
            f"{figure}{self.metric.in_unit} after the last epoch: mean ± standard deviation over n seeds, a "
            f"diverged run beside finished ones at chance; "
            f"`-` not run{best}. "
            f"Each figure's runs are named in `{self.name}.csv`, a run's record is `runs/*/<id>.jsonl`. "
            f"Made by `{self.spec.get('made_by', f'lbt tables {self.name}')}`."
        ]
        if self.published:
            lines += ["", f"Published: {self.published.source}."]
        return lines

    def csv(self) -> str:
        """Returns the table as CSV: a row for each cell with a run, and for each published one without."""
        return render.csv(*self.lines())

    def lines(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Returns the rows of `csv`, and its columns."""
        figures = [
            "n",
            "mean",
            "sd",
            "last5_mean",
            "min",
            "max",
            "status",
            "published",
            "origin",
            "fingerprint",
            "epochs",
            "runs",
        ]
        lines = [
            {**cell.key, **self.chosen.get(cell.rows[0]["id"], {}), **cell.figures()}
            | {"published": self.published.value(cell.key)}
            for cell in self.cells
        ]
        lines += [
            {**settings, "n": 0, "status": "missing", "published": self.published.value(settings)}
            for settings in self.missing()
        ]
        return lines, [*self.keys, *self.best_of, *figures]

    def missing(self) -> list[dict[str, Any]]:
        """Returns the settings of each place that is to have a run, or a published figure, and has no run."""
        shown = {tuple(cell.key[key] for key in self.keys) for cell in self.cells}
        grid = itertools.product(self._grid([*self.sections, *self.rows]), self._grid(self.columns))
        places = (dict(zip(self.keys, itertools.chain(*place), strict=True)) for place in grid)
        return [
            settings
            for settings in places
            if (not self.published or self.published.value(settings) is not None)
            and tuple(settings.values()) not in shown
        ]


def _apart(standings: Sequence[Standing | None], parts: Sequence[Sequence[Cell]]) -> list[str]:
    """Returns what the title of each of several parts adds: what tells them apart, or their numbers."""
    if len(parts) < 2:
        return [""] * len(parts)
    epochs = [f"{one.epochs} epochs" for one in standings]
    precisions = [", ".join(sorted({value for cell in part for value in cell.column("precision")})) for part in parts]
    for told in (epochs, precisions, [one.origin for one in standings]):
        if len(set(told)) == len(parts):
            return told
    return [f"part {number}" for number in range(1, len(parts) + 1)]


def _part(key: str, value: Any) -> str:
    """Returns what a section's setting is called; a number says what it is of."""
    return f"{key} {setting(value)}" if isinstance(value, int | float) else setting(value)
