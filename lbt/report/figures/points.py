"""The points of a figure: cells placed on its axes, from data that may be compared."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame, select
from lbt.report.kit.cells import Cell, Standing, make_cells

Place = tuple[Any, Any]  # a panel's row and column


class Point(NamedTuple):
    """A cell and its place."""

    panel: Place
    series: Any
    x: Any
    cell: Cell


def points(spec: Spec, frame: Frame) -> tuple[list[Point], list[str]]:
    """Returns the points to draw, and the lines that say what they stand on and what is left out."""
    keys = [key for key in (spec.rows, spec.columns, spec.series, spec.x) if key]
    keys = list(dict.fromkeys([*keys, "batch", "lr"]))
    cells = make_cells(select(frame.runs, spec.select), keys, spec.metric)
    mixed = [cell for cell in cells if cell.differing]
    placed = [_place(spec, cell) for cell in cells if not cell.differing]
    kept = _one_standing(placed)
    notes = _stands(kept)
    left_out = sum(len(point.cell.runs) for point in placed) - sum(len(point.cell.runs) for point in kept)
    if left_out:
        notes.append(f"not shown: {left_out} runs on other data or of another length")
    if mixed:
        notes.append(f"not shown: {len(mixed)} places with runs of differing settings")
    found = _at_rate(spec, kept)
    counts = sorted({len(point.cell.values) for point in found if point.cell.values})
    if counts:
        runs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        notes.append(f"runs at each place: n={runs}")
    return found, notes


def _place(spec: Spec, cell: Cell) -> Point:
    known = cell.key
    return Point((known.get(spec.rows), known.get(spec.columns)), known.get(spec.series), known.get(spec.x), cell)


def _one_standing(found: Sequence[Point]) -> list[Point]:
    """Returns, of each data set, the points that stand on what most of its runs stand on."""
    counts: dict[str, Counter[Standing]] = {}
    for point in found:
        name = point.cell.runs["data.name"].iloc[0]
        counts.setdefault(name, Counter())[point.cell.standing] += len(point.cell.runs)
    chosen = {max(sorted(known, key=str), key=known.__getitem__) for known in counts.values()}
    return [point for point in found if point.cell.standing in chosen]


def _stands(found: Sequence[Point]) -> list[str]:
    kinds: dict[Standing, int] = {}
    for point in found:
        kinds[point.cell.standing] = kinds.get(point.cell.standing, 0) + len(point.cell.runs)
    return [
        f"{stand.epochs} epochs, {stand.origin}, pixels {stand.fingerprint}; {runs} runs"
        for stand, runs in sorted(kinds.items(), key=str)
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
        if place not in best or _worth(point) > _worth(best[place]):
            best[place] = point
    return list(best.values())


def _worth(point: Point) -> tuple[bool, float]:
    """Returns what the best rate is chosen by: trained before open, and open before diverged."""
    worth = point.cell.worth()
    return worth != -math.inf, -math.inf if worth is None else worth
