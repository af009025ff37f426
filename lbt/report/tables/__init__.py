"""Tables from records: what a YAML file of `configs/table` describes, written as Markdown, LaTeX and CSV."""

from collections.abc import Sequence
from pathlib import Path

from lbt.records import replace_file
from lbt.report import overview
from lbt.report.claims.table import Claims, ClaimsTable
from lbt.report.frame import Frame, load_or_refuse
from lbt.report.kit import render, specs
from lbt.report.tables.grid import Layout, Table

GROUP = "table"


def names() -> list[str]:
    """Returns the tables there are."""
    return specs.names(GROUP)


def make(name: str, frame: Frame) -> Table | ClaimsTable:
    """Returns the table of this name over these records."""
    kind, layout = (ClaimsTable, Claims) if "claims" in specs.read(GROUP, name) else (Table, Layout)
    return kind(name, specs.bound(layout, GROUP, name), frame)


def write_tables(wanted: Sequence[str], results_dir: str | Path) -> int:
    """Writes `<results_dir>/tables/<name>.md`, `.tex` and `.csv` for each wanted table and returns the exit code.

    Raises:
        UserError: there is no such table, or nothing at `results_dir`.
    """
    specs.refuse_unknown(GROUP, wanted)
    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "tables"
    folder.mkdir(exist_ok=True)
    for name in wanted or names():
        table = make(name, frame)
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
    return 0
