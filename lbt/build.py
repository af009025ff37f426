"""From the names and settings of a configuration to the objects they stand for."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lbt import optim, plugins
from lbt.config import Config, scaling_factor
from lbt.config.binding import bind, convert, pick
from lbt.data import AUGMENTATIONS, SOURCES, ImageSet, load, scored_part, split_validation, take_subset
from lbt.errors import UserError
from lbt.models import MODELS
from lbt.schedules import SCHEDULES
from lbt.tasks import TASKS


def validate(config: Config) -> None:
    """Checks every name and setting that needs neither data nor a model.

    Raises:
        UserError: one line that names the setting.
    """
    plugins.load(config.plugins)
    _settings("model", config.model, MODELS)
    task(config)
    batches(config)
    schedule(config, steps=[1] * config.length)
    optimizer(config, [nn.Parameter(torch.zeros(2, 2))], steps=[1] * config.length)
    pick("data.augment", config.data.augment, AUGMENTATIONS)
    bind(pick("data", config.data.name, SOURCES), config.data.options, "data")


def _settings(group: str, settings: dict[str, Any], options: dict[str, Callable]) -> tuple[Callable, dict[str, Any]]:
    arguments = {key: value for key, value in settings.items() if key != "name"}
    target = pick(group, settings["name"], options)
    return target, bind(target, arguments, group)


def _construct(group: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Calls `function`; a value it refuses is the user's to mend."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        raise UserError(f"{group}: {error}") from error


def images(config: Config) -> ImageSet:
    """Returns the data, kept for the next run of this process."""
    plugins.load(config.plugins)
    data = config.data
    options = json.dumps(data.options, sort_keys=True)
    subset, val = (data.subset, data.subset_seed), (data.val, data.val_seed)
    found = _images(data.name, data.root, options, subset, val)
    return scored_part(found, data.test_every) if data.test_every else found


@lru_cache(maxsize=2)
def _images(name: str, root: str | None, options: str, subset: tuple[int, int], val: tuple[float, int]) -> ImageSet:
    reader = pick("data", name, SOURCES)
    found = load(name, root, **bind(reader, json.loads(options), "data"))
    if subset[0]:
        found = take_subset(found, *subset)
    return split_validation(found, *val) if val[0] else found


def forget_images() -> None:
    """Frees the memory of the data that were kept."""
    _images.cache_clear()


def network(model: dict[str, Any], task: dict[str, Any], classes: int, image_size: Sequence[int]) -> nn.Module:
    """Returns a model as a task trains it, from the settings of both; see `_model` for the other arguments."""
    kind, options = _settings("task", task, TASKS)
    made = _model(model, classes, image_size)
    return prepared(_construct("task", kind, **options), made)


def outline(model: dict[str, Any], task: dict[str, Any], classes: int, image_size: Sequence[int]) -> nn.Module:
    """Returns what `network` returns, without memory for its weights (torch's meta device)."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return network(model, task, classes, image_size)
        except (UserError, RuntimeError):  # a constructor may look at values, which there are none of, and be right
            return network(model, task, classes, image_size).to("meta")


def model(config: Config, classes: int, image_size: Sequence[int] | None = None) -> nn.Module:
    """Returns the freshly initialised model; its weights depend on torch's seed alone.

    Args:
        config: of the run.
        classes: their number.
        image_size: height and width in pixels, for models that are made for one size.
    """
    return _model(config.model, classes, image_size)


def _model(settings: dict[str, Any], classes: int, image_size: Sequence[int] | None) -> nn.Module:
    builder, arguments = _settings("model", settings, MODELS)
    size = (image_size and tuple(image_size),) if getattr(builder, "sized", False) else ()
    return _construct("model", builder, classes, *size, **arguments)


def prepared(task: Any, model: nn.Module) -> nn.Module:
    """Returns a freshly built model as a task trains it.

    Raises:
        UserError: the task needs a part that the model does not have.
    """
    return _construct("model", task.prepare, model)


def task(config: Config) -> Any:
    """Returns the task."""
    kind, arguments = _settings("task", config.task, TASKS)
    return _construct("task", kind, **arguments)


def average(config: Config, model: nn.Module) -> AveragedModel | None:
    """Returns the exponential moving average of the weights and buffers, or None where none is kept."""
    if config.ema is None:
        return None
    move = get_ema_multi_avg_fn(config.ema)

    def follow(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
        """Moves what can have a mean; counters and indices are taken as they are, which a mean would round down."""
        if averaged[0].is_floating_point():
            move(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)


def batches(config: Config) -> Callable[[int], int]:
    """Returns the batch size as a function of the epoch (0-based): `batch`, or what `schedule.batch` has it grow to.

    `schedule.batch` maps epochs completed to the batch size from then on (Smith et al. 2018, arXiv 1711.00489). A
    branch's batch is another one from the branching point on.

    Raises:
        UserError: an epoch outside of the training, or something else than a batch size.
    """
    if (branch := config.branch) is not None:
        return lambda epoch: config.batch * (branch.factor if epoch >= branch.at else 1)
    grown = config.schedule.get("batch") or {}
    if not isinstance(grown, dict):
        raise UserError(f"schedule.batch={grown}: expected epochs and batch sizes, {{30:2048,60:8192}}, or null")
    for epoch, batch in grown.items():
        if type(epoch) is not int or not 1 <= epoch < config.epochs or type(batch) is not int or batch < 1:
            raise UserError(
                f"schedule.batch={{{epoch}: {batch}}}: expected an epoch of 1 to {config.epochs - 1} and a batch size"
            )
    return lambda epoch: next((grown[known] for known in sorted(grown, reverse=True) if known <= epoch), config.batch)


def _of_training(config: Config, steps: Sequence[int]) -> Sequence[int]:
    """Returns the updates of each epoch of the whole training, also where the run is a branch of it."""
    return steps if config.branch is None else [steps[0]] * config.epochs


def _of_branch(config: Config, factor: Callable[[int], float], steps: Sequence[int]) -> Callable[[int], float]:
    """Returns a trunk's schedule as a branch follows it: at as many images, and scaled for the batch.

    An update of a branch has the images of several of the trunk's, and the rate of their first one.
    """
    branch = config.branch
    before = sum(steps[: branch.at])
    rule = branch.lr_scaling or config.lr_scaling
    scale = scaling_factor(rule, config.batch * branch.factor) / scaling_factor(rule, config.batch)

    def of_step(step: int) -> float:
        if step < before:
            return factor(step)
        epoch, update = divmod(step - before, steps[branch.at])
        return scale * factor(before + epoch * steps[0] + update * branch.factor)

    return of_step


def _in_first_epochs(epochs: float, steps: Sequence[int]) -> float:
    """Returns how many epochs as long as the first one have the updates of the first `epochs`."""
    if len(set(steps)) == 1:
        return epochs
    whole = min(int(epochs), len(steps) - 1)
    return (sum(steps[:whole]) + (epochs - whole) * steps[whole]) / steps[0]


def schedule(config: Config, *, steps: Sequence[int]) -> Callable[[int], float]:
    """Returns the factor on the peak learning rate as a function of the step (0-based).

    Args:
        config: of the run.
        steps: updates of each epoch: fewer where the batch has grown, and what is said in epochs stays in epochs.
    """
    settings = {key: value for key, value in config.schedule.items() if key != "batch"}
    builder, arguments = _settings("schedule", settings, SCHEDULES)
    own, steps = steps, _of_training(config, steps)
    for key, value in arguments.items():
        if key == "milestones":
            arguments[key] = tuple(_in_first_epochs(epoch, steps) for epoch in value)
        elif (key == "warmup" or key.endswith("_epochs")) and value is not None:
            arguments[key] = _in_first_epochs(value, steps)
    factor = _construct("schedule", builder, sum(steps), steps_per_epoch=steps[0], **arguments)
    return factor if config.branch is None else _of_branch(config, factor, own)


def _optimizer_settings(where: str, settings: Mapping, steps: Sequence[int]) -> tuple[Callable, dict[str, Any]]:
    """Returns what makes an optimizer, and the arguments that its settings mean."""
    factory = pick(where, settings["name"], {known: optim.get(known) for known in optim.names()})
    arguments = {}
    for key, value in settings.items():
        if isinstance(value, dict) and "name" in value:
            arguments[key] = {"name": value["name"]} | _optimizer_settings(f"{where}.{key}", value, steps)[1]
        elif key.endswith("_epochs"):
            epochs = convert(value, float | None, f"{where}.{key}")
            updates = None if epochs is None else round(_in_first_epochs(epochs, steps) * steps[0])
            arguments[f"{key.removesuffix('_epochs')}_steps"] = updates
        elif key != "name":
            arguments[key] = value
    return factory, bind(factory, arguments, where)


def takes_local_gradients(config: Config) -> bool:
    """Says whether the optimizer is given each worker's own gradient, and exchanges by its own rule what it needs."""
    factory = pick("optimizer", config.optimizer["name"], {known: optim.get(known) for known in optim.names()})
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
    factory, bound = _optimizer_settings("optimizer", config.optimizer, _of_training(config, steps))
    bound |= _workers(config, devices)
    return _construct("optimizer", factory, _groups(config, parameters, factory), lr=config.peak_lr, **bound)
