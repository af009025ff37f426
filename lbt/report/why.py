"""`results/WHY.md`: why large batches fail, what each explanation measured and what is missing, from the records."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lbt.records import replace_file
from lbt.report import overview
from lbt.report.claims.explanations import Arms
from lbt.report.claims.explanations_table import Explanations, ExplanationsTable
from lbt.report.claims.measures import MEASURES
from lbt.report.claims.rules import Finding
from lbt.report.frame import Frame, load_or_refuse, select
from lbt.report.kit import escape, specs
from lbt.report.kit.render import markdown_list, markdown_table
from lbt.report.kit.wording import mean_and_spread

PAGE, TABLE = "WHY.md", "why_claims"

HEAD = """\
# Why large batches fail: what was measured

Sharp minima, gradient noise and the order of batches, each explanation in turn: who says it, the rule it is judged by,
stated before the runs but where it says otherwise, what our own runs measured, and what is missing. Headings are
claims, not findings. A place is a variant at a batch size, a look one measurement of a probe. The published figures
behind these explanations (the TVLARS paper's Figure 3 among them) are not at hand as numbers: none stands here. Made
by `lbt why`; the same verdicts in one table: `lbt tables why_claims`.
"""


def write(results_dir: str | Path) -> int:
    """Writes `<results_dir>/WHY.md` and returns the exit code.

    Raises:
        UserError: there is no such folder.
    """
    frame = load_or_refuse(results_dir)
    path = Path(results_dir) / PAGE
    replace_file(path, markdown(frame, results_dir).encode())
    overview.write(results_dir)
    print(path)
    return 0


def markdown(frame: Frame, results_dir: str | Path) -> str:
    """Returns the page: every claim with each source's figures, then figures and the runs that all of it is made of."""
    table = ExplanationsTable(TABLE, specs.bound(Explanations, "table", TABLE), frame)
    parts = [HEAD, *markdown_list([f"{label}: {table.caption(label)}" for label in table.arms]), "", table.legend(), ""]
    for number, claim in enumerate(table.spec["claims"], 1):
        parts += [
            f"## {number}. Claim: {escape.markdown(claim['claim'])}",
            "",
            escape.markdown(" ".join(claim["why"].split())),
            "",
        ]
        parts += [f"Rule: {escape.markdown(claim['says'])}.", ""]
        for label, known, finding in table.rows:
            if known["claim"] == claim["claim"]:
                parts += [*_judged(table, label, known, finding, frame), ""]
    parts += [*_shown(table, Path(results_dir)), *_traced(table)]
    parts += markdown_list([note for arms in table.arms.values() for note in arms.notes])
    parts += markdown_list([f"left out: {problem}" for problem in frame.problems])
    return "\n".join(parts).rstrip() + "\n"


def _capital(text: str) -> str:
    return escape.markdown(text[:1].upper() + text[1:])


def _judged(
    table: ExplanationsTable, label: str, claim: Mapping[str, Any], one: Finding, frame: Frame
) -> Iterator[str]:
    """Yields what a source says of a claim: the verdict, what it stands on, each variant's figures, what is missing."""
    yield f"**{escape.markdown(label)}: {one.verdict}.** " + escape.markdown(
        f"{_capital_first(one.figures)}; n {one.n}; interval {one.interval}."
    )
    if found := _measured(table, table.arms[label], claim):
        yield from ("", *found)
    if one.missing:
        yield from ("", escape.markdown(f"Missing: {one.missing}."))
    left = [name for name in table.experiments(claim, label) if select(frame.runs, {"experiment": name}).empty]
    if left:
        yield from ("", f"Still to run: {', '.join(f'`lbt train -m +experiment={name}`' for name in left)}.")


def _capital_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _measured(table: ExplanationsTable, arms: Arms, claim: Mapping[str, Any]) -> list[str]:
    """Returns a table of a claim's figures, a row a variant and a column a batch; nothing where there is no figure."""
    measures = [claim["options"].get("measure")] if "measure" in claim["options"] else ["end_sharpness", "accuracy"]
    rows = []
    for measure in measures:
        unit = MEASURES[measure].unit if measure in MEASURES else "%"
        for name in table.variants(claim):
            values = [arms.values(measure, name, batch) for batch in arms.batches]
            if any(values):
                shown = [mean_and_spread(known) if known else "no run" for known in values]
                rows.append([f"{measure.replace('_', ' ')} ({'log10' if unit == 'decades' else unit})", name, *shown])
    header = ["figure", "variant", *(f"batch {batch:,}" for batch in arms.batches)]
    return markdown_table(header, rows, ["---", "---", *["---:"] * len(arms.batches)]) if rows else []


def _shown(table: ExplanationsTable, folder: Path) -> list[str]:
    """Returns the figures and tables that there are, and how those are made that there are not."""
    parts, lines = ["## Figures", ""], []
    for name in table.spec.get("shown", ()):
        if (folder / "figures" / f"{name}.svg").exists():
            parts += [f"![{name}](figures/{name}.svg)", ""]
        elif name in specs.names("figure"):
            lines.append(f"- not drawn yet: `lbt plots {name}`")
        if (folder / "tables" / f"{name}.md").exists():
            lines.append(f"- [{name}](tables/{name}.md)")
    return [*parts, *lines, *([""] if lines else [])]


def _traced(table: ExplanationsTable) -> list[str]:
    """Returns where each variant's runs are recorded."""
    parts = ["## The runs", ""]
    rows = []
    for label, arms in table.arms.items():
        for name in table.spec["variants"]:
            for batch in arms.batches:
                runs = sorted(arms.runs(name, batch), key=lambda run: run["seed"])
                links = [_link(run) for run in runs]
                if links:
                    rows.append(
                        f"| {escape.markdown(label)} | {escape.markdown(name)} | {batch:,} | {', '.join(links)} |"
                    )
    if not rows:
        return [*parts, "None yet.", ""]
    return [*parts, "| | variant | batch | records, by seed |", "| --- | --- | ---: | --- |", *rows, ""]


def _link(run: Mapping[str, Any]) -> str:
    path = Path(run["path"])
    ended = "" if run["status"] == "done" else f" ({run['status']})"
    return f"[{run['id']}](runs/{path.parent.name}/{path.name}){ended}"
