"""What a study's figures share: each optimizer's look, what a figure stands on, and its row of panels."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.report.kit.style import line_style, panels
from lbt.report.reality.results import Results

TARGET = {"color": "#555555", "linestyle": (0, (5, 1.5)), "linewidth": 1}


def style(results: Results, name: str) -> dict[str, Any]:
    """Returns an optimizer's colour, dashes and marker, the same in every figure of a study."""
    return line_style(results.study.contestants.index(name))


def handles(results: Results, names: Iterable[str]) -> list[Line2D]:
    """Returns the optimizers' entries of the legend."""
    return [Line2D([], [], label=name, **style(results, name)) for name in names]


def notes(results: Results, runs: Iterable[pd.DataFrame], count: str) -> list[str]:
    """Returns what a figure stands on: the study, the data and how many runs.

    Args:
        results: of the study.
        runs: rows of the frame.
        count: the sentence that says n.
    """
    kept = list(runs)

    def values(name: str) -> str:
        return ", ".join(sorted({str(value) for one in kept for value in one[name]}))

    data = f"{values('epochs')} epochs of {values('model.name')} on {values('origin')}"
    how = f"protocol {values('protocol.name')}; {values('precision')}"
    return [results.study.title, f"{data}, {values('samples')} {values('fingerprint')}; {how}; {count}"]


def span(counts: Iterable[int]) -> str:
    """Returns "n=5", or "n=4 to 5"."""
    low, *more = sorted(set(counts))
    return f"n={low} to {more[-1]}" if more else f"n={low}"


def row(count: int, width: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a row of panels, at least 6 inches wide."""
    figure, grid = panels(1, count, width=max(width, 6.0 / count), height=2.6)
    return figure, grid[0]
