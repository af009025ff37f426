"""Rows as Markdown, CSV and LaTeX, the same figures in all three."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lbt.records import replace_file

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
}


def shown(value: Any) -> str:
    """Returns a cell as shown: two decimals, `-` for nothing, `never` for a step that did not come."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, tuple):
        return f"{shown(value[0])} to {shown(value[1])}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return "never" if math.isinf(value) else f"{value:.2f}"
    return str(value)


def p_value(p: float | None) -> str:
    """Returns a p-value with two significant digits."""
    return "-" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def percent(share: float) -> str:
    """Returns a share in %."""
    return f"{100 * share:.0f} %"


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a Markdown table; the first row's keys are its header."""
    header = list(rows[0])
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(shown(row[key]) for key in header)} |" for row in rows]


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a LaTeX tabular with booktabs' rules."""
    header = list(rows[0])
    lines = [r"\begin{tabular}{" + "l" * len(header) + "}", r"\toprule"]
    lines += [" & ".join(map(_escape, header)) + r" \\", r"\midrule"]
    lines += [" & ".join(_escape(shown(row[key])) for key in header) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a CSV file's content: numbers with six decimals, an interval as two columns."""
    split = [dict(_columns(row)) for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in split for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(split)
    return buffer.getvalue()


def _columns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, value in row.items():
        if isinstance(value, tuple):
            found += [(f"{key}, low", f"{value[0]:.6f}"), (f"{key}, high", f"{value[1]:.6f}")]
        elif isinstance(value, float):
            found.append((key, f"{value:.6f}"))
        else:
            found.append((key, "" if value is None else shown(value) if isinstance(value, list) else str(value)))
    return found


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `<folder>/<name>.md`, `.csv` and `.tex`."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{name}.md", ("\n".join(markdown(rows)) + "\n").encode())
    replace_file(folder / f"{name}.csv", comma_separated(rows).encode())
    replace_file(folder / f"{name}.tex", latex(rows).encode())
