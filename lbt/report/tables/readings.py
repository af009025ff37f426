"""What a printed learning rate may mean: runs placed under each reading of a published table that they answer.

A reading is a choice of `configs/protocol`: its rates for a batch, and what they are multiplied by, give the peak rate
of each printed one. A run stands under every reading whose peak it has, at the printed rate of that reading, so that
one run may answer two of them.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from lbt.config import groups, scaling_factor
from lbt.report.kit.cells import Cell
from lbt.report.kit.published import Published
from lbt.report.kit.statistics import value_of

COLUMN = "reading"


def placed(runs: pd.DataFrame, readings: Sequence[str]) -> pd.DataFrame:
    """Returns a row for each run and reading: `reading` and, as `lr`, the rate that is printed.

    Args:
        runs: of a frame.
        readings: choices of `configs/protocol`. One that gives an optimizer the same rates as an earlier one of the
            same protocol says nothing new of its runs: they stand under the earlier one alone.
    """
    if runs.empty:
        return runs.assign(**{COLUMN: pd.Series(dtype=object)})
    places = zip(*(runs[key].tolist() for key in ("optimizer.name", "batch", "peak_lr", "protocol.name")), strict=True)
    found = [(row, *where) for row, place in enumerate(places) for where in _where(*place, tuple(readings))]
    rows, names, rates = (list(column) for column in zip(*found, strict=True)) if found else ([], [], [])
    return runs.iloc[rows].assign(**{COLUMN: names, "lr": rates})


@cache
def _where(
    optimizer: str, batch: int, peak: float, protocol: str, readings: tuple[str, ...]
) -> list[tuple[str, float]]:
    """Returns the readings under which a run stands, each with the printed rate."""
    known: list[dict] = []
    found = []
    for reading in readings:
        if _settings(reading)["name"] != protocol:
            continue
        rates = _rates(reading, optimizer)
        if rates not in known:
            printed = (float(rate) for rate, at in rates.get(batch, ()) if math.isclose(at, peak, rel_tol=1e-9))
            found += [(reading, rate) for rate in printed][:1]
        known.append(rates)
    return found


@cache
def _rates(reading: str, optimizer: str) -> dict[int, list[tuple[float, float]]]:
    """Returns, by batch, each printed rate and the peak it stands for."""
    settings = _settings(reading)
    printed = settings["lr_table"]
    rates = settings.get(f"{optimizer}_lr_table") or printed
    rule = settings.get(f"{optimizer}_lr_scaling", "none")
    return {
        int(batch): [
            (shown, rate * scaling_factor(rule, int(batch))) for shown, rate in zip(printed[batch], own, strict=True)
        ]
        for batch, own in rates.items()
    }


@cache
def _settings(reading: str) -> DictConfig:
    """Returns a protocol; its own interpolations are resolved where they are read."""
    return OmegaConf.create({"protocol": _merged(reading)}).protocol


def _merged(reading: str) -> dict[str, Any]:
    """Returns what a protocol's file says, over what the ones it is derived from say."""
    content = dict(groups.load("protocol", reading))
    merged: dict[str, Any] = {}
    for parent in content.pop("defaults", []):
        merged |= {} if parent == "_self_" else _merged(parent)
    return merged | content


def distances(cells: Sequence[Cell], published: Published, label: Any) -> Iterator[str]:
    """Yields, for each reading and optimizer, how far its runs lie from what was published.

    Args:
        cells: of one section.
        published: the figures.
        label: gives what a value is called.
    """
    found: dict[tuple[str, str], list[float]] = {}
    lost: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        theirs, ours = published.value(cell.key), _standing_for(cell)
        if theirs is not None and ours is not None:
            place = cell.key[COLUMN], cell.key["optimizer.name"]
            found.setdefault(place, []).append(ours - theirs)
            lost[place] += set(cell.statuses) == {"diverged"}
    for place, differences in found.items():
        reading, optimizer = place
        fixed = next(cell.key for cell in cells if (cell.key[COLUMN], cell.key["optimizer.name"]) == place)
        free = {COLUMN, "batch", "lr"}
        of = sum(all(one[key] == fixed[key] for key in one.keys() - free) for one in published)
        root = math.sqrt(statistics.fmean(difference**2 for difference in differences))
        said = f"{root:.2f} points from the published figures (root mean square of {len(differences)} of {of} cells"
        chance = f", {lost[place]} of them diverged and count as chance" if lost[place] else ""
        yield f"{label(reading)}, {label(optimizer)}: {said}{chance})"


def _standing_for(cell: Cell) -> float | None:
    """Returns the cell's figure, that of chance where all its runs diverged; None: it has none yet, or mixed ones."""
    if cell.differing or cell.mean is not None:
        return None if cell.differing else cell.mean
    return value_of(cell.rows[0], cell.name) if set(cell.statuses) == {"diverged"} else None
