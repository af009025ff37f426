"""How claims and what the figures say of them are laid out, whatever they are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lbt.report.claims import rules
from lbt.report.claims.rules import Finding
from lbt.report.kit import render
from lbt.report.kit.render import Entry, Page, Section

HEADER = ["claim", "rule", "figures", "n", "interval", "verdict", "what is missing"]
WIDTHS = (3.2, 5.2, 5.2, 1.1, 2.9, 2.0, 5.0)  # of the columns, in cm
COUNTED = (
    "n: runs a side, from the place with fewest to that with most. A comparison counts from "
    f"{rules.NEEDED} runs a side on, where the p-value of its Welch test against the rule's threshold, "
    "corrected by Holm's method for all the places that the claim looks at, is below "
    f"{1 - rules.LEVEL:.2g}; the interval is that of one comparison alone."
)
Row = tuple[Mapping[str, Any], Finding]


def page(
    spec: Mapping[str, Any], sections: Sequence[tuple[str, str, Sequence[Row]]], legend: list[str], notes: list[str]
) -> Page:
    """Returns the page: a section for each source of figures, a row for each claim.

    Args:
        spec: `title` and `about`.
        sections: label, caption, and claims (`claim`, `says`) with their findings.
        legend: our own words below.
        notes: remarks on the whole.
    """
    made = []
    for label, caption, rows in sections:
        texts = [
            [claim["claim"], claim["says"], one.figures, one.n, one.interval, one.verdict, one.missing]
            for claim, one in rows
        ]
        entries = [[Entry(text, column == 5) for column, text in enumerate(row)] for row in texts]
        made.append(Section(label, caption, [("", len(HEADER))], HEADER, entries, [], WIDTHS))
    return Page(spec["title"], " ".join(spec["about"].split()), made, legend, notes)


def csv(rows: Sequence[tuple[str, Mapping[str, Any], Finding]]) -> str:
    """Returns claims as CSV, a row a source and claim.

    Args:
        rows: source, claim and finding; `runs` of a claim are the ids of those it is judged by.
    """
    return render.csv(
        [
            {
                "source": source,
                "claim": claim["claim"],
                "rule": claim["says"],
                **asdict(one),
                "runs": claim["runs"],
            }
            for source, claim, one in rows
        ]
    )
