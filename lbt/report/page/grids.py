"""The tables over grids, laid out for the page: a shade for each figure, and how much of each grid exists."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lbt.report import automatic, tables
from lbt.report.claims.table import ClaimsTable
from lbt.report.frame import Frame
from lbt.report.kit import specs
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.layout import AUTOMATIC
from lbt.report.tables.grid import Table

SHADES = 8


@dataclass
class Grid:
    """A table of the page.

    Attributes:
        name, page: of the table.
        there, places: how many of the grid's places have a run, and how many there are.
        runs: how many runs these are.
        shades: of each section and row, a shade from 0 (lowest) to `SHADES` - 1 for each entry, None without a figure.
        spans: of each section, (lowest, highest) figure that the shades stand for, as shown; None without two.
        filters: setting -> values of the parts, and of the blocks under `block`.
        trained_by: the command that makes its runs; empty for a user's own.
    """

    name: str
    page: Page
    there: int
    places: int
    runs: int
    shades: list[list[list[int | None]]]
    spans: list[tuple[str, str] | None]
    filters: dict[str, list[str]] = field(default_factory=dict)
    trained_by: str = ""


def gather(frame: Frame, results_dir: Any) -> tuple[list[Grid], list[ClaimsTable]]:
    """Returns the tables with runs and the others that a file describes, and those of claims."""
    grids, claims = [], []
    for name in tables.names():
        table = tables.make(name, frame)
        if isinstance(table, ClaimsTable):
            claims.append(table)
        else:
            grids.append((_grid if isinstance(table, Table) else _listed)(table, trained_by(name)))
    for name in automatic.others(results_dir):
        if any(name in folders for folders in (frame.runs["folders"] if len(frame.runs) else ())):
            grids.append(_grid(tables.make(name, frame, AUTOMATIC)))
    return sorted(grids, key=lambda one: (one.runs == 0, one.name != "tvlars_table1")), claims


def trained_by(name: str, group: str = "table") -> str:
    """Returns the command that makes a table's runs, as far as a file names the experiments."""
    spec = specs.read(group, name)
    if "trained_by" in spec:
        return spec["trained_by"]
    wanted = spec.get("select", {}).get("experiment", [])
    known = [one for one in ([wanted] if isinstance(wanted, str) else wanted) if "*" not in one]
    return f"lbt train -m +experiment={known[0]}" if known else ""


def _grid(table: Table, trained_by: str = "") -> Grid:
    page, there, missing = table.page(), len(table.cells), len(table.missing())
    spans = [_span(section) for section in page.sections]
    shades = [
        [[_shade(entry.value, span) for entry in row] for row in section.rows]
        for section, span in zip(page.sections, spans, strict=True)
    ]
    number = table.metric.number
    said = [span and (number(span[0]), number(span[1])) for span in spans]
    filters = _filters(page.sections)
    return Grid(table.name, page, there, there + missing, len(table.runs), shades, said, filters, trained_by)


def _listed(table: Any, trained_by: str) -> Grid:
    """Returns a table that is no grid of settings: it tells its places itself, or each of its lines is one."""
    page, runs = table.page(), len(table.runs)
    lines = sum(len(section.rows) for section in page.sections)
    there, places = table.coverage() if hasattr(table, "coverage") else (lines if runs else 0, lines)
    shades = [[[None] * len(row) for row in section.rows] for section in page.sections]
    filters = _filters(page.sections)
    return Grid(table.name, page, there, places, runs, shades, [None] * len(shades), filters, trained_by)


def _span(section: Section) -> tuple[float, float] | None:
    values = [entry.value for row in section.rows for entry in row if entry.value is not None]
    return (min(values), max(values)) if values and min(values) < max(values) else None


def _shade(value: float | None, span: tuple[float, float] | None) -> int | None:
    if value is None:
        return None
    if span is None:
        return SHADES // 2
    return min(int(SHADES * (value - span[0]) / (span[1] - span[0])), SHADES - 1)


def _filters(sections: Sequence[Section]) -> dict[str, list[str]]:
    """Returns what the parts and blocks can be filtered by: settings, and the blocks' labels, of several values."""
    found: dict[str, dict[str, None]] = {}
    for section in sections:
        for key, value in section.place.items():
            found.setdefault(key, {})[str(value)] = None
        for label, _ in section.groups:
            if label:
                found.setdefault("block", {})[label] = None
    return {key: list(values) for key, values in found.items() if len(values) > 1}


def marked(entry: Entry) -> str:
    """Returns what an entry's place is marked by, beside its shade: nothing for one whose runs all ended well."""
    if entry.kind != "runs":
        return entry.kind
    if entry.value is None:
        return "diverged" if entry.diverged else "open"
    return "partly" if entry.diverged else ""
