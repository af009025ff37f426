"""The reality check for the page: its tables, and what its charts are drawn from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lbt.errors import UserError
from lbt.report.frame import Frame
from lbt.report.kit.wording import shown
from lbt.report.overview import PARTS
from lbt.report.reality import statistics, study
from lbt.report.reality.page import CAPTIONS
from lbt.report.reality.rates import has_rate, rate
from lbt.report.reality.results import TABLES, Results, curves, gather
from lbt.report.reality.study import Final
from lbt.report.reality.tables import shown_columns
from lbt.report.reality.verdict import verdict

POINTS = 200  # of a schedule's line


def gather_all(frame: Frame, results_dir: str | Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns each study that has a record, and a line for each that cannot be shown."""
    found, problems = [], []
    for name in study.names():
        try:
            results = gather(study.read(name), frame, results_dir)
        except UserError as error:
            problems.append(f"{name}: {error}")
            continue
        if results.trials or results.finals:
            found.append(_study(results))
    return found, problems


def _study(results: Results) -> dict[str, Any]:
    one = results.study
    made = {name: make(results) for name, make in TABLES.items()}
    tried = sum(len(found.scores) for found in results.trials.values())
    return {
        "name": one.name,
        "title": one.title,
        "about": one.about,
        "verdicts": [(batch, verdict(results, batch)) for batch in one.batches],
        "tables": [
            (name, CAPTIONS[name] or PARTS[name].capitalize(), *_table(rows, results.measure.digits))
            for name, rows in made.items()
            if rows
        ],
        "notes": results.notes,
        "charts": list(_charts(results)),
        "trials": tried,
        "finals": sum(len(final.values) for final in results.finals),
        "runs": [*_trial_ids(results), *(run for final in results.finals for run in _ids(final))],
        "tune": one.tune,
    }


def _trial_ids(results: Results) -> list[str]:
    return [run for found in results.trials.values() for run in found.runs["id"]]


def _table(rows: list[dict[str, Any]], digits: int) -> tuple[list[str], list[list[str]]]:
    header = shown_columns(rows)
    return header, [[shown(row[key], digits) for key in header] for row in rows]


def _ids(final: Final) -> list[str]:
    return final.runs["id"].tolist() if final.runs is not None else []


def _charts(results: Results) -> Iterator[dict[str, Any]]:
    """Yields the charts, a panel a batch, with the figures that they are drawn from."""
    one = results.study
    looks = {name: place for place, name in enumerate(one.contestants)}
    common = {"looks": looks, "study": one.name}
    boxes = [(batch, _boxes(results, batch)) for batch in one.batches]
    measure = results.measure
    title = f"Test {measure.metric.label} of the final runs: each seed, quartiles and median"
    target = {"target": one.target, "unit": measure.axis("test"), "sign": measure.unit}
    yield from (
        {**common, **target, "kind": "boxes", "title": title, "batch": at, "rows": rows} for at, rows in boxes if rows
    )
    rows, expected = curves(results), f"expected{measure.unit}"
    for batch in one.batches:
        lines = [
            {"name": row["optimizer"], "x": row["trials"], "y": row[expected], "range": row["10 % to 90 %"]}
            for row in rows
            if row["batch"] == batch
        ]
        if lines:
            title = (
                f"Validation {measure.metric.label} expected of the best of k trials; bars: 10 % to 90 % of the draws"
            )
            unit = {"unit": measure.axis("validation"), "sign": measure.unit}
            yield {**common, **unit, "kind": "best_of_k", "title": title, "batch": batch, "rows": lines}
    for batch in one.batches:
        if pairs := _pairs(results, batch):
            title = "Shifts between two optimizers, first minus second, with their exact intervals"
            unit = f"difference ({measure.difference})"
            yield {**common, "kind": "intervals", "title": title, "unit": unit, "batch": batch, "rows": pairs}
    for batch in one.batches:
        if lines := [
            _schedule(final) for name in one.schedules if (final := results.final(name, batch)) and has_rate(final)
        ]:
            yield {**common, "kind": "schedules", "title": "The chosen schedules", "batch": batch, "rows": lines}


def _boxes(results: Results, batch: int) -> list[dict[str, Any]]:
    rows = []
    for final in results.finals:
        if final.batch == batch and final.values:
            found = statistics.summarise(final.values)
            ids = _ids(final) or [""] * len(final.values)
            status = final.runs["status"].tolist() if final.runs is not None else ["done"] * len(ids)
            rows.append(
                {
                    "name": final.optimizer,
                    "label": final.variant or final.optimizer,
                    "variant": bool(final.variant),
                    "median": found.median,
                    "quartiles": found.quartiles,
                    "values": final.values,
                    "runs": ids,
                    "diverged": [one != "done" for one in status],
                }
            )
    return rows


def _pairs(results: Results, batch: int) -> list[dict[str, Any]]:
    return [
        {"label": f"{one.first} - {one.second}", "mean": one.difference, "range": one.interval}
        for one in results.compared(batch)
        if one.interval
    ]


def _schedule(final: Final) -> dict[str, Any]:
    steps, rates, peak = rate(final)
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int)).tolist()
    points = [[steps[place], float(f"{rates[place]:.6g}")] for place in kept]
    return {"name": final.optimizer, "peak": peak, "points": points, "thinned": len(kept) < len(steps)}
