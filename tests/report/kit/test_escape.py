import csv
import io
import re

import pytest

from lbt.report.kit import escape, render
from lbt.report.kit.render import Entry, Page, Section

HOSTILE = [
    "a|b",
    "`code`",
    "<img src=x onerror=alert(1)>",
    "</td></table>",
    "<!-- hidden",
    "[text](javascript:alert(1))",
    "![image](http://host/x.png)",
    "\\",
    "one\n\n## two\n\n| three | four |",
    "carriage\r# return",
    "bell\x07 and \u202e turned round",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_a_markdown_cell_stays_one_cell_of_plain_text(text):
    (_, _, line) = render.markdown_table(["a", "b"], [[text, Entry("last", best=True)]])
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 and line.endswith("| **last** |")
    assert not re.search(r"<[A-Za-z/!?]|(?<!\\)`|\]\(", line)
    assert line.isprintable()


@pytest.mark.parametrize("text", ["p < 0.0001", "[+2.73, +7.27]", "80.00 ± 1.00 (n=3)", "a_b", "5 > 4", "x[0]"])
def test_what_harms_nothing_is_left_alone_in_markdown(text):
    assert escape.markdown(text) == text


def page(text):
    section = Section(text, text, [("", 1), (text, 1)], [text, "b"], [[Entry(text), Entry(text, True)]], [text])
    return Page("Title", "about", [section], ["Made by `lbt`."], [text])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_part_of_a_page_lets_a_text_begin_a_line_or_a_paragraph(text):
    written = render.markdown(page(text))
    assert len(written.splitlines()) == len(render.markdown(page("plain")).splitlines())
    assert re.findall(r"^#+ .*", written, flags=re.MULTILINE)[0] == "# Title"
    assert len(re.findall(r"^#+ ", written, flags=re.MULTILINE)) == 2
    assert "Made by `lbt`." in written  # our own markup stays


@pytest.mark.parametrize(
    "text", [*HOSTILE, "\\input{/etc/passwd}", "$x^2$ 50 % #1 &", "{", "漢字", "[1] first in its row"]
)
def test_a_text_in_latex_is_no_command_and_ends_no_caption(text):
    written = render.latex(page(text))
    caption = re.search(r"\\caption\{(.*)\}\n", written)[1]
    assert "\n" not in caption
    bare = re.sub(r"\\(textbackslash|text\w+|ensuremath\{\\\w+\}|allowbreak)\{?\}?|\\[&%$#_{}]|\\`\{\}", "", caption)
    assert not re.search(r"[\\$%#&~^`{}]", bare)
    assert all(ord(letter) < 0x250 for letter in caption)
    assert not re.search(r"\\\\\n\[", written)  # it would be the line break's argument


def test_a_csv_text_is_no_formula_and_a_number_stays_one():
    texts = ["=1+1", "+cmd|'/c calc'!A1", "-2+3", "@SUM(A1)", "\t=1", "two\nlines", "-", "plain", "-0.5", "+1e-3"]
    rows = list(csv.reader(io.StringIO(render.csv([{"text": text, "number": -1.5} for text in texts]))))
    assert [row[0] for row in rows[1:]] == [
        "'=1+1", "'+cmd|'/c calc'!A1", "'-2+3", "'@SUM(A1)", "'=1", "two lines", "-", "plain", "-0.5", "+1e-3",
    ]  # fmt: skip
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_dollars_in_a_figure_are_dollars():
    from matplotlib.cbook import is_math_text

    text = "cost $x^2$ and $y$"
    assert is_math_text(text) and not is_math_text(escape.figure(text))
    assert escape.figure(text).replace("\\$", "$") == text
