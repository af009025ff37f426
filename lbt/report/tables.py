"""Tables from records: what a YAML file of `configs/table` describes, written as Markdown, LaTeX and CSV."""

from collections.abc import Sequence
from pathlib import Path

from lbt.config import groups
from lbt.records import replace_file
from lbt.report import layout, overview
from lbt.report.claims_table import ClaimsTable
from lbt.report.frame import Frame, load_or_refuse
from lbt.report.table import Table


def names() -> list[str]:
    """Returns the tables there are."""
    return groups.choices("table")


def make(name: str, frame: Frame) -> Table | ClaimsTable:
    """Returns the table of this name over these records."""
    spec = groups.load("table", name)
    kind = ClaimsTable if "claims" in spec else Table
    return kind(name, spec, frame)


def write_tables(wanted: Sequence[str], results_dir: str | Path) -> int:
    """Writes `<results_dir>/tables/<name>.md`, `.tex` and `.csv` for each wanted table and returns the exit code.

    Raises:
        UserError: there is no such table, or nothing at `results_dir`.
    """
    for name in wanted:
        groups.path_of("table", name)
    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "tables"
    folder.mkdir(exist_ok=True)
    for name in wanted or names():
        table = make(name, frame)
        if not wanted and table.runs.empty:
            continue
        page = table.page()
        text = layout.markdown(page)
        replace_file(folder / f"{name}.md", text.encode())
        replace_file(folder / f"{name}.tex", layout.latex(page).encode())
        replace_file(folder / f"{name}.csv", table.csv().encode())
        print(f"{folder / name}.md  {len(table.runs)} runs")
        if wanted:
            print(text)
    overview.write(results_dir)
    return 0
