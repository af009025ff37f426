"""Escapes: what a text needs so that Markdown, LaTeX, CSV and matplotlib show it as it is.

Whatever comes from a record or a file's name is such a text; only what this program says itself is markup.
"""

import re

_MARKDOWN = {"\\": "\\\\", "|": "\\|", "`": "\\`", "<": "&lt;", "](": "]\\("}
# A `<` that begins no tag is shown as it is, and brackets are a link only before a parenthesis.
_IN_MARKDOWN = re.compile(r"[\\|`]|<(?=[A-Za-z/!?])|\]\(")

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}", "≥": r"\ensuremath{\ge}", "≤": r"\ensuremath{\le}", "λ": r"\ensuremath{\lambda}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "*": r"\textasteriskcentered{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_LATIN = "–—‘’“”„…†‡•€™"  # beyond Latin-1 and its extension, what LaTeX's utf8 knows in any font

_FORMULA = "=+-@"  # with which a spreadsheet's formulas begin


def one_line(text: str) -> str:
    """Returns a text without line breaks and other letters that are not printed."""
    if text.isprintable() and "  " not in text:
        return text
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def markdown(text: str) -> str:
    """Returns a text as Markdown that shows it, in a table's cell too: no tags, links, code or breaks of its own."""
    return _IN_MARKDOWN.sub(lambda found: _MARKDOWN[found[0]], one_line(text))


def latex(text: str) -> str:
    """Returns a text as LaTeX that shows it; letters that LaTeX's fonts lack become a question mark."""
    return _latex(one_line(text)).replace("`", r"\`{}")


def latex_of_markup(text: str) -> str:
    """Returns Markdown of our own for LaTeX: special letters escaped, `code` in typewriter letters."""
    # A long path may break after a slash.
    return re.sub(
        r"`([^`]*)`", lambda found: rf"\texttt{{{found[1].replace('/', '/' + chr(92) + 'allowbreak{}')}}}", _latex(text)
    )


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter if ord(letter) < 0x180 or letter in _LATIN else "?") for letter in text)


def csv(value: object) -> object:
    """Returns a CSV field's value; a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if len(text) > 1 and text[0] in _FORMULA and not _is_number(text) else text


def figure(text: str) -> str:
    """Returns a text for matplotlib, which would take what stands between dollars for a formula."""
    return one_line(text).replace("$", r"\$")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
