"""Records planted for the tests of what reads them: as a run of a configuration would have left them."""

from collections.abc import Sequence
from dataclasses import replace

from support import configure

from lbt import records, runtime
from lbt.config import Config
from lbt.identity import identity, run_id, to_json

PROVENANCE = {
    "lbt": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.11.0", "device_name": "a machine",
    "data": "digits (scikit-learn)", "data_fingerprint": "f" * 16, "steps_per_epoch": 1, "parameters": 11_173_962,
}  # fmt: skip


def make(results_dir, accuracy, *overrides, status="done", fingerprint="f" * 16, folder="quickstart"):
    """Plants the record of a run with these settings on top of the quick start's; returns its path."""
    config = runtime.settle(configure("+experiment=quickstart", "precision=fp32", *overrides))
    return plant(results_dir, replace(config, experiment=folder), accuracy, status=status, fingerprint=fingerprint)


def plant(
    results_dir,
    config: Config,
    accuracy: float | Sequence[float] | None,
    *,
    status: str | None = "done",
    fingerprint: str = "f" * 16,
    lines: Sequence[dict] = (),
):
    """Plants a record: `accuracy` after every epoch or the last one, `lines` more content of the epochs' lines."""
    name = run_id(identity(config), fingerprint)
    made_by = {**PROVENANCE, "data_fingerprint": fingerprint, "data": f"data {fingerprint[0]}"}
    first = {"kind": "run", "schema": 1, "id": name, "config": to_json(config), "provenance": made_by}
    writer = records.RecordWriter(records.path_of(results_dir, config.experiment, name), [records.to_line(first)])
    epochs = config.epochs if status == "done" else 1
    curve = list(accuracy) if isinstance(accuracy, Sequence) else [accuracy] * epochs
    for number, value in enumerate(curve, 1):
        more = lines[number - 1] if lines else {}
        writer.append({"kind": "epoch", "epoch": number, "step": number, "test_accuracy": value, **more})
    if status:
        losses = {key: value for key, value in (lines[-1] if lines else {}).items() if key.endswith("_loss")}
        if lines and "bytes_sent" in lines[-1]:
            losses["total_bytes_sent"] = sum(line["bytes_sent"] for line in lines)
        summary = {"epochs": len(curve), "steps": len(curve), **losses, "test_accuracy": curve[-1], "wall_seconds": 1.0}
        writer.end(status, summary)
    return writer.path
