"""A study's figures as SVG and PNG; the same records give the same bytes."""

import math
import statistics as plain
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lbt.identity import from_json
from lbt.records import replace_file
from lbt.report.kit import escape
from lbt.report.kit.style import DASHES, context, encode, finish, line_style, panels
from lbt.report.reality.results import Results, curves, reach
from lbt.report.reality.study import Final
from lbt.schedules import SCHEDULES

TARGET = {"color": "#555555", "linestyle": (0, (5, 1.5)), "linewidth": 1}
PERFECT = {"color": "#555555", "linestyle": (0, (1, 1.2)), "linewidth": 1}

CAPTIONS = {
    "best_of_k": "Validation accuracy expected of the best of k trials; the band holds 10 % to 90 % of the draws",
    "boxes": "Test accuracy over seeds: minimum, quartiles, maximum; dashed: the target",
    "schedules": "The chosen schedules",
    "steps_to_target": "Updates to the target against the batch size",
}


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Writes each figure there are runs for as `<folder>/<study>_<name>.svg` and `.png`; returns name -> caption."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with context():
        for name, make in FIGURES.items():
            figure = make(results)
            if figure is None:
                continue
            file = f"{results.study.name}_{name}"
            for ending, content in encode(figure, CAPTIONS[name], results.study.title, "lbt reality").items():
                replace_file(folder / f"{file}.{ending}", content)
            drawn[file] = CAPTIONS[name]
    return drawn


def _style(results: Results, name: str) -> dict[str, Any]:
    """Returns an optimizer's colour, dashes and marker, the same in every figure of a study."""
    return line_style(results.study.contestants.index(name))


def _handles(results: Results, names: Iterable[str]) -> list[Line2D]:
    return [Line2D([], [], label=name, **_style(results, name)) for name in names]


def _row(count: int, width: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure, grid = panels(1, count, width=max(width, 6.0 / count), height=2.6)  # the title needs six inches
    return figure, grid[0]


def best_of_k(results: Results) -> Figure | None:
    """Expected validation score of the best of k trials, with the 10 % to 90 % band, per optimizer; a panel a batch."""
    rows = curves(results)
    batches = [batch for batch in results.study.batches if any(row["batch"] == batch for row in rows)]
    if not batches:
        return None
    figure, row = _row(len(batches))
    for axes, batch in zip(row, batches, strict=True):
        for name in results.study.contestants:
            own = [row for row in rows if (row["batch"], row["optimizer"]) == (batch, name)]
            if not own:
                continue
            k, style = [row["trials"] for row in own], _style(results, name)
            axes.plot(k, [row["expected %"] for row in own], **style)
            low, high = zip(*(row["10 % to 90 %"] for row in own), strict=True)
            axes.fill_between(k, low, high, color=style["color"], alpha=0.12, linewidth=0)
        axes.set(title=f"batch {batch:,}", xlabel="trials")
    row[0].set_ylabel("validation accuracy of the best (%)")
    seen = {row["optimizer"] for row in rows}
    names = [name for name in results.study.contestants if name in seen]
    return finish(figure, CAPTIONS["best_of_k"], [results.study.title], _handles(results, names))


def boxes(results: Results) -> Figure | None:
    """Test accuracy over seeds (minimum, quartiles, maximum) of the chosen configurations and the ablations."""
    found = [
        [final for final in results.finals if final.batch == batch and final.values] for batch in results.study.batches
    ]
    found = [finals for finals in found if finals]
    if not found:
        return None
    figure, row = _row(len(found), width=max(3.4, 0.55 * max(map(len, found))))
    for axes, finals in zip(row, found, strict=True):
        values = [final.values for final in finals]
        boxes = axes.boxplot(values, whis=(0, 100), patch_artist=True, medianprops={"color": "black"}, widths=0.6)
        for patch, final in zip(boxes["boxes"], finals, strict=True):
            patch.set(facecolor=_style(results, final.optimizer)["color"], alpha=0.3 if final.variant else 0.75)
        labels = [escape.figure(f"{final.variant or final.optimizer} (n={len(final.values)})") for final in finals]
        axes.set_xticks(range(1, len(finals) + 1), labels, rotation=40, ha="right")
        axes.axhline(results.study.target, **TARGET)
        axes.set(title=f"batch {finals[0].batch:,}")
    row[0].set_ylabel("test accuracy (%)")
    handles = [Line2D([], [], label=f"target, {results.study.target:g} %", **TARGET)]
    return finish(figure, CAPTIONS["boxes"], [results.study.title], handles)


def schedules(results: Results) -> Figure | None:
    """The chosen learning-rate schedules of the study's pair, one over the other and relative to their peaks."""
    pairs = [[results.final(name, batch) for name in results.study.schedules] for batch in results.study.batches]
    found = [finals for finals in pairs if all(finals)]
    if not found:
        return None
    figure, grid = panels(len(found), 2, width=3.4, height=2.5, sharey=False)
    for row, finals in zip(grid, found, strict=True):
        for index, final in enumerate(finals):
            steps, rates, peak = rate(final)
            look = {"color": _style(results, final.optimizer)["color"], "linestyle": DASHES[index]}  # may coincide
            row[0].plot(steps, rates, label=f"{final.optimizer}, peak {peak:.3g}", **look)
            row[1].plot(steps, [value / peak for value in rates], **look)
        row[0].set(yscale="log", xlabel="update", ylabel="learning rate", title=f"batch {finals[0].batch:,}")
        row[1].set(xlabel="update", ylabel="share of the peak")
        row[0].legend()
    return finish(figure, CAPTIONS["schedules"], [results.study.title], [])


def rate(final: Final) -> tuple[list[int], list[float], float]:
    """Returns the updates (from 1), the schedule's learning rate at each, and the peak rate."""
    config = from_json(final.config)
    arguments = {key: value for key, value in config.schedule.items() if key not in ("name", "batch")}
    total = final.steps_per_epoch * config.epochs
    factor = SCHEDULES[config.schedule["name"]](total, steps_per_epoch=final.steps_per_epoch, **arguments)
    return list(range(1, total + 1)), [config.peak_lr * factor(step) for step in range(total)], config.peak_lr


def steps_to_target(results: Results) -> Figure | None:
    """Median updates to the target against the batch size, with the line of perfect scaling (twice the batch, half)."""
    lines = [(name, list(_reached(results, name))) for name in results.study.contestants]
    lines = [(name, points) for name, points in lines if points]
    if len({batch for _, points in lines for batch, _ in points}) < 2:
        return None  # one batch size shows no scaling
    figure, (axes,) = _row(1)
    for name, points in lines:
        axes.plot(*zip(*points, strict=True), label=name, **_style(results, name))
    batch, steps = min(point for _, points in lines for point in points)
    batches = sorted({batch, *results.study.batches})
    axes.plot(batches, [steps * batch / x for x in batches], label="perfect scaling", **PERFECT)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(batches, [f"{x:,}" for x in batches])
    axes.set(xlabel="batch size", ylabel=f"updates to {results.study.target:g} % test accuracy (median)")
    handles = [*_handles(results, [name for name, _ in lines]), Line2D([], [], label="perfect scaling", **PERFECT)]
    return finish(figure, CAPTIONS["steps_to_target"], [results.study.title], handles)


def _reached(results: Results, name: str) -> Iterator[tuple[int, float]]:
    for batch in results.study.batches:
        final = results.final(name, batch)
        if final and math.isfinite(steps := plain.median_high(reach(final, results.study.target))):
            yield batch, steps


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "best_of_k": best_of_k,
    "boxes": boxes,
    "schedules": schedules,
    "steps_to_target": steps_to_target,
}
