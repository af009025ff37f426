"""From what Hydra composed to the typed, checked configuration of one run."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lbt.config.binding import bind, leaves
from lbt.config.checks import check, check_folder
from lbt.config.derived import register_resolvers
from lbt.config.schema import BranchConfig, Config, DataConfig, ProbeConfig, SweepConfig, WandbConfig
from lbt.errors import UserError

CHOSEN = ("optimizer", "schedule", "data", "model", "task")  # groups whose choices say by `name` what they are of
LAYER_NORMS = 10  # updates between two measurements of probes=[layer_norms]
PLACES = ("results_dir", "data.root")  # in no record: they alone may come from the environment


def resolve(composed: DictConfig) -> Config:
    """Returns the typed configuration of what Hydra composed, checked as far as it can be without data or device.

    Raises:
        UserError: an unknown setting, a value of the wrong type or out of range; one line that names it.
    """
    register_resolvers()
    settings = OmegaConf.to_container(composed, resolve=False)
    settings.pop("hydra", None)
    _refuse_environment(settings)
    _refuse_misplaced(settings)
    try:
        # The plain numbers come first: what is derived from them would otherwise fail with a less direct message.
        for key in ("batch", "epochs", "seed"):
            if OmegaConf.is_missing(composed, key) or type(composed[key]) is not int:
                raise UserError(f"{key}={composed[key]}: expected a whole number")
        if isinstance(base := composed.optimizer.get("base"), str):
            raise UserError(f"optimizer.base={base}: an optimizer inside is chosen by optimizer@optimizer.base={base}")
        raw = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise UserError(message.removeprefix("UserError raised while resolving interpolation: ")) from None
    return typed(raw)


def typed(raw: dict[str, Any]) -> Config:
    """Returns the typed configuration of settings without interpolations; changes `raw`.

    Raises:
        UserError: as `resolve` does.
    """
    raw.pop("hydra", None)
    raw.pop("audit", None)  # what a switch is about; what it does reaches the run through the other groups
    _refuse_misplaced(raw)
    optimizer = raw["optimizer"]
    while isinstance(optimizer, dict):
        for default in ("lr", "lr_scaling"):  # an optimizer's own, read by interpolation
            optimizer.pop(default, None)
        optimizer = optimizer.get("base")  # the one inside
    if isinstance(raw["results_dir"], str):  # in quotes, as Hydra wants it, no shell expands it
        raw["results_dir"] = os.path.expanduser(raw["results_dir"])
    raw["init_from"] = _origin(raw.get("init_from"))
    _take_name(raw)
    raw["data"] = _data_config(raw["data"])
    raw["wandb"] = WandbConfig(**bind(WandbConfig, raw["wandb"], "wandb"))
    raw["probe"] = ProbeConfig(**bind(ProbeConfig, raw.get("probe", {}), "probe"))
    raw["branch"] = _branch_config(raw.get("branch"))
    raw["sweep"] = SweepConfig(**bind(SweepConfig, raw["sweep"], "sweep"))
    mirror = raw.get("mirror")  # a record without one does not have it
    raw["mirror"] = mirror if isinstance(mirror, list) else [] if mirror is None else [mirror]  # =wandb is =[wandb]
    config = _with_mirrors(_with_probes(Config(**bind(Config, raw, ""))))
    check(config, [table for key, table in raw["protocol"].items() if key.endswith("lr_table")])
    return config


def _refuse_misplaced(settings: Mapping[str, Any]) -> None:
    """Refuses what files of one's own have in the wrong place, or lack."""
    if isinstance(settings.get("experiment"), Mapping):
        raise UserError("experiment: the experiment's file needs `# @package _global_` as its first line")
    for group in CHOSEN:
        _require_name(group, settings.get(group))


def _require_name(group: str, settings: Any) -> None:
    """Refuses what is no choice of a group: its name alone, or settings that do not say of what."""
    if isinstance(settings, str):
        place = f"an experiment's file has it in its defaults: - override /{group}: {settings}"
        raise UserError(f"{group}={settings}: is a choice; {place}")
    if not isinstance(settings, Mapping) or "name" not in settings:
        raise UserError(f"{group}: its file has no name, the one that its code is known by: name: ...")


def _origin(named: Any) -> str | None:
    """Returns what `init_from` names as a text, also where an id looks like a number."""
    if isinstance(named, float) or not isinstance(named, str | int | None) or isinstance(named, bool):
        raise UserError(f"init_from={named}: expected a run's id, in two pairs of quotes where it reads as a number")
    return str(named) if named not in (None, "") else None


def _take_name(raw: dict[str, Any]) -> None:
    """Has a user's own name take the place of the experiment's: both name the record's folder and are no part of ids.

    Raises:
        UserError: it is no name for a folder.
    """
    name = raw.pop("name", None)
    if name is None:
        return
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise UserError(f"name={name}: expected a text; quote it twice, 'name=\"...\"'")
    check_folder("name", str(name))
    raw["experiment"] = str(name)


def _with_probes(config: Config) -> Config:
    """Returns the configuration in which the layers' norms are asked for in one way alone, `layer_norms`.

    A probe changes nothing of a run and is no part of its id. This one's interval is: it is in the ids of records made
    before there were others. So `probes=[layer_norms]` is the run of `layer_norms=10`.
    """
    if "layer_norms" not in config.probes:
        return config
    others = [name for name in config.probes if name != "layer_norms"]
    return replace(config, probes=others, layer_norms=config.layer_norms or LAYER_NORMS)


def _with_mirrors(config: Config) -> Config:
    """Returns the configuration in which Weights & Biases is asked for in one way alone, `wandb.mode`, as always."""
    others = [name for name in dict.fromkeys(config.mirror) if name != "wandb"]
    if "wandb" in config.mirror and config.wandb.mode == "disabled":
        return replace(config, mirror=others, wandb=replace(config.wandb, mode="online"))
    return replace(config, mirror=others)


def _data_config(raw: dict) -> DataConfig:
    own = {key: value for key, value in raw.items() if key in DataConfig.__dataclass_fields__ and key != "options"}
    options = {key: value for key, value in raw.items() if key not in own}
    return DataConfig(**bind(DataConfig, {**own, "options": options}, "data"))


def _branch_config(raw: dict | None) -> BranchConfig | None:
    """Returns where a run branches off, None for a whole training, whichever factor stands there."""
    if raw is None or (isinstance(raw, dict) and raw.get("at") is None):
        return None
    return BranchConfig(**bind(BranchConfig, raw, "branch"))


def _refuse_environment(settings: Mapping[str, Any]) -> None:
    """Keeps the environment, where keys and passwords are, out of what is recorded, also by way of a place."""
    texts = [(key, text) for key, text in leaves(settings) if isinstance(text, str) and "${" in text]
    places = [key for key, text in texts if key in PLACES and "oc.env" in text]
    for key, text in texts:
        if key not in PLACES and any(source in text for source in ("oc.env", *places)):
            raise UserError(
                f"{key}: takes its value from the environment, which would be recorded; "
                f"write the value itself (only {' and '.join(PLACES)} may use oc.env)"
            )
