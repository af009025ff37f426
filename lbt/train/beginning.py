"""How a run's record begins, and the record of one that does not: its model or its data do not fit into memory."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lbt import build, metrics, plugins, records, runtime
from lbt.config import Config
from lbt.data import ImageSet
from lbt.identity import to_json
from lbt.session import mirrors
from lbt.session.console import Reporter
from lbt.session.outcome import Outcome
from lbt.train.memory import is_out_of_memory

# What makes a run's numbers besides its settings.
MADE_BY = ("lbt", "commit", "dirty", "torch", "device_name", "small_maps")


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
        **images.form.told(images.train_images),
        **made_of,
    }
    if brought := plugins.provenance():
        made_by["plugins"] = brought
    return records.to_line(first | {"provenance": made_by})


def resumed(first: str, config: Config, device: torch.device, step: int) -> tuple[str, list[str]]:
    """Returns a record's first line with what makes the part of the run that begins now, and in words what changed.

    Its provenance has a list `resumed`: an entry (`step`, `MADE_BY`) each time that another program or machine goes on.

    Args:
        first: the line as it was.
        config: settled configuration.
        device: what it runs on.
        step: updates made before.
    """
    run = json.loads(first)
    made_by, now = run["provenance"], runtime.provenance(device) | {"small_maps": config.small_maps}
    began = made_by | {"small_maps": run["config"].get("small_maps")}
    now = {key: now.get(key) for key in MADE_BY}
    before = [began, *made_by.get("resumed", [])][-1]
    if now != {key: before.get(key) for key in MADE_BY}:
        made_by["resumed"] = [*made_by.get("resumed", []), {"step": step, **now}]
        first = records.to_line(run)
    return first, [f"{key} is {now[key]}, was {began.get(key)}" for key in MADE_BY if now[key] != began.get(key)]


class ImagesTooLargeError(MemoryError):
    """A device does not hold the data set; the text says what it takes."""


def placed(config: Config, images: ImageSet, device: torch.device, devices: int) -> tuple[Tensor, ...]:
    """Returns training images and labels, test images and labels on the device.

    Args:
        config: of the run.
        images: its data.
        device: that of this process.
        devices: how many have them.

    Raises:
        ImagesTooLargeError: there is no memory for them.
    """
    parts = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    try:
        return tuple(part.to(device) for part in parts)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = sum(part.nbytes for part in parts if isinstance(part, Tensor)) / 2**30
        each = f", whole on each of {devices} devices" if devices > 1 else ""
        raise ImagesTooLargeError(
            f"data={config.data.name}: its {images.form.noun} take {size:,.1f} GiB{each}, for which there is no "
            "memory; data=image_stream reads a folder of images as they are needed"
        ) from error


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
