"""`<results>/README.md`: the page a reader starts from, made of the tables and figures that are there."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbt.records import replace_file
from lbt.report.kit import escape, specs

HEAD = """\
# Results

Everything on this page is made from the records in [`runs`](runs), one file a run, by the command named beside it; the
same records give the same bytes. `lbt tables`, `lbt plots`, `lbt audit` and `lbt reality` write this page too.
"""

# The parts of a study's tables (`lbt.report.reality`), which have no heading of their own.
PARTS = {
    "summary": "final runs and tuning",
    "pairs": "shifts between two optimizers (Hodges-Lehmann)",
    "best_of_k": "validation score of the best of k trials",
    "ablations": "the chosen configuration, one change at a time",
    "chosen": "chosen settings",
}
_HEAD_LETTERS = 4000  # of an SVG file, in which its title stands


def write(results_dir: str | Path) -> None:
    """Writes the page from the tables (`tables/*.md`) and figures (`figures/*.png`) that are below `results_dir`.

    What they show stands in `configs/table`, `configs/figure` and, for a study's tables, `configs/reality`; other
    figures' SVG files say it themselves. Of other pages, beside the folders or among the tables, heading and first
    sentence are shown.
    """
    root = Path(results_dir)
    tables, figures = ({name: specs.read(group, name) for name in specs.names(group)} for group in ("table", "figure"))
    pages = [f"- {line}" for path in sorted(root.glob("*.md")) if path.name != "README.md" and (line := _page(path))]
    parts = [HEAD]
    if pages:
        parts += ["## Pages", "", *pages, ""]
    found = [_table(path, tables.get(path.stem)) for path in sorted(root.glob("tables/*.md"))]
    parts += ["## Tables", "", *(filter(None, found) if any(found) else ["None yet."])]
    drawn = [*filter(None, (_figure(path, figures.get(path.stem)) for path in sorted(root.glob("figures/*.png"))))]
    parts += ["", "## Figures", "", *(drawn or ["None yet."])]
    missing = [*_missing(tables, root / "tables", "lbt tables"), *_missing(figures, root / "figures", "lbt plots")]
    if missing:
        parts += ["", "## Not run yet", "", *missing]
    replace_file(root / "README.md", ("\n".join(parts).rstrip() + "\n").encode())


def _page(path: Path, files: str = "") -> str:
    """Returns the line of a page that has a heading: that, and what its first paragraph begins with."""
    heading, paragraph, *_ = [*path.read_text(encoding="utf-8", errors="replace").split("\n\n"), ""]
    folder = "tables/" if path.parent.name == "tables" else ""
    said = f"[{heading.removeprefix('# ').strip()}]({folder}{path.name}){files}: {_sentence(paragraph)}"
    return said if heading.startswith("# ") else ""


def _table(path: Path, spec: dict[str, Any] | None) -> str:
    """Returns a table's line: its title, what is said of it first, its files and its command."""
    kinds = [kind for kind in ("csv", "tex") if path.with_suffix(f".{kind}").exists()]
    files = f" ({','.join(f'[{kind}](tables/{path.stem}.{kind})' for kind in kinds)})" if kinds else ""
    if spec is not None:
        line = f"[{spec['title']}](tables/{path.name}){files}: {_sentence(spec['about'])} `lbt tables {path.stem}`"
    elif part := _part(path.stem):
        study, name = part
        title = f"{specs.read('reality', study)['title']}: {PARTS[name]}"
        line = f"[{title}](tables/{path.name}){files} `lbt reality {study}`"
    else:  # made by a script, or a user's own
        line = _page(path, files)
        command = re.search(r"Made by `([^`]+)`", path.read_text(encoding="utf-8", errors="replace"))
        line += f" `{command[1]}`" if line and command else ""
    return f"- {line}" if line else ""


def _part(stem: str) -> tuple[str, str] | None:
    """Returns the study and the part that a table's name is made of, None where it is none of a study's."""
    found = [(study, stem.removeprefix(f"{study}_")) for study in specs.names("reality")]
    return next(((study, part) for study, part in found if part in PARTS), None)


def _figure(path: Path, spec: dict[str, Any] | None) -> str:
    """Returns a figure with its title and description, nothing of one that nobody describes."""
    if spec is not None:
        title, shows, command = spec["title"], " ".join(spec["shows"].split()), f"lbt plots {path.stem}"
    elif found := _described(path.with_suffix(".svg")):
        title, shows, command = found
    else:
        return ""
    links = f"`{command}` [SVG](figures/{path.stem}.svg)"
    return f"### {title}\n\n![{title}](figures/{path.name})\n\n{shows} {links}\n"


def _described(svg: Path) -> tuple[str, str, str] | None:
    """Returns the title, description and command that `lbt.report.kit.style.encode` wrote into a figure."""
    if not svg.exists():
        return None
    with svg.open(encoding="utf-8", errors="replace") as file:
        head = file.read(_HEAD_LETTERS)
    found = [
        re.search(rf"<dc:{name}>(.*?)</dc:{name}>", head, re.DOTALL) for name in ("title", "description", "source")
    ]
    if not all(found):
        return None
    title, shows, command = (escape.markdown(html.unescape(one[1])) for one in found)
    return title, shows if shows.endswith(".") else f"{shows}.", command


def _missing(index: dict[str, dict[str, Any]], folder: Path, verb: str) -> Iterator[str]:
    """Yields a line for each table or figure that has no file yet, with its commands."""
    for name, spec in index.items():
        if list(folder.glob(f"{name}.*")):
            continue
        wanted = spec.get("select", {}).get("experiment", [])
        experiments = [one for one in ([wanted] if isinstance(wanted, str) else wanted) if "*" not in one]
        trained_by = [f"lbt train -m +experiment={one}" for one in experiments]
        commands = [*([spec["trained_by"]] if "trained_by" in spec else trained_by), f"{verb} {name}"]
        yield f"- {spec['title']}: {', '.join(f'`{command}`' for command in commands)}"


def _sentence(text: str) -> str:
    """Returns the first sentence: up to a stop before a capital letter, or all of it."""
    text = " ".join(text.split())
    found = re.match(r"(.+?[.])(?=\s+[A-Z]|$)", text)
    return found[1] if found else text
