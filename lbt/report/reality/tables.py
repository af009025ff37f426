"""A study's tables as Markdown, CSV and LaTeX, the same figures in all three."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lbt.report.kit import render
from lbt.report.kit.wording import shown

Rows = Sequence[Mapping[str, Any]]
RUNS = "runs"  # of a row: the ids of what it is made of


def files(rows: Rows, digits: int = 2) -> dict[str, str]:
    """Returns a table's files by their endings; the first row's keys are its header.

    In CSV numbers have six decimals, an interval is two columns, and the ids under `RUNS` stand at the end.

    Args:
        rows: a mapping each.
        digits: decimals of the numbers as shown.
    """
    header = shown_columns(rows)
    intervals = {key for row in rows for key, value in row.items() if isinstance(value, tuple)}
    texts = [[shown(row[key], digits) for key in header] for row in rows]
    return {
        "md": "\n".join(render.markdown_table(header, texts)) + "\n",
        "csv": render.csv([dict(_columns(row, intervals)) for row in rows]),
        "tex": "\n".join(render.latex_table(header, texts)) + "\n",
    }


def shown_columns(rows: Rows) -> list[str]:
    """Returns the columns that are shown: all but the runs behind a row."""
    return [key for key in rows[0] if key != RUNS]


def _columns(row: Mapping[str, Any], intervals: Collection[str]) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if key == RUNS:
            yield key, " ".join(value)
        elif key in intervals:
            low, high = value or (None, None)
            yield from (
                (f"{key}, {end}", one if one is None else f"{one:.6f}") for end, one in [("low", low), ("high", high)]
            )
        elif isinstance(value, float):
            yield key, f"{value:.6f}"
        else:
            yield key, shown(value) if isinstance(value, list) else value
