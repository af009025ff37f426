"""Tables and their renderings: Markdown, LaTeX and CSV, each escaped in one place."""

import csv as _csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbt.report.kit import escape


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        text: as shown.
        best: whether it is the best of its block.
        kind: what it is of a grid: `label`, `published`, `runs`, `missing`; empty in other tables.
        runs: ids of the runs it stands on.
        value: its figure, None where it has none.
        diverged: how many of its runs diverged.
    """

    text: str
    best: bool = False
    kind: str = ""
    runs: Sequence[str] = ()
    value: float | None = None
    diverged: int = 0


@dataclass
class Section:
    """A part of a table with a caption of its own; all its texts are shown as they are.

    Attributes:
        title: empty where the table has one part.
        caption: what its figures stand on.
        groups: (label, number of columns) of the header's upper line; one empty label where there is none.
        header: a label a column.
        rows: entries, one a column.
        notes: remarks on single entries.
        widths: of the columns in cm, for running text; empty: as wide as the entries are.
        place: setting -> value of the part of a grid that it is.
    """

    title: str
    caption: str
    groups: list[tuple[str, int]]
    header: list[str]
    rows: list[list[Entry]]
    notes: list[str] = field(default_factory=list)
    widths: Sequence[float] = ()
    place: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Page:
    """A table's sections between what is said before and after them.

    Attributes:
        title, about, legend: our own words, in Markdown.
        sections: the table.
        notes: remarks on the whole, shown as they are.
    """

    title: str
    about: str
    sections: list[Section]
    legend: list[str]
    notes: list[str] = field(default_factory=list)


def markdown(page: Page) -> str:
    """Returns the page as Markdown."""
    parts = [f"# {page.title}", "", page.about, ""]
    for section in page.sections:
        if section.title:
            parts += [*([""] if parts[-1] else []), f"## {escape.markdown(section.title)}", ""]
        labels = [label for label, width in section.groups for _ in range(width)]
        header = [f"{group}: {label}" if group else label for group, label in zip(labels, section.header, strict=True)]
        align = ["---" if section.widths else "---:"] * len(header)
        parts += [escape.markdown(section.caption), "", *markdown_table(header, section.rows, align)]
        parts += ["", *markdown_list(section.notes)]
    return "\n".join([*parts, *page.legend, *markdown_list(page.notes)]).rstrip() + "\n"


def markdown_list(texts: Sequence[str]) -> list[str]:
    """Returns a line of a list for each text."""
    return [f"- {escape.markdown(text)}" for text in texts]


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[Entry | str]], align: Sequence[str] | None = None
) -> list[str]:
    """Returns the lines of a Markdown table.

    Args:
        header: a label a column.
        rows: entries or plain texts, one a column.
        align: `---` (left) or `---:` (right) a column; None: all left.
    """
    rule = f"|{'---|' * len(header)}" if align is None else f"| {' | '.join(align)} |"
    return [_line(header), rule, *[_line(row) for row in rows]]


def _line(row: Sequence[Entry | str]) -> str:
    texts = [f"**{escape.markdown(cell.text)}**" if _best(cell) else escape.markdown(_text(cell)) for cell in row]
    return f"| {' | '.join(texts)} |"


def _text(cell: Entry | str) -> str:
    return cell if isinstance(cell, str) else cell.text


def _best(cell: Entry | str) -> bool:
    return isinstance(cell, Entry) and cell.best


PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,booktabs,array,graphicx}
\begin{document}
"""


def latex(page: Page) -> str:
    """Returns the page as a LaTeX document that compiles; each `table` in it can be copied into another one.

    It needs booktabs, array, graphicx and amsmath, no other package.
    """
    markup = escape.latex_of_markup
    parts = [PREAMBLE, rf"\section*{{{markup(page.title)}}}", markup(page.about), ""]
    for section in page.sections:
        parts += [*_floating(section, page.title), ""]
    parts += [f"{markup(line)}\n" for line in page.legend if line]
    parts += [f"{escape.latex(f'- {note}')}\n" for note in page.notes]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _floating(section: Section, title: str) -> Iterator[str]:
    caption = ". ".join(text for text in (section.title or title, section.caption) if text)
    yield from (r"\begin{table}[htbp]", r"\centering\footnotesize", rf"\caption{{{escape.latex(caption)}}}")
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{width}cm}}" for width in section.widths)
    first, *lines = latex_table(section.header, section.rows, columns or "r" * len(section.header), section.groups)
    yield from (rf"\sbox0{{{first}", *lines[:-1], rf"{lines[-1]}}}%")
    yield r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi"
    if section.notes:
        yield rf"\par\smallskip {escape.latex('; '.join(section.notes))}"
    yield r"\end{table}"


def latex_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Entry | str]],
    columns: str = "",
    groups: Sequence[tuple[str, int]] | None = None,
) -> list[str]:
    """Returns the lines of a LaTeX tabular with booktabs' rules.

    Args:
        header: a label a column.
        rows: entries or plain texts, one a column.
        columns: LaTeX's column types; empty: all left.
        groups: as of a `Section`, with space between rows of different first entries; None: neither.
    """
    lines = [rf"\begin{{tabular}}{{{columns or 'l' * len(header)}}}", r"\toprule"]
    if any(label for label, _ in groups or ()):
        heads = [rf"\multicolumn{{{width}}}{{c}}{{{escape.latex(label)}}}" for label, width in groups]
        lines += [" & ".join(heads) + r" \\", *_rules(groups)]
    lines += [_row(header), r"\midrule"]
    before = None
    for row in rows:
        if groups and before is not None and _text(row[0]) != before:
            lines.append(r"\addlinespace")
        before = _text(row[0])
        lines.append(_row(row))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _rules(groups: Sequence[tuple[str, int]]) -> Iterator[str]:
    first = 1
    for label, width in groups:
        if label:
            yield rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        first += width


def _row(row: Sequence[Entry | str]) -> str:
    texts = [rf"\textbf{{{escape.latex(cell.text)}}}" if _best(cell) else escape.latex(_text(cell)) for cell in row]
    if texts[0].startswith("["):  # which the end of the row before would take for its argument
        texts[0] = f"{{}}{texts[0]}"
    return " & ".join(texts) + r" \\"


def csv(rows: Sequence[Mapping[str, Any]], header: Sequence[str] | None = None) -> str:
    """Returns rows as CSV; a column that a row lacks is empty there.

    Args:
        rows: column -> value.
        header: the columns; None: all that there are, in their order.
    """
    buffer = io.StringIO()
    header = list(dict.fromkeys(key for row in rows for key in row)) if header is None else list(header)
    writer = _csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(escape.csv, header))
    writer.writerows([escape.csv(row.get(key)) for key in header] for row in rows)
    return buffer.getvalue()
