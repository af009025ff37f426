"""What a run is: the settings that decide its numbers, its id, and its configuration as a record holds it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from lbt.config import BEFORE, BranchConfig, Config, DataConfig, ProbeConfig, WandbConfig
from lbt.config.binding import bind
from lbt.config.schema import ZERO_IS_A_VALUE

# Settings that say where or how a run is executed or shown, or that reach it through another setting.
NOT_IDENTITY = {
    "device", "deterministic", "results_dir", "experiment", "study", "time_budget", "wandb", "warmup", "lr_rank",
    "sweep", "cuda_graph", "compile", "probes", "mirror", "keep", "plugins", "threads", "devices",
    "probe_every", "probe", "small_maps",
}  # fmt: skip

# Of the optimizer's settings, those that say how it computes and not what.
NOT_IDENTITY_OF_OPTIMIZER = {"fused"}


# Settings of which 0 is a value, and not a way to say "off", as the schema declares them.
ZEROS = frozenset(name for item in fields(Config) for name in item.metadata.get(ZERO_IS_A_VALUE, ()))


def identity(config: Config) -> dict[str, Any]:
    """Returns the settings that define the run: the same identity on the same data gives the same numbers.

    Values that mean "off" (None, False, 0 but of settings declared otherwise, empty) are left out, so that a setting
    added later with an "off" default does not change the id of runs recorded before it.
    """
    branch = None if config.branch is None else vars(config.branch)
    return identity_of({**vars(config), "data": vars(config.data), "branch": branch})


def identity_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of the run with these settings, as a `Config` or a record (`to_json`) holds them."""
    settings = {key: value for key, value in settings.items() if key not in NOT_IDENTITY and key != "peak_lr"}
    settings["data"] = {key: value for key, value in settings["data"].items() if key != "root"}
    settings["protocol"] = {"name": settings["protocol"]["name"]}
    settings["optimizer"] = _rule(settings["optimizer"])
    if isinstance(settings.get("init_from"), Mapping):  # what they are, not whose or where
        settings["init_from"] = settings["init_from"]["sha256"]
    if settings.get("workers") == 1:  # as without the setting
        settings.pop("workers")
    return _without_off(settings)


def _rule(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what an optimizer, and the one inside it, computes."""
    return {
        key: _rule(value) if isinstance(value, Mapping) else value
        for key, value in optimizer.items()
        if key not in NOT_IDENTITY_OF_OPTIMIZER
    }


def _without_off(value: Any) -> Any:
    if isinstance(value, dict):
        # JSON knows texts as keys only: {30: 2048} comes back from a record as {"30": 2048}.
        return {
            int(key) if str(key).isdecimal() else key: kept
            for key, item in value.items()
            if (kept := _without_off(item)) or (key in ZEROS and item is not None)
        }
    if isinstance(value, list | tuple):
        return [_without_off(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)  # 1 and 1.0 are one value
    return value


def run_id(identity_of_run: Mapping[str, Any], fingerprint: str) -> str:
    """Returns the id of a run: 16 hex digits of a SHA-256 over its identity and its data's fingerprint."""
    text = json.dumps([identity_of_run, fingerprint], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as a record holds it: without places on a disk and the protocol's own switches."""
    settings = asdict(config)
    settings.pop("results_dir")
    settings.pop("sweep")
    settings.pop("keep")
    settings.pop("threads")  # the number used is in the provenance
    settings.pop("devices")  # the provenance has it
    if config.workers is None:
        settings.pop("workers")
    if config.device != "cpu":
        settings.pop("small_maps")
    settings["data"].pop("root")
    settings["protocol"] = {"name": config.protocol["name"]}
    settings["peak_lr"] = config.peak_lr
    if not config.probes:
        settings.pop("probe_every")
        settings.pop("probe")
    for names in ("probes", "mirror", "plugins"):
        if not settings[names]:  # a record without them is that of a version that did not know them
            settings.pop(names)
    if config.branch is None:
        settings.pop("branch")
    if config.init_from is None:
        settings.pop("init_from")
    elif isinstance(config.init_from, Mapping):
        settings["init_from"].pop("file", None)
    return settings


def from_json(settings: Mapping[str, Any]) -> Config:
    """Returns the configuration a record holds."""
    settings = {**BEFORE, **{key: value for key, value in settings.items() if key != "peak_lr"}}
    settings["data"] = DataConfig(**settings["data"])
    settings["wandb"] = WandbConfig(**settings["wandb"])
    if "probe" in settings:
        settings["probe"] = ProbeConfig(**settings["probe"])
    if "branch" in settings:
        settings["branch"] = BranchConfig(**settings["branch"])
    return Config(**bind(Config, settings, ""))
