"""How a run's record begins, and the record of one that does not: its model or its data do not fit into memory."""

from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from lbt import build, metrics, plugins, records, runtime
from lbt.config import Config
from lbt.data import ImageSet
from lbt.identity import to_json
from lbt.session import mirrors
from lbt.session.console import Reporter
from lbt.session.outcome import Outcome


def path_of(config: Config, name: str) -> Path:
    """Returns where a run's record is, or belongs if there is none yet."""
    return records.find(config.results_dir, name) or records.path_of(config.results_dir, config.experiment, name)


def line(config: Config, name: str, images: ImageSet, device: torch.device, **made_of: Any) -> str:
    """Returns the first line of a run's record.

    Args:
        config: settled configuration.
        name: the run's id.
        images: its data.
        device: what it runs on.
        made_of: what was made of configuration and data, for the provenance.
    """
    first = {"kind": "run", "schema": records.SCHEMA, "id": name, "config": to_json(config)}
    first["metrics"] = metrics.to_json(build.task(config))
    made_by = runtime.provenance(device) | {
        "data": images.origin,
        "data_official": images.official,
        "data_fingerprint": images.fingerprint,
        "classes": len(images.classes),
        "train_images": len(images.train_labels),
        "test_images": len(images.test_labels),
        "image_size": list(images.train_images.shape[-2:]),
        **made_of,
    }
    if brought := plugins.provenance():
        made_by["plugins"] = brought
    return records.to_line(first | {"provenance": made_by})


def out_of_memory(config: Config, images: ImageSet, name: str, reporter: Reporter) -> Outcome:
    """Records that a run could not begin: there is no memory for its model, its data or its checkpoint."""
    device = torch.device(config.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    summary: dict[str, Any] = {"epochs": 0, "steps": 0, "wall_seconds": 0.0}
    record = records.RecordWriter(path_of(config, name), [line(config, name, images, device)])
    record.end("oom", summary)
    outcome = Outcome(name, "oom", config, record.path, summary)
    with closing(mirrors.opened(config, name)) as mirror, closing(reporter):
        mirror.end("oom", summary)
        reporter.end(outcome)
    return outcome
