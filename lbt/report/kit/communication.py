"""What runs have sent: counted by those whose optimizer has workers, computed for the others as an fp32 all-reduce."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt.report.frame import Frame, select
from lbt.report.kit.cells import Cell, make_cells
from lbt.report.kit.exchange import all_reduce_bytes, sent_seconds

KEYS = ("batch", "optimizer.name", "optimizer.base.name", "lr")


def _has_length(run: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    return bool(run["summary"] and run["summary"].get("steps") and provenance.get("parameters"))


@dataclass(frozen=True)
class Sent:
    """What the runs of a cell have sent.

    Attributes:
        cell: of batch, optimizer and rate.
        bytes: by a worker in a run, mean over the runs; None where the runs do not say how long they were.
        counted: whether it was counted in the runs.
        of_all_reduce: the same as a share of an fp32 all-reduce in each update.
        seconds: predicted of it, by Gb/s.
    """

    cell: Cell
    bytes: float | None
    counted: bool
    of_all_reduce: float | None
    seconds: Mapping[float, float]

    @property
    def optimizer(self) -> str:
        """Its name, and that of the one inside, where the outer one's does not say it."""
        name, base = self.cell.key["optimizer.name"], self.cell.key["optimizer.base.name"]
        return f"{name} around {base}" if base and base not in name else name


def sent(frame: Frame, wanted: Mapping[str, Any], metric: str, workers: int, gigabits: Sequence[float]) -> list[Sent]:
    """Returns what the runs of a selection have sent, a cell for each batch, optimizer and rate.

    Args:
        frame: the records.
        wanted: setting -> value or values (`lbt.report.frame.select`).
        metric: the figure of a run's summary.
        workers: that the runs without workers of their own are taken to have.
        gigabits: bandwidths of a link in Gb/s.
    """
    runs = select(frame.runs, wanted)
    known = {} if runs.empty else dict(zip(runs["id"], runs["provenance"], strict=True))
    found = []
    for cell in make_cells(runs, KEYS, metric):
        rows = [run for run in cell.rows if _has_length(run, known[run["id"]])]
        alike = [
            all_reduce_bytes(4 * known[run["id"]]["parameters"], workers) * run["summary"]["steps"] for run in rows
        ]
        own = [run["summary"].get("total_bytes_sent", full) for run, full in zip(rows, alike, strict=True)]
        counted = any("total_bytes_sent" in run["summary"] for run in rows)
        if not rows:
            found.append(Sent(cell, None, counted, None, {}))
            continue
        size, updates = statistics.fmean(own), round(statistics.fmean(run["summary"]["steps"] for run in rows))
        seconds = {speed: sent_seconds(size, updates, workers, speed) for speed in gigabits}
        found.append(Sent(cell, size, counted, size / statistics.fmean(alike), seconds))
    return found
