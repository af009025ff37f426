"""A table laid out, and its two renderings: Markdown and LaTeX."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One entry: its text, and whether it is the best of its block."""

    text: str
    best: bool = False


@dataclass
class Section:
    """A part of a table with a caption of its own.

    Attributes:
        title: empty where the table has one part.
        caption: what its figures stand on.
        groups: (label, number of columns) of the header's upper line; one empty label where there is none.
        header: a label a column.
        rows: entries, one a column.
        notes: remarks on single entries.
        widths: of the columns in cm, for running text; empty: as wide as the entries are.
    """

    title: str
    caption: str
    groups: list[tuple[str, int]]
    header: list[str]
    rows: list[list[Entry]]
    notes: list[str] = field(default_factory=list)
    widths: Sequence[float] = ()


@dataclass
class Page:
    """A table's sections between what is said before and after them."""

    title: str
    about: str
    sections: list[Section]
    legend: list[str]


def markdown(page: Page) -> str:
    """Returns the page as Markdown."""
    parts = [f"# {page.title}", "", page.about, ""]
    for section in page.sections:
        if section.title:
            parts += [f"## {section.title}", ""]
        labels = [label for label, width in section.groups for _ in range(width)]
        header = [f"{group}: {label}" if group else label for group, label in zip(labels, section.header, strict=True)]
        align = "---" if section.widths else "---:"
        parts += [section.caption, "", _line(header), _line([align] * len(header))]
        parts += [_line([f"**{entry.text}**" if entry.best else entry.text for entry in row]) for row in section.rows]
        parts += ["", *[f"- {note}" for note in section.notes]]
    return "\n".join([*parts, *page.legend]).rstrip() + "\n"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


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
    parts = [PREAMBLE, rf"\section*{{{escape(page.title)}}}", escape(page.about), ""]
    for section in page.sections:
        parts += [*_table(section, page.title), ""]
    parts += [f"{escape(line)}\n" for line in page.legend if line]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _table(section: Section, title: str) -> Iterator[str]:
    caption = ". ".join(text for text in (section.title or title, section.caption) if text)
    yield from (r"\begin{table}[htbp]", r"\centering\footnotesize", rf"\caption{{{escape(caption)}}}")
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{width}cm}}" for width in section.widths)
    yield rf"\sbox0{{\begin{{tabular}}{{{columns or 'r' * len(section.header)}}}"
    yield r"\toprule"
    if any(label for label, _ in section.groups):
        yield (
            " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{escape(label)}}}" for label, width in section.groups) + r" \\"
        )
        yield from _rules(section.groups)
    yield from (_row([escape(label) for label in section.header]), r"\midrule")
    before = section.rows[0][0].text if section.rows else ""
    for row in section.rows:
        if row[0].text != before:
            yield r"\addlinespace"
        before = row[0].text
        yield _row([rf"\textbf{{{escape(entry.text)}}}" if entry.best else escape(entry.text) for entry in row])
    yield from (r"\bottomrule", r"\end{tabular}}%")
    yield r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi"
    if section.notes:
        yield rf"\par\smallskip {escape('; '.join(section.notes))}"
    yield r"\end{table}"


def _rules(groups: Sequence[tuple[str, int]]) -> Iterator[str]:
    first = 1
    for label, width in groups:
        if label:
            yield rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        first += width


def _row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}", "≥": r"\ensuremath{\ge}", "≤": r"\ensuremath{\le}", "λ": r"\ensuremath{\lambda}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "*": r"\textasteriskcentered{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def escape(text: str) -> str:
    """Returns Markdown's running text for LaTeX: special letters escaped, `code` in typewriter letters."""
    plain = "".join(_SPECIAL.get(letter, letter) for letter in text)
    # A long path may break after a slash.
    return re.sub(
        r"`([^`]*)`", lambda found: rf"\texttt{{{found[1].replace('/', '/' + chr(92) + 'allowbreak{}')}}}", plain
    )
