"""A study's tables as Markdown, CSV and LaTeX, the same figures in all three."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lbt.report.kit import render
from lbt.report.kit.wording import shown

Rows = Sequence[Mapping[str, Any]]


def files(rows: Rows, digits: int = 2) -> dict[str, str]:
    """Returns a table's files by their endings; the first row's keys are its header.

    In CSV numbers have six decimals, and an interval is two columns.

    Args:
        rows: a mapping each.
        digits: decimals of the numbers as shown.
    """
    header = list(rows[0])
    texts = [[shown(row[key], digits) for key in header] for row in rows]
    return {
        "md": "\n".join(render.markdown_table(header, texts)) + "\n",
        "csv": render.csv([dict(_columns(row)) for row in rows]),
        "tex": "\n".join(render.latex_table(header, texts)) + "\n",
    }


def _columns(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, tuple):
            yield from ((f"{key}, low", f"{value[0]:.6f}"), (f"{key}, high", f"{value[1]:.6f}"))
        elif isinstance(value, float):
            yield key, f"{value:.6f}"
        else:
            yield key, shown(value) if isinstance(value, list) else value
