"""What `results/PREDICTIONS.md` says came out is what its records hold."""

import re

import pytest
from support import REPOSITORY

from lbt import records

PAGE = REPOSITORY / "results" / "PREDICTIONS.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").partition("## What came out")[2].splitlines()
    if line.startswith("|")
]
LINK = re.compile(r"\[[^]]+\]\(([^)]+\.jsonl)\)")
LINKED = [row for row in ROWS if LINK.search(row[0])]
SAID = re.findall(r"\[([\d.]+) %\]\(([^)]+\.jsonl)\)", PAGE.read_text(encoding="utf-8"))


def test_the_page_names_its_records():
    assert LINKED


@pytest.mark.parametrize("row", LINKED, ids=lambda row: LINK.search(row[0])[1].rpartition("/")[2])
def test_a_row_has_loss_and_accuracy_of_its_record(row):
    epochs, rates = ROWS[0][1:], next(cells[1:] for cells in ROWS if cells[0].startswith("rate"))
    lines = {line["epoch"]: line for line in records.read(PAGE.parent / LINK.search(row[0])[1]).epochs}
    for epoch, rate, cell in zip(map(int, epochs), rates, row[1:], strict=True):
        line = lines[epoch]
        assert cell == f"{line['train_loss']:.3g}, {line['test_accuracy']:.2f}"
        assert rate == f"{line['lr']:.0f}"


@pytest.mark.parametrize(("figure", "path"), SAID)
def test_an_accuracy_is_that_of_its_records_last_epoch(figure, path):
    assert figure == f"{records.read(PAGE.parent / path).epochs[-1]['test_accuracy']:.2f}"


@pytest.mark.parametrize("figure", [figure for figure, _ in SAID])
def test_the_readme_says_the_same(figure):
    assert f"{figure} %" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
