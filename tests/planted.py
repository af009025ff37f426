"""Records planted for the tests of what reads them: as a run of a configuration would have left them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

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
    made_by: dict | None = None,
):
    """Plants a record: `accuracy` after every epoch or the last one, `lines` more content of the epochs' lines.

    `made_by` is more of its provenance.
    """
    name = run_id(identity(config), fingerprint)
    made_by = {**PROVENANCE, "data_fingerprint": fingerprint, "data": f"data {fingerprint[0]}", **(made_by or {})}
    first = {"kind": "run", "schema": 1, "id": name, "config": to_json(config), "provenance": made_by}
    writer = records.RecordWriter(records.path_of(results_dir, config.experiment, name), [records.to_line(first)])
    epochs = config.epochs if status == "done" else 1
    curve = list(accuracy) if isinstance(accuracy, Sequence) else [accuracy] * epochs
    for number, value in enumerate(curve, 1):
        more = lines[number - 1] if lines else {}
        writer.append({"kind": "epoch", "epoch": number, "step": number, "test_accuracy": value, **more})
    if status:
        last = lines[-1] if lines else {}
        more = {key: value for key, value in last.items() if key.endswith("_loss") or key.startswith("val_")}
        if "bytes_sent" in last:
            more["total_bytes_sent"] = sum(line["bytes_sent"] for line in lines)
        summary = {"epochs": len(curve), "steps": len(curve), **more, "test_accuracy": curve[-1], "wall_seconds": 1.0}
        writer.end(status, summary)
    return writer.path


@cache
def _composed(*overrides: str) -> Config:
    return runtime.settle(configure(*overrides))


def looked(results_dir, accuracy, *overrides, seed=0, status="done", fingerprint="f" * 16, **figures):
    """Plants the record of a run with a look of each probe after every epoch, of one update.

    `figures` are functions of the share of the training that is over: `sharpness`, `gradients` (of both layers),
    `change` (of the gradient, by batch norm), `ratio` and `imbalanced` (of variances).
    """
    known = {"sharpness": 50.0, "gradients": 1.0, "change": 0.1, "ratio": 0.9, "imbalanced": 0.8, **figures}
    config = replace(_composed(*overrides), seed=seed)
    lines = []
    for epoch in range(1, (config.epochs if status == "done" else 1) + 1):
        now = {name: one(epoch / config.epochs) if callable(one) else one for name, one in known.items()}
        sharp = {"lambda_max": now["sharpness"], "lambda_max_normalised": 10 * now["sharpness"], "edge": 0.5}
        noise = {"noise_scale": 100.0, "trace": 200.0, "gradient_square": 2.0, "temperature": 0.01}
        strata = {"ratio": now["ratio"], "imbalanced": {"ratio": now["imbalanced"]}}
        norms = {"steps": [epoch - 1], "lwn": [[1.0, 1.0]], "lgn": [[now["gradients"]] * 2], "names": ["a", "b"]}
        seen = {"sharpness": sharp, "noise_scale": noise, "batch_norm": {"change": now["change"]}, "stratified": strata}
        lines.append({name: {"step": epoch, **one} for name, one in seen.items()} | {"layer_norms": norms})
    return plant(results_dir, config, accuracy, status=status, fingerprint=fingerprint, lines=lines)
