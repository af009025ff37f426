"""Tables and figures of a sweep that no file describes: the same descriptions, made from its records."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lbt.config import groups
from lbt.errors import UserError
from lbt.records import named
from lbt.records.variation import distinct, order
from lbt.report.frame import Frame, select
from lbt.report.kit import best
from lbt.report.kit.cells import values
from lbt.report.kit.wording import setting
from lbt.report.layout import Layout, Wanted, choose

CURVES = "_curves"  # what the figure over training has after the sweep's name
FEW = 4  # values that are named one by one
_LABELS = {"batch": "batch size", "lr": "learning rate"}


def refuse_unknown(group: str, names: Sequence[str], results_dir: str | Path, wanted: Wanted) -> None:
    """Raises a `UserError` at the first name that is neither a file of a group nor has records of its own.

    Also where a file says what is shown, and the user asks for something else.
    """
    described = groups.choices(group)
    for name in names:
        if name not in described:
            named.refuse_missing(results_dir)
            named.refuse_unknown(name, results_dir, f"{group}, study or sweep", described)
        elif option := wanted.command().split():
            raise UserError(f"{option[0]}: what {group} {name} shows is said by its file, configs/{group}/{name}.yaml")
    if not names and (option := wanted.command().split()):
        raise UserError(f"{option[0]}: name the sweep that it is for")


def others(results_dir: str | Path) -> list[str]:
    """Returns the names of users' own sweeps: those of no experiment's file."""
    return [name for name in named.names(results_dir) if name not in (*groups.choices("experiment"), "adhoc")]


def table(name: str, frame: Frame, wanted: Wanted) -> dict[str, Any]:
    """Returns what a file of `configs/table` would say of a sweep.

    Raises:
        UserError: a setting or metric its runs do not have, or none of its records can be read.
    """
    runs, layout = _laid_out(name, frame, wanted)
    columns = {key: values_of(runs, key) for key in layout.columns}
    return {
        "title": f"{name}: {_words(layout.metric)} by {_all([*layout.rows, *layout.columns])}",
        "about": _about(name, runs, layout),
        "select": {"experiment": name},
        "axes": columns | {key: values_of(runs, key) for key in layout.rows},
        "sections": layout.sections,
        "rows": layout.rows,
        "columns": layout.columns,
        "best_of": layout.best,
        "metric": layout.metric,
        "labels": {value: label for key, known in columns.items() for value, label in _labels(key, known)},
        "made_by": f"lbt tables {name}{wanted.command()}",
    }


def figures(name: str, frame: Frame, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Returns what files of `configs/figure` would say of a sweep, by the figures' names.

    There is one of the metric along the first of the rows' settings, where that has two values, and one over training,
    where the metric is the one that is recorded after each epoch. The rows' other settings have panels of their own; of
    those that find no place the best is drawn.

    Raises:
        UserError: as `table` does.
    """
    runs, layout = _laid_out(name, frame, wanted)
    x, series = layout.rows[0], layout.columns[-1]
    further = [*(["data.name"] if "data.name" in layout.sections else []), *layout.rows[1:], *layout.columns[:-1]]
    shown = {
        "select": {"experiment": name},
        "series": series,
        "metric": layout.metric,
        "order": {series: values_of(runs, series)},
        "labels": {**_LABELS, **dict(_labels(series, values_of(runs, series)))},
    }
    found = {}
    if len(values_of(runs, x)) > 1:
        found[name] = shown | {
            "kind": "lines",
            "x": x,
            **_panels(f"{name}: {_words(layout.metric)} by {_short(x)}", further, layout),
            "shows": f"How {_words(layout.metric)} changes with {_short(x)}, a line for each {_short(series)}.",
        }
    if layout.metric == layout.curve:
        found[f"{name}{CURVES}"] = shown | {
            "kind": "curves",
            "x": "task.name",  # no axis of this kind
            **_panels(f"{name}: {_words(layout.metric)} over training", [x, *further], layout),
            "shows": f"How {_words(layout.metric)} rises over training, a line for each {_short(series)}.",
        }
    return found


def _panels(title: str, further: Sequence[str], layout: Layout) -> dict[str, Any]:
    """Returns what panels stand for, and the title, which says of what the best is drawn."""
    columns, rows, *left = [*further, None, None]
    best_of = [*layout.best, *filter(None, left)]
    chosen = f", each line at the best of its {best.said(best_of, layout.metric)}" if best_of else ""
    return {"columns": columns, "rows": rows, "title": f"{title}{chosen}", "best_of": best_of or ["lr"]}


def _laid_out(name: str, frame: Frame, wanted: Wanted) -> tuple[pd.DataFrame, Layout]:
    runs = select(frame.runs, {"experiment": name})
    if runs.empty:
        raise UserError(f"{name}: none of its records can be read")
    return runs, choose(runs, wanted)


def values_of(runs: pd.DataFrame, key: str) -> list[Any]:
    """Returns the values that a setting has in some runs, sorted."""
    return sorted(dict.fromkeys(values(runs, key)), key=order)


def _labels(key: str, known: Sequence[Any]) -> Iterator[tuple[Any, str]]:
    """Yields what numbers of a column or line are called: "momentum 0.9"; a choice by name says itself what it is."""
    if not key.endswith(".name"):
        yield from ((value, f"{key.rpartition('.')[2]} {setting(value)}") for value in known)


def _about(name: str, runs: pd.DataFrame, layout: Layout) -> str:
    settings: list[Mapping[str, Any]] = runs["settings"].tolist()
    varying = [key for key in (*layout.varying, "seed") if len(distinct(settings, key)) > 1]
    told = ", ".join(f"{_short(key)} ({_few(values_of(runs, key))})" for key in varying)
    same = [key for key in ("optimizer.name", "batch") if key not in (*varying, *layout.rows, *layout.columns)]
    all_have = "".join(f" All have {_short(key)} {_few(values_of(runs, key))}." for key in same)
    count = f"{len(runs)} run{'s' * (len(runs) > 1)} of `runs/{name}`"
    return f"{count}{f', which differ in {told}' if told else ''}.{all_have}"


def _few(known: Sequence[Any]) -> str:
    return ", ".join(map(setting, known)) if len(known) <= FEW else f"{len(known)} values"


def _all(keys: Sequence[str]) -> str:
    *most, last = map(_short, keys)
    return f"{', '.join(most)} and {last}" if most else last


def _short(key: str) -> str:
    return key.removesuffix(".name") if key.endswith(".name") else key.rpartition(".")[2]


def _words(metric: str) -> str:
    return metric.replace("_", " ")
