"""A study's figures as SVG and PNG; the same records give the same bytes."""

import math
import statistics as plain
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lbt.identity import from_json
from lbt.records import replace_file
from lbt.report.reality.results import Results, curves, reach
from lbt.report.reality.study import Final
from lbt.schedules import SCHEDULES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")  # Okabe and Ito
MARKERS = "osD^vPX*"
STYLE = {
    "svg.hashsalt": "lbt",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: Results, folder: Path) -> list[str]:
    """Writes each figure there are runs for as `<folder>/<study>_<name>.svg` and `.png`; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make(results)
            if figure is None:
                continue
            name = f"{results.study.name}_{name}"
            for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
                buffer = BytesIO()
                figure.savefig(buffer, format=kind, metadata=metadata, dpi=160)
                replace_file(folder / f"{name}.{kind}", buffer.getvalue())
            drawn.append(name)
    return drawn


def _colour(results: Results, name: str) -> tuple[str, str]:
    """Returns an optimizer's colour and marker, the same in every figure of a study."""
    index = results.study.contestants.index(name)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _panels(count: int, width: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count + 0.6, 3.2), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def best_of_k(results: Results) -> Figure | None:
    """Expected validation score of the best of k trials, with the 10 % to 90 % band, per optimizer; a panel a batch."""
    rows = curves(results)
    batches = [batch for batch in results.study.batches if any(row["batch"] == batch for row in rows)]
    if not batches:
        return None
    figure, panels = _panels(len(batches))
    for axes, batch in zip(panels, batches, strict=True):
        for name in results.study.contestants:
            own = [row for row in rows if (row["batch"], row["optimizer"]) == (batch, name)]
            if not own:
                continue
            colour, marker = _colour(results, name)
            k = [row["trials"] for row in own]
            axes.plot(k, [row["expected %"] for row in own], color=colour, marker=marker, markersize=3, label=name)
            low, high = zip(*(row["10 % to 90 %"] for row in own), strict=True)
            axes.fill_between(k, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(title=f"batch {batch:,}", xlabel="trials", ylabel="validation accuracy of the best, %")
    panels[-1].legend(frameon=False)
    return figure


def boxes(results: Results) -> Figure | None:
    """Test accuracy over seeds (minimum, quartiles, maximum) of the chosen configurations and the ablations."""
    found = [
        [final for final in results.finals if final.batch == batch and final.values] for batch in results.study.batches
    ]
    found = [finals for finals in found if finals]
    if not found:
        return None
    figure, panels = _panels(len(found), width=max(3.6, 0.55 * max(map(len, found))))
    for axes, finals in zip(panels, found, strict=True):
        values = [final.values for final in finals]
        boxes = axes.boxplot(values, whis=(0, 100), patch_artist=True, medianprops={"color": "black"}, widths=0.6)
        for patch, final in zip(boxes["boxes"], finals, strict=True):
            patch.set(facecolor=_colour(results, final.optimizer)[0], alpha=0.3 if final.variant else 0.75)
        labels = [f"{final.variant or final.optimizer} (n={len(final.values)})" for final in finals]
        axes.set_xticks(range(1, len(finals) + 1), labels, rotation=40, ha="right")
        axes.axhline(results.study.target, color="grey", linestyle="--", linewidth=1)
        axes.annotate("target", (1.01, results.study.target), xycoords=("axes fraction", "data"), va="center")
        axes.set(title=f"batch {finals[0].batch:,}", ylabel="test accuracy, %")
    return figure


def schedules(results: Results) -> Figure | None:
    """The chosen learning-rate schedules of the study's pair, one over the other and relative to their peaks."""
    pairs = [[results.final(name, batch) for name in results.study.schedules] for batch in results.study.batches]
    found = [finals for finals in pairs if all(finals)]
    if not found:
        return None
    figure = Figure(figsize=(7.8, 2.9 * len(found) + 0.2), layout="constrained")
    for row, finals in zip(figure.subplots(len(found), 2, squeeze=False), found, strict=True):
        for index, final in enumerate(finals):
            steps, rates, peak = rate(final)
            look = {"color": _colour(results, final.optimizer)[0], "linestyle": "--" if index else "-"}  # may coincide
            row[0].plot(steps, rates, label=f"{final.optimizer}, peak {peak:.3g}", **look)
            row[1].plot(steps, [value / peak for value in rates], **look)
        row[0].set(yscale="log", xlabel="update", ylabel="learning rate", title=f"batch {finals[0].batch:,}")
        row[1].set(xlabel="update", ylabel="share of the peak")
        row[0].legend(frameon=False)
    return figure


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
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, points in lines:
        colour, marker = _colour(results, name)
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
    batch, steps = min(point for _, points in lines for point in points)
    batches = sorted({batch, *results.study.batches})
    axes.plot(batches, [steps * batch / x for x in batches], color="grey", linestyle=":", label="perfect scaling")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(batches, [f"{x:,}" for x in batches])
    axes.set(xlabel="batch size", ylabel=f"updates to {results.study.target:g} % test accuracy (median)")
    axes.legend(frameon=False)
    return figure


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
