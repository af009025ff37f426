"""Tables from records: what a YAML file of `configs/table` describes, written as Markdown and CSV."""

import csv
import io
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lbt.config import CONFIG_DIR
from lbt.errors import UserError, did_you_mean
from lbt.records import replace_file
from lbt.report.cells import Cell, make_cells
from lbt.report.frame import Frame, load

TABLES = CONFIG_DIR / "table"
PUBLISHED = "published"


def names() -> list[str]:
    """Returns the tables there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def write_tables(wanted: Sequence[str], results_dir: str | Path) -> int:
    """Writes `<results_dir>/tables/<name>.md` and `.csv` for each wanted table and returns the exit code.

    Raises:
        UserError: there is no such table, or nothing at `results_dir`.
    """
    for name in wanted:
        if name not in names():
            raise UserError(f'there is no table "{name}"{did_you_mean(name, names())}')
    if not Path(results_dir).is_dir():
        raise UserError(f"{results_dir}: no such folder; lbt train writes one, --results-dir names another")
    frame = load(results_dir)
    for problem in frame.problems:
        print(f"left out: {problem}", file=sys.stderr)
    folder = Path(results_dir) / "tables"
    folder.mkdir(exist_ok=True)
    for name in wanted or names():
        table = Table(name, frame)
        if not wanted and table.runs.empty:
            continue
        replace_file(folder / f"{name}.md", table.markdown().encode())
        replace_file(folder / f"{name}.csv", table.csv().encode())
        print(f"{folder / name}.md  {len(table.runs)} runs")
        if wanted:
            print(table.markdown())
    return 0


class Table:
    """One table.

    Args:
        name: of its YAML file.
        frame: the records.
    """

    def __init__(self, name: str, frame: Frame):
        self.name, self.problems = name, frame.problems
        self.spec: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(TABLES / f"{name}.yaml"))
        self.runs = select(frame.runs, self.spec["select"])
        self.published = self._read_published()
        self.keys = [*self.spec.get("sections", []), *self.spec["rows"], *self.spec["columns"]]
        self.cells = make_cells(self.runs, self.keys, self.spec["metric"])

    def _read_published(self) -> dict[tuple, float]:
        """Returns the published values by the settings they belong to."""
        source = self.spec.get("published")
        if source is None:
            return {}
        frame = pd.read_csv(TABLES / source["file"])
        columns = {setting: frame[column].tolist() for column, setting in source["keys"].items()}
        rows = zip(*columns.values(), frame[source["value"]].tolist(), strict=True)
        return {tuple(sorted(zip(columns, row[:-1], strict=True))): row[-1] for row in rows}

    def _grid(self, keys: Sequence[str]) -> list[tuple]:
        """Returns every combination of `keys` a row, column or section stands for: expected, published or measured."""
        axes = self.spec.get("axes", {})
        found: dict[tuple, None] = {}
        if all(key in axes for key in keys):
            found |= dict.fromkeys(itertools.product(*(axes[key] for key in keys)))
        for settings in self.published:
            if all(key in dict(settings) for key in keys):
                found |= {tuple(dict(settings)[key] for key in keys): None}
        for cell in self.cells:
            found |= {tuple(cell.key[key] for key in keys): None}
        return list(found)

    def _of(self, cells: Sequence[Cell], settings: Mapping[str, Any]) -> Cell | None:
        return next((cell for cell in cells if all(cell.key[key] == settings[key] for key in self.keys)), None)

    def _published_value(self, settings: Mapping[str, Any]) -> float | None:
        if not self.published:
            return None
        wanted = {setting: settings.get(setting) for setting in self.spec["published"]["keys"].values()}
        return self.published.get(tuple(sorted(wanted.items())))

    def markdown(self) -> str:
        """Returns the table as Markdown: a section for each part and for each set of runs that may be compared."""
        parts = [f"# {self.spec['title']}", "", " ".join(self.spec["about"].split()), ""]
        section_keys = self.spec.get("sections", [])
        for section in self._grid(section_keys) if section_keys else [()]:
            fixed = dict(zip(section_keys, section, strict=True))
            here = [cell for cell in self.cells if all(cell.key[key] == value for key, value in fixed.items())]
            standings = list(dict.fromkeys(cell.standing for cell in here)) or [None]
            for standing in standings:
                cells = [cell for cell in here if cell.standing == standing]
                if fixed:
                    parts += [f"## {', '.join(str(value) for value in section)}", ""]
                parts += [standing.caption(cells) if standing else "No run yet.", ""]
                parts += [*self._body(fixed, cells), ""]
                parts += [f"- {note}" for cell in cells for note in cell.notes()]
        return "\n".join([*parts, *self._legend()]).rstrip() + "\n"

    def _body(self, fixed: Mapping[str, Any], cells: Sequence[Cell]) -> list[str]:
        row_keys, column_keys = self.spec["rows"], self.spec["columns"]
        columns = self._columns(column_keys)
        grid = self._grid(row_keys)
        rows = sorted(row for row in grid if self._belongs(fixed, dict(zip(row_keys, row, strict=True)), cells))
        header = [key.removesuffix(".name") for key in row_keys] + [" ".join(map(str, column)) for column in columns]
        lines = [_line(header), _line(["---:"] * len(header))]
        for row in rows:
            settings = {**fixed, **dict(zip(row_keys, row, strict=True))}
            texts = [f"{value:g}" if isinstance(value, int | float) else str(value) for value in row]
            for column in columns:
                placed = {**settings, **dict(zip(column_keys, column, strict=False))}
                if column[-1] == PUBLISHED:
                    value = self._published_value(placed)
                    texts.append("not at hand" if value is None else f"{value:.2f}")
                else:
                    cell = self._of(cells, placed)
                    texts.append(cell.text() if cell else "-")
            lines.append(_line(texts))
        return lines

    def _columns(self, keys: Sequence[str]) -> list[tuple]:
        columns = [tuple(column) for column in self._grid(keys) if len(column) == len(keys)]
        if not self.published:
            return columns
        groups = dict.fromkeys(column[:-1] for column in columns)
        grouped = [[(*group, PUBLISHED), *(column for column in columns if column[:-1] == group)] for group in groups]
        return [column for group in grouped for column in group]

    def _belongs(self, fixed: Mapping[str, Any], row: Mapping[str, Any], cells: Sequence[Cell]) -> bool:
        if any(all(cell.key[key] == value for key, value in row.items()) for cell in cells):
            return True
        if not self.published:
            return True
        wanted = {**fixed, **row}
        return any(all(dict(known).get(key) == value for key, value in wanted.items()) for known in self.published)

    def _legend(self) -> list[str]:
        lines = [
            f"{self.spec['metric'].replace('_', ' ')} in % after the last epoch: mean ± standard deviation over "
            "n seeds; `-` not run. "
            f"Each figure's runs are named in `{self.name}.csv`, a run's record is `runs/*/<id>.jsonl`. "
            f"Made by `lbt tables {self.name}`."
        ]
        if self.published:
            lines += ["", f"Published: {self.spec['published']['source']}."]
        return lines + [f"- left out: {problem}" for problem in self.problems]

    def csv(self) -> str:
        """Returns the table as CSV: a row for each cell with a run, and for each published one without."""
        buffer = io.StringIO()
        figures = ["n", "mean", "sd", "min", "max", "status", "published", "origin", "fingerprint", "epochs", "runs"]
        writer = csv.DictWriter(buffer, [*self.keys, *figures], lineterminator="\n")
        writer.writeheader()
        shown = set()
        for cell in self.cells:
            value = self._published_value(cell.key)
            writer.writerow({**cell.key, **cell.figures(), "published": value})
            shown.add(tuple(cell.key[key] for key in self.keys))
        columns = self.spec["columns"]
        for key in itertools.product(self._grid(self.keys[: -len(columns)]), self._grid(columns)):
            settings = dict(zip(self.keys, itertools.chain(*key), strict=True))
            value = self._published_value(settings)
            if (value is not None or not self.published) and tuple(settings.values()) not in shown:
                writer.writerow({**settings, "n": 0, "status": "missing", "published": value})
        return buffer.getvalue()


def select(runs: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the runs whose settings have the wanted values, a list meaning any of them."""
    for key, value in wanted.items():
        if key not in runs:
            return runs.iloc[:0]
        runs = runs[runs[key].isin(value if isinstance(value, list) else [value])]
    return runs


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
