"""Tables from records, written as Markdown, LaTeX and CSV.

A YAML file of `configs/table` describes one; of a sweep without such a file the description is made from its records.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lbt.records import replace_file
from lbt.report import automatic, overview
from lbt.report.claims.explanations_table import Explanations, ExplanationsTable
from lbt.report.claims.table import Claims, ClaimsTable
from lbt.report.critical import branch_table, steps_table
from lbt.report.frame import Frame, load_or_refuse
from lbt.report.kit import render, specs
from lbt.report.layout import AUTOMATIC, Wanted
from lbt.report.tables import beside, communication
from lbt.report.tables.grid import Spec, Table

GROUP = "table"

# Setting that a file of this kind has -> the table and what its file says; all others are grids.
KINDS: dict[str, tuple[Callable, type]] = {
    "variants": (ExplanationsTable, Explanations),  # has claims, too
    "claims": (ClaimsTable, Claims),
    "target": (steps_table.StepsTable, steps_table.Spec),
    "sent_by": (communication.CommunicationTable, communication.Spec),
    "tolerance": (branch_table.BranchTable, branch_table.Spec),
    "beside": (beside.BesideTable, beside.Spec),
}


def names() -> list[str]:
    """Returns the tables there are."""
    return specs.names(GROUP)


def make(name: str, frame: Frame, wanted: Wanted = AUTOMATIC) -> Any:
    """Returns the table of this name over these records; `wanted` is for a sweep that no file describes."""
    if name not in names():
        return Table(name, automatic.table(name, frame, wanted), frame)
    content = specs.read(GROUP, name)
    kind, spec = next((known for key, known in KINDS.items() if key in content), (Table, Spec))
    return kind(name, specs.bound(spec, GROUP, name), frame)


def write_tables(wanted: Sequence[str], results_dir: str | Path, layout: Wanted = AUTOMATIC) -> int:
    """Writes `<results_dir>/tables/<name>.md`, `.tex` and `.csv` for each wanted table and returns the exit code.

    Args:
        wanted: names of tables, or of sweeps with records; none: all tables that a file describes and that have a run.
        results_dir: where records and tables lie.
        layout: what to show of a sweep.

    Raises:
        UserError: there is no such table or sweep, or nothing at `results_dir`.
    """
    automatic.refuse_unknown(GROUP, wanted, results_dir, layout)
    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "tables"
    folder.mkdir(exist_ok=True)
    for name in wanted or names():
        table = make(name, frame, layout)
        if not wanted and table.runs.empty:
            continue
        page = table.page()
        text = render.markdown(page)
        replace_file(folder / f"{name}.md", text.encode())
        replace_file(folder / f"{name}.tex", render.latex(page).encode())
        replace_file(folder / f"{name}.csv", table.csv().encode())
        print(f"{folder / name}.md  {len(table.runs)} runs")
        if wanted:
            print(text)
    overview.write(results_dir)
    if not wanted and (others := automatic.others(results_dir)):
        print(f"of sweeps without a file of their own: lbt tables {' '.join(others)}")
    return 0
