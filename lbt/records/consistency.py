"""Whether a record agrees with itself: an edited or patched-together one is no evidence.

The checksum in a record's last line is compared where it is read (`lbt.records`); what stands here holds of every
record, also of those from before there was one.
"""

from typing import Any

from lbt import metrics
from lbt.config import length_of
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
    declared = metrics.of_record(record.run)
    if not _are_figures(record.epochs, declared):
        found = ((line["epoch"], _of_figures(line, declared)) for line in record.epochs)
        return next(f"epoch {epoch}: {problem}" for epoch, problem in found if problem)
    if record.end and (problem := _of_figures(record.end["summary"], declared)):
        return f"its end: {problem}"
    return _of_end(record, declared)


def _of_figures(line: dict[str, Any], declared: metrics.Declared) -> str | None:
    """Returns which metric's value cannot be one; null stands for a number that is not finite."""
    for key, value in line.items():
        if value is None or (metric := metrics.metric_of(key, declared)) is None:
            continue
        if type(value) not in (int, float):
            return f"{key} is {str(value)[:40]!r}, not a number"
        if metric.unit == "%" and not 0 <= value <= 100:
            return f"{key} is {value}, not between 0 and 100 %"
    return None


def _are_figures(lines: list[dict[str, Any]], declared: metrics.Declared) -> bool:
    """Says whether `_of_figures` finds nothing in any of these; column by column, which is much faster."""
    for key in frozenset().union(*lines):
        if (metric := metrics.metric_of(key, declared)) is None:
            continue
        values = [value for line in lines if (value := line.get(key)) is not None]
        if not set(map(type, values)) <= {int, float}:
            return False
        if metric.unit == "%" and values and not 0 <= min(values) <= max(values) <= 100:
            return False
    return True


def _of_end(record: RunRecord, declared: metrics.Declared) -> str | None:
    """Returns what in the last line contradicts the epochs."""
    if record.status not in FINAL:  # may have ended within an epoch
        return None
    summary, last = record.end["summary"], record.epochs[-1] if record.epochs else {}
    if summary.get("epochs") != len(record.epochs):
        return f"its end counts {summary.get('epochs')} epochs, it holds {len(record.epochs)}"
    if record.status == "done" and len(record.epochs) != length_of(record.run["config"]):
        return f"done after {len(record.epochs)} of {length_of(record.run['config'])} epochs"
    losses = [value for key, value in last.items() if (of := metrics.metric_of(key, declared)) and of.finite]
    if losses and (record.status == "diverged") != (None in losses):
        return f"it is {record.status}, and its last epoch's losses say the contrary"
    for key, value in summary.items():
        known = last.get({"epochs": "epoch", "steps": "step"}.get(key, key), value)
        if known != value:
            return f"its end says {key} {value}, its last epoch {known}"
    for key in last:
        if metrics.is_metric(key, declared) and key not in summary:
            return f"its end does not say the last epoch's {key}"
    return None
