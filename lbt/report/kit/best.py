"""The best of several values of a setting, where a table shows a place once."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lbt.report.kit.cells import Cell, make_cells


def of(
    runs: pd.DataFrame, keys: Sequence[str], names: Sequence[str], metric: str
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Returns, of each place, the runs at its best values; and of each such run the values, under its id.

    The best have the best mean over their runs (seeds), in which a diverged run is at chance.

    Args:
        runs: of a frame.
        keys: settings whose values are a place.
        names: settings of which the best values are wanted.
        metric: name of the figure in a run's summary that decides.
    """
    found: dict[tuple, Cell] = {}
    for cell in make_cells(runs, [*keys, *names], metric):
        place = (cell.standing, *(cell.key[key] for key in keys))
        if place not in found or cell.rank() > found[place].rank():
            found[place] = cell
    chosen = {run: {name: cell.key[name] for name in names} for cell in found.values() for run in cell.column("id")}
    return (runs if runs.empty else runs[runs["id"].isin(chosen)]), chosen


def said(names: Sequence[str], metric: str) -> str:
    """Returns the end of the sentence that says what a figure is the best of, and on which data that was decided."""
    where = "validation data" if metric.startswith("val_") else "test data"
    return f"{' and '.join(name.removesuffix('.name') for name in names)}, chosen on {where}"
