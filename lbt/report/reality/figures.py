"""A study's figures as SVG and PNG; the same records give the same bytes."""

import math
import statistics as plain
from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lbt.records import replace_file
from lbt.report.kit.style import along, context, dodge, encode, finish, hollow, panels
from lbt.report.reality import parts, seeds
from lbt.report.reality.rates import has_rate, rate
from lbt.report.reality.results import Results, curves, reach

PERFECT = {"color": "#555555", "linestyle": (0, (1, 1.2)), "linewidth": 1}

CAPTIONS = {
    "best_of_k": "Validation {metric} expected of the best of k trials; bars: 10 % to 90 % of the draws",
    "boxes": "Test {metric} of the final runs, every seed, and their medians",
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
            file, command = f"{results.study.name}_{name}", f"lbt reality {results.study.name}"
            said = caption(results, name)
            for ending, content in encode(figure, said, results.study.title, command).items():
                replace_file(folder / f"{file}.{ending}", content)
            drawn[file] = said
    return drawn


def caption(results: Results, name: str) -> str:
    """Returns what a study's figure of a name shows."""
    return CAPTIONS[name].format(metric=results.measure.metric.label)


def best_of_k(results: Results) -> Figure | None:
    """Expected validation score of the best of k trials, with its 10 % to 90 % bar, per optimizer; a panel a batch."""
    rows = curves(results)
    batches = [batch for batch in results.study.batches if any(row["batch"] == batch for row in rows)]
    if not batches:
        return None
    names = results.study.contestants
    figure, row = parts.row(len(batches), width=max(3.4, 0.5 * max(one["trials"] for one in rows)))
    for axes, batch in zip(row, batches, strict=True):
        for index, name in enumerate(names):
            own = [row for row in rows if (row["batch"], row["optimizer"]) == (batch, name)]
            if not own:
                continue
            style = hollow(parts.style(results, name))
            k = [row["trials"] + dodge(index, len(names), 0.6 / len(names)) for row in own]
            low, high = zip(*(row["10 % to 90 %"] for row in own), strict=True)
            axes.plot(k, [row[f"expected{results.measure.unit}"] for row in own], **style)
            axes.vlines(k, low, high, color=style["color"], linewidth=0.8)
            axes.plot([*k, *k], [*low, *high], "_", color=style["color"], markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title=f"batch {batch:,}", xlabel="trials")
    row[0].set_ylabel(results.measure.axis("validation", "of the best"))
    tried = [one for one in results.trials.values() if one.scores]
    count = f"{parts.span(len(one.scores) for one in tried)} trials each"
    handles = parts.handles(results, [name for name in names if name in {one.optimizer for one in tried}])
    return finish(
        figure, caption(results, "best_of_k"), parts.notes(results, [one.runs for one in tried], count), handles
    )


def boxes(results: Results) -> Figure | None:
    """Test score of every seed of the chosen configurations and the ablations; boxes where there are many."""
    return seeds.draw(results, caption(results, "boxes"))


def schedules(results: Results) -> Figure | None:
    """The chosen learning-rate schedules of the study's pair, one over the other and relative to their peaks."""
    pairs = [[results.final(name, batch) for name in results.study.schedules] for batch in results.study.batches]
    found = [finals for finals in pairs if all(finals) and all(map(has_rate, finals))]
    if not found:
        return None
    figure, grid = panels(len(found), 2, width=3.4, height=2.5, sharey=False)
    for row, finals in zip(grid, found, strict=True):
        peaks = []
        for index, final in enumerate(finals):
            steps, rates, peak = rate(final)
            look = {**along(index, len(steps), len(finals)), **hollow(parts.style(results, final.optimizer))}
            row[0].plot(steps, rates, **look)
            row[1].plot(steps, [value / peak for value in rates], **look)
            peaks.append(f"{final.optimizer} {peak:.3g}")
        row[0].set(yscale="log", xlabel="update", ylabel="learning rate", title=f"batch {finals[0].batch:,}")
        row[1].set(xlabel="update", ylabel="share of the peak", title=f"peaks: {', '.join(peaks)}")
    runs = [final.runs for finals in found for final in finals]
    notes = parts.notes(results, runs, "n=1 chosen configuration a line")
    return finish(figure, caption(results, "schedules"), notes, parts.handles(results, results.study.schedules))


def steps_to_target(results: Results) -> Figure | None:
    """Median updates to the target against the batch size, with the line of perfect scaling (twice the batch, half)."""
    lines = [(name, list(_reached(results, name))) for name in results.study.contestants]
    lines = [(name, points) for name, points in lines if points]
    if len({batch for _, points in lines for batch, _ in points}) < 2:
        return None  # one batch size shows no scaling
    figure, (axes,) = parts.row(1)
    for index, (name, points) in enumerate(lines):
        width = along(index, 1, len(lines))["linewidth"]  # lines may coincide
        axes.plot(*zip(*points, strict=True), label=name, **{**hollow(parts.style(results, name)), "linewidth": width})
    batch, steps = min(point for _, points in lines for point in points)
    batches = sorted({batch, *results.study.batches})
    axes.plot(batches, [steps * batch / x for x in batches], label="perfect scaling", **PERFECT)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(batches, [f"{x:,}" for x in batches])
    target = f"{results.study.target:g}{results.measure.unit} test {results.measure.metric.label}"
    axes.set(xlabel="batch size", ylabel=f"updates to {target} (median)")
    handles = [*parts.handles(results, [name for name, _ in lines]), Line2D([], [], label="perfect scaling", **PERFECT)]
    finals = [final for final in results.finals if not final.variant and final.values]
    notes = parts.notes(
        results, [one.runs for one in finals], f"{parts.span(len(one.values) for one in finals)} seeds at each point"
    )
    there = {(name, batch) for name, points in lines for batch, _ in points}
    missed = [f"{f.optimizer} at batch {f.batch:,}" for f in finals if (f.optimizer, f.batch) not in there]
    if missed:
        notes.append(f"not drawn, as half of the seeds or more never get there: {', '.join(missed)}")
    return finish(figure, caption(results, "steps_to_target"), notes, handles)


def _reached(results: Results, name: str) -> Iterator[tuple[int, float]]:
    for batch in results.study.batches:
        final = results.final(name, batch)
        if final and math.isfinite(steps := plain.median_high(reach(results, final))):
            yield batch, steps


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "best_of_k": best_of_k,
    "boxes": boxes,
    "schedules": schedules,
    "steps_to_target": steps_to_target,
}
