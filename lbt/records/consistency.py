"""Whether a record agrees with itself: an edited or patched-together one is no evidence.

The checksum in a record's last line is compared where it is read (`lbt.records`); what stands here holds of every
record, also of those from before there was one.
"""

from functools import lru_cache
from typing import Any

from lbt.identity import run_id
from lbt.records import FINAL, RunRecord
from lbt.records.seeds import identity_as_recorded


def contradiction(record: RunRecord) -> str | None:
    """Returns what in a record contradicts the rest of it, None where nothing does.

    Compared are its id with its file's name and with the id of its configuration and data, the order of its steps,
    its figures with what such figures can be, and its summary with its last epoch.
    """
    name, made_by = record.run["id"], record.run["provenance"]
    if record.path.stem != name:
        return f"its id is {name}, the file has another name"
    expected = run_id(identity_as_recorded(record.run["config"]), made_by["data_fingerprint"])
    if expected != name:
        return f"edited: its configuration and data belong to the id {expected}"
    before = 0
    for line in record.epochs:
        if line["step"] <= before:
            return f"epoch {line['epoch']} ends at step {line['step']}, not after step {before}"
        before = line["step"]
    if not _are_figures(record.epochs):
        return next(f"epoch {line['epoch']}: {problem}" for line in record.epochs if (problem := _of_figures(line)))
    if record.end and (problem := _of_figures(record.end["summary"])):
        return f"its end: {problem}"
    return _of_end(record)


def _of_figures(line: dict[str, Any]) -> str | None:
    """Returns which figure is none; null stands for one that is not finite."""
    for key, value in line.items():
        if value is None or not key.endswith(("_accuracy", "_loss")):
            continue
        if type(value) not in (int, float):
            return f"{key} is {str(value)[:40]!r}, not a number"
        if key.endswith("_accuracy") and not 0 <= value <= 100:
            return f"{key} is {value}, not between 0 and 100 %"
    return None


def _are_figures(lines: list[dict[str, Any]]) -> bool:
    """Says whether `_of_figures` finds nothing in any of these; column by column, which is much faster."""
    for key in _figures(frozenset().union(*lines)):
        values = [value for line in lines if (value := line.get(key)) is not None]
        if not set(map(type, values)) <= {int, float}:
            return False
        if key.endswith("_accuracy") and values and not 0 <= min(values) <= max(values) <= 100:
            return False
    return True


@lru_cache
def _figures(keys: frozenset[str]) -> list[str]:
    return [key for key in keys if key.endswith(("_accuracy", "_loss"))]


def _of_end(record: RunRecord) -> str | None:
    """Returns what in the last line contradicts the epochs."""
    if record.status not in FINAL:  # may have ended within an epoch
        return None
    summary, last = record.end["summary"], record.epochs[-1] if record.epochs else {}
    if summary.get("epochs") != len(record.epochs):
        return f"its end counts {summary.get('epochs')} epochs, it holds {len(record.epochs)}"
    if record.status == "done" and len(record.epochs) != record.run["config"]["epochs"]:
        return f"done after {len(record.epochs)} of {record.run['config']['epochs']} epochs"
    losses = [value for key, value in last.items() if key.endswith("_loss")]
    if losses and (record.status == "diverged") != (None in losses):
        return f"it is {record.status}, and its last epoch's losses say the contrary"
    for key, value in summary.items():
        known = last.get({"epochs": "epoch", "steps": "step"}.get(key, key), value)
        if known != value:
            return f"its end says {key} {value}, its last epoch {known}"
    for key in last:
        if key.endswith(("_loss", "_accuracy")) and key not in summary:
            return f"its end does not say the last epoch's {key}"
    return None
