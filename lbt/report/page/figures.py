"""The figures for the page: those over settings and over training as what they are drawn from, others as drawn."""

import base64
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lbt.errors import UserError
from lbt.report import automatic
from lbt.report.figures import names
from lbt.report.figures.points import Point, points, printed
from lbt.report.figures.spec import Spec, axis_label
from lbt.report.frame import Frame
from lbt.report.kit import specs
from lbt.report.layout import AUTOMATIC

GROUP = "figure"
DRAWN_BY_PAGE = ("lines", "curves")


def gather(frame: Frame, results_dir: str | Path) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Returns the figures that can be shown, and (title, command) of each that lacks its runs or has not been drawn."""
    found: list[dict[str, Any]] = []
    missing: list[tuple[str, str]] = []
    for name, spec, command in _specs(frame, results_dir):
        made = _chart(name, spec, frame) if spec.kind in DRAWN_BY_PAGE else _drawn(name, results_dir)
        if made is None:
            missing.append((spec.title, command))
        else:
            found.append({"name": name, "title": spec.title, "shows": _line(spec.shows), "command": command, **made})
    return found, missing


def _specs(frame: Frame, results_dir: str | Path) -> Iterator[tuple[str, Spec, str]]:
    for name in names():
        yield name, Spec(**specs.bound(Spec, GROUP, name)), f"lbt plots {name}"
    for name in automatic.others(results_dir):
        try:
            described = automatic.figures(name, frame, AUTOMATIC)
        except UserError:  # none of its records can be read, which the page says elsewhere
            continue
        for figure, content in described.items():
            yield figure, Spec(**content), f"lbt plots {name}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _drawn(name: str, results_dir: str | Path) -> dict[str, Any] | None:
    """Returns a figure's file as the address of its own content."""
    path = Path(results_dir) / "figures" / f"{name}.svg"
    if not path.is_file():
        return None
    text = re.sub(rb">\s+<", b"><", path.read_bytes())
    return {"image": f"data:image/svg+xml;base64,{base64.b64encode(text).decode()}"}


def _chart(name: str, spec: Spec, frame: Frame) -> dict[str, Any] | None:
    found, notes = points(spec, frame)
    compares = spec.options.get("compares", "x") if spec.kind == "lines" else None
    if not found or (compares and len({getattr(one, compares) for one in found}) < 2):
        return None
    rows = spec.sorted(spec.rows or "", [one.panel[0] for one in found])
    columns = spec.sorted(spec.columns or "", [one.panel[1] for one in found])
    series = spec.sorted(spec.series, [one.series for one in found])
    panels = [(row, column) for row in rows for column in columns]
    chart = {
        "kind": spec.kind,
        "notes": notes,
        "y": _plain(axis_label(spec.metric, found[0].cell.metric)),
        "x": _label(spec, spec.x) if spec.kind == "lines" else "epoch",
        "log": spec.scale == "log",
        "metric": spec.metric,
        "series": [{"name": _label(spec, one), "look": look} for one, look in spec.looks(series).items()],
        "panels": [{"title": _panel(spec, panel), "points": []} for panel in panels],
    }
    number = found[0].cell.metric.number
    ticks = spec.sorted(spec.x, [one.x for one in found])
    for one in sorted(found, key=lambda one: (series.index(one.series), ticks.index(one.x))):
        place = panels.index(one.panel)
        chart["panels"][place]["points"].append(_point(spec, one, series.index(one.series), number))
    for place, panel in enumerate(panels):
        shared = spec.rate != "all"  # otherwise each panel has rates of its own
        xs = spec.sorted(spec.x, [one.x for one in found if shared or one.panel == panel])
        chart["panels"][place]["ticks"] = [_label(spec, x) for x in xs]
        if spec.published:
            chart["panels"][place]["published"] = list(_published(spec, panel, series, xs, number))
    chart["panels"] = [panel for panel in chart["panels"] if panel["points"]]
    return {"chart": chart}


def _point(spec: Spec, one: Point, series: int, number: Any) -> dict[str, Any]:
    done = one.done
    return {
        "series": series,
        "x": _label(spec, one.x),
        "at": one.x if isinstance(one.x, int | float) else None,
        "mean": one.cell.mean if done else None,
        "sd": statistics.stdev(done) if len(done) > 1 else None,
        "values": done if len(done) <= 10 else [],
        "text": one.cell.text(),
        "diverged": one.diverged,
        "runs": sorted(one.cell.column("id")),
    }


def _published(
    spec: Spec, panel: tuple[Any, Any], series: Sequence[Any], xs: Sequence[Any], number: Any
) -> Iterator[dict[str, Any]]:
    """Yields the published figures of a panel."""
    for place, name in enumerate(series):
        for x, value in printed(spec, name, panel, xs).items():
            yield {"series": place, "x": _label(spec, x), "at": x, "mean": value, "text": number(value)}


def _panel(spec: Spec, panel: tuple[Any, Any]) -> str:
    parts = [(key, value) for key, value in zip((spec.rows, spec.columns), panel, strict=True) if value is not None]
    return ", ".join(
        _label(spec, value) if value in spec.labels or not isinstance(value, int | float)
        else f"{str(key).rpartition('.')[2]} {_label(spec, value)}"
        for key, value in parts
    )  # fmt: skip


def _label(spec: Spec, value: Any) -> str:
    return _plain(spec.label(value))


def _plain(text: str) -> str:
    return text.replace(r"\$", "$")  # which matplotlib needs
