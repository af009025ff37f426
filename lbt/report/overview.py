"""`<results>/README.md`: the page a reader starts from, made of the tables and figures that are there."""

import html
import re
from pathlib import Path

from lbt.config import groups
from lbt.records import replace_file

HEAD = """\
# Results

Everything on this page is made from the records in [`runs`](runs), one file a run, by the command named beside it; the
same records give the same bytes. `lbt tables`, `lbt plots`, `lbt audit` and `lbt reality` write this page too.
"""


def write(results_dir: str | Path) -> None:
    """Writes the page from the pages, tables (`tables/*.md`) and figures (`figures/*.png`) below `results_dir`.

    A table without a heading and a figure without a title are parts of one of the pages.
    """
    root = Path(results_dir)
    pages = [path for path in sorted(root.glob("*.md")) if path.name != "README.md"]
    parts = [HEAD]
    if pages:
        parts += ["## Pages", "", *map(_page, pages), ""]
    parts += ["## Tables", ""]
    parts += [line for path in sorted(root.glob("tables/*.md")) if (line := _table(path))] or ["None yet."]
    parts += ["", "## Figures", ""]
    parts += [text for path in sorted(root.glob("figures/*.png")) if (text := _figure(path))] or ["None yet."]
    missing = [*_missing("table", root / "tables", "lbt tables"), *_missing("figure", root / "figures", "lbt plots")]
    if missing:
        parts += ["", "## Not run yet", "", *missing]
    replace_file(root / "README.md", ("\n".join(parts).rstrip() + "\n").encode())


def _page(path: Path) -> str:
    """Returns a page's line: its title and what its first paragraph begins with."""
    heading, paragraph = _begin(path)
    return f"- [{heading.removeprefix('# ')}]({path.name}): {_sentence(' '.join(paragraph.split()))}"


def _begin(path: Path) -> list[str]:
    """Returns a page's heading and first paragraph; a user's own page may lack them."""
    return [*path.read_text(encoding="utf-8").split("\n\n"), ""][:2]


def _table(path: Path) -> str:
    """Returns a table's line: its title, what its first paragraph begins with, its files and its command."""
    text = path.read_text(encoding="utf-8")
    if not text.startswith("# "):
        return ""
    title, paragraph = text.splitlines()[0].removeprefix("# "), " ".join(_begin(path)[1].split())
    files = [f"[{kind}](tables/{path.stem}.{kind})" for kind in ("csv", "tex") if path.with_suffix(f".{kind}").exists()]
    command = re.search(r"Made by `([^`]+)`", text)
    made = f" `{command[1]}`" if command else ""
    return (
        f"- [{title}](tables/{path.name}){f' ({chr(44).join(files)})' if files else ''}: {_sentence(paragraph)}{made}"
    )


def _figure(path: Path) -> str:
    """Returns a figure with its title and description, which its SVG file holds."""
    drawing = path.with_suffix(".svg")
    text = drawing.read_text(encoding="utf-8") if drawing.exists() else ""
    title, shows, command = (_metadata(text, name) for name in ("title", "description", "source"))
    if not title:
        return ""
    links = [f"`{command}`"] if command else []
    links += [f"[SVG](figures/{drawing.name})"] if text else []
    return f"### {title}\n\n![{title}](figures/{path.name})\n\n{' '.join([shows, *links]).strip()}\n"


def _missing(group: str, folder: Path, verb: str) -> list[str]:
    """Returns a line for each table or figure of a configuration group that has no file yet, with its commands."""
    lines = []
    for choice in groups.choices(group):
        if list(folder.glob(f"{choice}.*")):
            continue
        about = groups.load(group, choice)
        wanted = about.get("select", {}).get("experiment", [])
        names = [name for name in ([wanted] if isinstance(wanted, str) else wanted) if "*" not in name]
        trained_by = [f"lbt train -m +experiment={name}" for name in names]
        commands = [*([about["trained_by"]] if "trained_by" in about else trained_by), f"{verb} {choice}"]
        lines.append(f"- {about['title']}: {', '.join(f'`{command}`' for command in commands)}")
    return lines


def _metadata(text: str, name: str) -> str:
    found = re.search(rf"<dc:{name}>(.*?)</dc:{name}>", text, flags=re.DOTALL)
    return " ".join(html.unescape(found[1]).split()) if found else ""


def _sentence(text: str) -> str:
    """Returns the first sentence: up to a stop before a capital letter, or all of it."""
    found = re.match(r"(.+?[.])(?=\s+[A-Z]|$)", text)
    return found[1] if found else text
