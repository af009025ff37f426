"""The points of a figure: cells placed on its axes, from data that may be compared."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame, select
from lbt.report.kit.cells import Cell, Standing, make_cells
from lbt.report.kit.published import Published
from lbt.report.tables.readings import placed

Place = tuple[Any, Any]  # a panel's row and column


class Point(NamedTuple):
    """A cell and its place."""

    panel: Place
    series: Any
    x: Any
    cell: Cell

    @property
    def done(self) -> list[float]:
        """Returns the figures of the runs that ended well; a diverged one has none to draw."""
        found = [run["summary"].get(self.cell.name) for run in self.cell.rows if run["status"] == "done"]
        return [value for value in found if value is not None]

    @property
    def diverged(self) -> int:
        """Returns how many of the place's runs diverged."""
        return self.cell.statuses["diverged"]


def points(spec: Spec, frame: Frame) -> tuple[list[Point], list[str]]:
    """Returns the points to draw, and the lines that say what they stand on and what is left out."""
    keys = [key for key in (spec.rows, spec.columns, spec.series, spec.x) if key]
    keys = list(dict.fromkeys([*keys, "batch", *spec.best_of]))
    runs = select(frame.runs, spec.select)
    cells = make_cells(placed(runs, spec.readings) if spec.readings else runs, keys, spec.metric)
    mixed = [cell for cell in cells if cell.differing]
    there = [_place(spec, cell) for cell in cells if not cell.differing]
    kept = _one_standing(there)
    notes = stands(spec, kept)
    left_out = _ids(there) - _ids(kept)
    if left_out:
        notes.append(f"not shown: {len(left_out)} runs on other data or of another length or precision")
    if mixed:
        notes.append(f"not shown: {len(mixed)} places with runs of differing settings")
    found = _at_rate(spec, kept)
    return found, [*notes, *counted(found)]


def printed(spec: Spec, series: Any, panel: Place, ticks: Sequence[Any]) -> dict[Any, float]:
    """Returns the published figures of one line by their places along the axis, of several rates the best.

    Args:
        spec: of the figure.
        series: the line.
        panel: where it is.
        ticks: the places there are.
    """
    fixed = {key: value for key, value in spec.select.items() if not isinstance(value, list)}
    wanted = {**fixed, spec.series: series, spec.rows: panel[0], spec.columns: panel[1]}
    found: dict[Any, float] = {}
    source = Published(spec.published)
    for known in source:
        if known.get(spec.x) in ticks and all(value == wanted.get(key, value) for key, value in known.items()):
            found[known[spec.x]] = max(source.value(known), found.get(known[spec.x], 0.0))
    return found


def counted(found: Sequence[Point]) -> list[str]:
    """Returns the line that says how many runs a place stands on, and how many diverged."""
    counts = sorted({len(point.done) + point.diverged for point in found} - {0})
    if not counts:
        return []
    n = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    ends = {run["id"]: run["status"] for point in found for run in point.cell.rows}
    lost = list(ends.values()).count("diverged")
    lines = [f"runs at each place: n={n}" + (f"; {lost} of the {len(ends)} shown diverged" if lost else "")]
    partly = [point for point in found if point.done and point.diverged]
    if partly:
        without = all(math.isclose(point.cell.mean, statistics.fmean(point.done)) for point in partly)
        lines.append(
            "a mean is over the runs that did not diverge" if without else "in a mean a diverged run is at chance"
        )
    return lines


def _ids(found: Sequence[Point]) -> set[str]:
    """Returns the ids of the points' runs; one run may stand under two readings."""
    return {run for point in found for run in point.cell.column("id")}


def _place(spec: Spec, cell: Cell) -> Point:
    known = cell.key
    return Point((known.get(spec.rows), known.get(spec.columns)), known.get(spec.series), known.get(spec.x), cell)


def _one_standing(found: Sequence[Point]) -> list[Point]:
    """Returns, of each data set, the points that stand on what most of its runs stand on."""
    counts: dict[str, Counter[Standing]] = {}
    for point in found:
        name = point.cell.rows[0]["data.name"]
        counts.setdefault(name, Counter())[point.cell.standing] += len(point.cell.rows)
    chosen = {max(sorted(known, key=str), key=known.__getitem__) for known in counts.values()}
    return [point for point in found if point.cell.standing in chosen]


def stands(spec: Spec, found: Sequence[Point]) -> list[str]:
    """Returns the lines that say what the points stand on."""
    kinds: dict[Standing, list[Point]] = {}
    for point in found:
        kinds.setdefault(point.cell.standing, []).append(point)
    named = {"reading", "protocol.name"} & {spec.rows, spec.columns, spec.series}  # each panel or line says its own
    return [
        f"{stand.line([point.cell for point in there], protocol=not named)}; "
        + f"{len(_ids(there))} run{'s' * (len(_ids(there)) != 1)}"
        for stand, there in sorted(kinds.items(), key=lambda kind: str(kind[0]))
    ]


def _at_rate(spec: Spec, found: Sequence[Point]) -> list[Point]:
    """Returns one point a place: of several learning rates the one the figure asks for."""
    if spec.rate == "all":
        return list(found)
    if spec.rate == "shared":
        rates: dict[tuple, Counter] = {}
        for point in found:
            rates.setdefault((point.panel, point.cell.key["batch"]), Counter())[point.cell.key["lr"]] += 1
        shared = {place: max(sorted(known), key=known.__getitem__) for place, known in rates.items()}
        found = [point for point in found if point.cell.key["lr"] == shared[point.panel, point.cell.key["batch"]]]
    best: dict[tuple, Point] = {}
    for point in found:
        place = (point.panel, point.series, point.x)
        if place not in best or point.cell.rank() > best[place].cell.rank():
            best[place] = point
    return list(best.values())
