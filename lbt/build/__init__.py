"""From the names and settings of a configuration to the objects they stand for."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lbt import plugins
from lbt.build.optimizers import completed_optimizer, optimizer, takes_local_gradients
from lbt.build.rates import batches, schedule
from lbt.build.settings import construct, named, stated
from lbt.config import Config
from lbt.config.binding import bind, pick
from lbt.data import AUGMENTATIONS, SOURCES, ImageSet, load, scored_part, split_validation, take_subset
from lbt.data.forms import MASKINGS
from lbt.errors import UserError
from lbt.models import MODELS
from lbt.schedules import SCHEDULES
from lbt.tasks import TASKS

__all__ = [
    "average", "batches", "completed", "forget_images", "images", "model", "model_reads", "models_for", "network",
    "optimizer", "outline", "prepared", "schedule", "takes_local_gradients", "task", "task_of", "validate",
]  # fmt: skip


def validate(config: Config) -> None:
    """Checks every name and setting that needs neither data nor a model.

    Raises:
        UserError: one line that names the setting.
    """
    plugins.load(config.plugins)
    named("model", config.model, MODELS)
    task(config)
    batches(config)
    schedule(config, steps=[1] * config.length)
    optimizer(config, [nn.Parameter(torch.zeros(2, 2))], steps=[1] * config.length)
    pick("data.augment", config.data.augment, AUGMENTATIONS | MASKINGS)
    bind(pick("data", config.data.name, SOURCES), config.data.options, "data")


def completed(config: Config) -> Config:
    """Returns the configuration with what its files leave out and their code has on by default."""
    plugins.load(config.plugins)
    builder, rates = MODELS.get(config.model.get("name")), SCHEDULES.get(config.schedule.get("name"))
    data = config.data
    return replace(
        config,
        data=replace(data, options=stated(data.options, SOURCES.get(data.name), given=1)),
        model=stated(config.model, builder, given=1 + getattr(builder, "sized", False)),
        task=stated(config.task, TASKS.get(config.task.get("name"))),
        schedule=stated(config.schedule, rates, given=1, but={"steps_per_epoch"}),
        optimizer=completed_optimizer(config.optimizer),
    )


def images(config: Config) -> ImageSet:
    """Returns the data, kept for the next run of this process."""
    plugins.load(config.plugins)
    data = config.data
    options = json.dumps(data.options, sort_keys=True)
    subset, val = (data.subset, data.subset_seed), (data.val, data.val_seed)
    every_class = getattr(task(config), "labelled", True)
    found = _images(data.name, data.root, options, subset, val, every_class)
    return scored_part(found, data.test_every) if data.test_every else found


@lru_cache(maxsize=2)
def _images(
    name: str, root: str | None, options: str, subset: tuple[int, int], val: tuple[float, int], every_class: bool
) -> ImageSet:
    reader = pick("data", name, SOURCES)
    found = load(name, root, **bind(reader, json.loads(options), "data"))
    if subset[0]:
        found = take_subset(found, *subset, every_class=every_class)
    return split_validation(found, *val, every_class=every_class) if val[0] else found


def forget_images() -> None:
    """Frees the memory of the data that were kept."""
    _images.cache_clear()


def network(model: dict[str, Any], task: dict[str, Any], classes: int, image_size: Sequence[int]) -> nn.Module:
    """Returns a model as a task trains it, from the settings of both; see `_model` for the other arguments."""
    made = _model(model, classes, image_size)
    return prepared(task_of(task), made)


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
        image_size: height and width in pixels, for models that are made for one size; of text, how many tokens the
            vocabulary and a sequence have.
    """
    return _model(config.model, classes, image_size)


def _model(settings: dict[str, Any], classes: int, image_size: Sequence[int] | None) -> nn.Module:
    builder, arguments = named("model", settings, MODELS)
    size = (image_size and tuple(image_size),) if getattr(builder, "sized", False) else ()
    return construct("model", builder, classes, *size, **arguments)


def prepared(task: Any, model: nn.Module) -> nn.Module:
    """Returns a freshly built model as a task trains it.

    Raises:
        UserError: the task needs a part that the model does not have.
    """
    return construct("model", task.prepare, model)


def task(config: Config) -> Any:
    """Returns the task."""
    return task_of(config.task)


def task_of(settings: dict[str, Any]) -> Any:
    """Returns the task of its settings."""
    kind, arguments = named("task", settings, TASKS)
    return construct("task", kind, **arguments)


def model_reads(settings: dict[str, Any]) -> str:
    """Returns which samples a model takes, "images" or "tokens", from its settings."""
    return getattr(named("model", settings, MODELS)[0], "reads", "images")


def models_for(reads: str) -> list[str]:
    """Returns the names of the models that take such samples, "images" or "tokens"."""
    return [name for name, builder in MODELS.items() if getattr(builder, "reads", "images") == reads]


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
