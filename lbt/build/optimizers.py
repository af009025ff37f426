"""The optimizer of a run: its arguments, its workers and its parameter groups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lbt import optim
from lbt.build.rates import in_first_epochs, of_training
from lbt.build.settings import construct, stated
from lbt.config import Config
from lbt.config.binding import bind, convert, pick
from lbt.errors import UserError

OF_THE_TRAINING = {"params", "lr", "workers"}  # what an optimizer is given besides settings


def _factory(where: str, name: str) -> Callable[..., torch.optim.Optimizer]:
    return pick(where, name, {known: optim.get(known) for known in optim.names()})


def _optimizer_settings(where: str, settings: Mapping, steps: Sequence[int]) -> tuple[Callable, dict[str, Any]]:
    """Returns what makes an optimizer, and the arguments that its settings mean."""
    factory = _factory(where, settings["name"])
    arguments = {}
    for key, value in settings.items():
        if isinstance(value, dict) and "name" in value:
            arguments[key] = {"name": value["name"]} | _optimizer_settings(f"{where}.{key}", value, steps)[1]
        elif key.endswith("_epochs"):
            epochs = convert(value, float | None, f"{where}.{key}")
            updates = None if epochs is None else round(in_first_epochs(epochs, steps) * steps[0])
            arguments[f"{key.removesuffix('_epochs')}_steps"] = updates
        elif key != "name":
            arguments[key] = value
    return factory, bind(factory, arguments, where)


def completed_optimizer(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns an optimizer's settings, and of the one inside it, with what a file leaves out and is on by default."""
    settings = {
        key: completed_optimizer(value) if isinstance(value, dict) and "name" in value else value
        for key, value in settings.items()
    }
    if settings["name"] not in optim.names():
        return settings
    given = {f"{key.removesuffix('_epochs')}_steps" if key.endswith("_epochs") else key for key in settings}
    return stated(settings, optim.get(settings["name"]), but=given | OF_THE_TRAINING)


def takes_local_gradients(config: Config) -> bool:
    """Says whether the optimizer is given each worker's own gradient, and exchanges by its own rule what it needs."""
    factory = _factory("optimizer", config.optimizer["name"])
    return getattr(factory, "local_gradients", False)


def _workers(config: Config, devices: int) -> dict[str, int]:
    """Returns the optimizer's argument `workers`, the number on each device, where it has workers."""
    name, count = config.optimizer["name"], config.workers or 1
    if "workers" in config.optimizer:
        raise UserError(f"optimizer.workers={config.optimizer['workers']}: the setting is workers, of all devices")
    if not takes_local_gradients(config):
        if config.workers is not None:
            raise UserError(f"workers={config.workers}: optimizer={name} averages gradients, and has no workers")
        return {}
    if count % devices:
        raise UserError(
            f"workers={count}: {devices} devices cannot hold as many each; workers={-(-count // devices) * devices}"
        )
    return {"workers": count // devices}


def _groups(config: Config, parameters: Any, factory: Callable) -> Any:
    """Returns parameters as the optimizer takes them: in one group, or in several.

    Of a network for an optimizer that asks for it, each of its parts is a group; one of vectors alone joins the part
    before. With `bias_lr_factor` vectors are groups of their own.
    """
    parts = [parameters]
    if isinstance(parameters, nn.Module):
        parts = [list(parameters.parameters())]
        if getattr(factory, "groups_by_module", False):
            parts = _parts_of(parameters)
    if config.bias_lr_factor is None:
        return parts[0] if len(parts) == 1 else [{"params": part} for part in parts]
    if getattr(factory, "groups_by_module", False) or getattr(factory, "layers_by_place", False):
        name = config.optimizer["name"]
        raise UserError(
            f"bias_lr_factor={config.bias_lr_factor}: optimizer={name} keeps a layer's vectors with its matrix"
        )
    groups, slow = [], config.peak_lr * config.bias_lr_factor
    for part in map(list, parts):
        groups.append({"params": [one for one in part if one.ndim > 1]})
        groups.append({"params": [one for one in part if one.ndim <= 1], "lr": slow})
    return groups


def _parts_of(network: nn.Module) -> list[list[Tensor]]:
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        parts.setdefault(name.partition(".")[0], []).append(parameter)
    joined: list[list[Tensor]] = []
    for part in parts.values():
        if joined and all(parameter.ndim <= 1 for parameter in part):
            joined[-1].extend(part)
        else:
            joined.append(part)
    return joined


def optimizer(
    config: Config, parameters: Any, *, steps: Sequence[int], devices: int | None = None
) -> torch.optim.Optimizer:
    """Returns the optimizer at its peak learning rate; an argument `<x>_epochs` reaches it as `<x>_steps`.

    An argument with a `name` is an optimizer, too: the one inside SAM, checked in the same way.

    With `bias_lr_factor`, biases and norm layers are a second parameter group, with a rate of their own.

    Args:
        config: of the run.
        parameters: of the model, or the model.
        steps: updates of each epoch.
        devices: that share the workers; None: those of the settings.
    """
    if devices is None:
        devices = config.devices if isinstance(config.devices, int) else 1
    factory, bound = _optimizer_settings("optimizer", config.optimizer, of_training(config, steps))
    bound |= _workers(config, devices)
    return construct("optimizer", factory, _groups(config, parameters, factory), lr=config.peak_lr, **bound)
