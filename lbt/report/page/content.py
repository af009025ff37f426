"""What the page shows beside its runs: the overview, and each part's content."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lbt.report import audit
from lbt.report.answer import answers
from lbt.report.audit import effects
from lbt.report.frame import Frame
from lbt.report.page import figures, grids, study

LONGEST = 400  # letters of a text from a record, in the overview


def gather(frame: Frame, results_dir: Path) -> dict[str, Any]:
    """Returns what the template shows of these records."""
    tables, claims = grids.gather(frame, results_dir)
    studies, problems = study.gather_all(frame, results_dir)
    drawn, missing = figures.gather(frame, results_dir)
    audited = _audit(frame, results_dir)
    return {
        "answers": _answers(frame),
        "claims": [_claims(one) for one in claims if len(one.runs) or len(frame.runs) == 0],
        "grids": tables,
        "coverage": [*_coverage(tables, studies), *_audit_coverage(audited)],
        "stands": _stands(frame.runs),
        "statuses": sorted(Counter(frame.runs["status"] if len(frame.runs) else ()).items()),
        "studies": studies,
        "audit": audited,
        "figures": drawn,
        "missing_figures": missing,
        "conformance": _markdown(results_dir / "tables" / "optimizer_conformance.md"),
        "problems": [*frame.problems, *problems],
        "count": len(frame.runs),
        "marked": grids.marked,
    }


def charts(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what the page's script draws: the figures, the studies' charts and the audit's effects."""
    return {
        "figures": {one["name"]: one["chart"] for one in content["figures"] if "chart" in one},
        "studies": {one["name"]: one["charts"] for one in content["studies"]},
        "audit": [row for row in content["audit"]["effects"] if row["low"]],
    }


def _answers(frame: Frame) -> list[tuple[str, list[Any]]]:
    """Returns what the evidence favours by workload and batch: decided workloads first, then those of many batches."""
    of_workload: dict[str, list[Any]] = {}
    for one in answers(frame) if len(frame.runs) else []:
        of_workload.setdefault(one.workload, []).append(one)
    return sorted(
        of_workload.items(), key=lambda found: (all(one.favoured is None for one in found[1]), -len(found[1]))
    )


def _claims(table: Any) -> dict[str, Any]:
    """Returns a table of claims with a row for each claim, and a verdict for each source of figures."""
    sources = list(table.spec["sources"])
    rows: dict[str, dict[str, Any]] = {}
    for source, claim, finding in table.rows:
        rows.setdefault(claim["claim"], {"rule": claim["says"], "findings": {}})["findings"][source] = finding
    return {"name": table.name, "page": table.page(), "sources": sources, "rows": rows}


def _coverage(tables: list[grids.Grid], studies: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields how much of each grid exists."""
    for one in tables:
        link = f"#tables?t={one.name}" if one.runs else ""
        yield {"title": one.page.title, "there": one.there, "of": one.places, "unit": "cells", "runs": one.runs,
               "link": link, "command": one.trained_by if one.there < one.places or not one.runs else ""}  # fmt: skip
    for one in studies:
        chosen = sum(1 for _, verdict in one["verdicts"] if verdict.decision != "not decided")
        yield {"title": one["title"], "there": chosen, "of": len(one["verdicts"]), "unit": "verdicts",
               "runs": one["trials"] + one["finals"], "link": "#reality", "command": ""}  # fmt: skip


def _audit_coverage(audited: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if audited["effects"]:
        measured = len({row["switch"] for row in audited["effects"]})
        runs = {run for row in audited["effects"] for run in f"{row['runs_without']} {row['runs_with']}".split()}
        yield {"title": "The audit: paper against released code", "there": measured, "of": audited["switches"],
               "unit": "switches", "runs": len(runs), "link": "#audit", "command": ""}  # fmt: skip


def _stands(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns what the runs stand on, a row for each set of images."""
    if runs.empty:
        return []

    def values(own: pd.DataFrame, name: str) -> str:
        known = sorted({str(value) for value in own[name]}, key=lambda text: (len(text), text))
        more = f" and {len(known) - 6} more" if len(known) > 6 else ""
        return ", ".join(known[:6])[:LONGEST] + more

    return [
        {"data": str(origin)[:LONGEST], "fingerprint": mark, "samples": samples, "runs": len(own),
         "networks": values(own, "network"),
         "epochs": values(own, "epochs"), "precision": values(own, "precision"), "devices": values(own, "device"),
         "torch": values(own, "torch"), "commits": own["commit"].nunique()}
        for (origin, samples, mark), own in runs.groupby(["origin", "samples", "fingerprint"])
    ]  # fmt: skip


def _audit(frame: Frame, results_dir: Path) -> dict[str, Any]:
    """Returns the audit as `lbt audit` has written it: its page, and its effects with their runs."""
    path = results_dir / "tables" / f"{effects.NAME}.csv"
    rows = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: _read(text) for key, text in row.items()} for row in csv.DictReader(file)]
    used = {run for row in rows for run in f"{row['runs_without']} {row['runs_with']}".split()}
    folders = frame.runs["folders"] if len(frame.runs) else ()
    recorded = sum(any(name.startswith("tvlars_audit") for name in names) for names in folders)
    return {
        "text": _markdown(results_dir / "AUDIT.md"),
        "effects": rows,
        "newer": recorded if not rows else max(0, recorded - len(used)),
        "switches": len(audit.rows()),
    }


def _read(text: str) -> str:
    """Returns a CSV field's text without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@") else text


def _markdown(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
