"""`<results>/index.html`: all results in one file that a browser opens, without a server or a network."""

from pathlib import Path

from lbt.records import replace_file
from lbt.report.frame import load, refuse_missing, uncollected

NAME = "index.html"


def write(results_dir: str | Path) -> Path:
    """Writes the page of a results folder and returns its path; the same records give the same bytes.

    Records that cannot be read are named on the page.

    Raises:
        UserError: there is no such folder.
    """
    refuse_missing(results_dir)
    path = Path(results_dir) / NAME
    with uncollected():
        replace_file(path, _page(Path(results_dir)).encode())
    return path


def _page(results_dir: Path) -> str:
    from lbt.report.page import bundle, content, curves, runs

    frame = load(results_dir, keep=curves.keep)
    packed = curves.island(frame.runs["curves"].tolist() if len(frame.runs) else [])
    shown = content.gather(frame, results_dir)
    islands = {"runs": runs.island(frame.runs), "curves": packed, "charts": content.charts(shown)}
    return bundle.render({**shown, "packed": packed}, islands)


def report(results_dir: str | Path) -> int:
    """Writes the page, says where it is, and returns the exit code; raises as `write` does."""
    path = write(results_dir)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB, one file; open it in a browser")
    return 0
