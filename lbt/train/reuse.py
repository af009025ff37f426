"""A run goes on with the tensors of an earlier one of its kind, whose captured updates then are its own.

A CUDA graph holds addresses: of weights, optimizer state, learning rates, images, sums. The next run of a sweep that
differs in nothing but values (seed, rate, schedule, length) needs no capture of its own: its values are put where the
graph finds them.
"""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lbt.config import Config
from lbt.data.resident import ResidentData
from lbt.identity import identity
from lbt.train.update import Update

VALUES = ("seed", "lr", "lr_scaling", "schedule", "epochs")  # settings that reach an update through tensors alone
HOST = ("params", "lr", "initial_lr")  # of a parameter group: what the host fills in before a replay


def kind(config: Config, fingerprint: str, update: Update) -> str:
    """Returns what a captured update depends on besides the values of its tensors; equal kinds can share one.

    Args:
        config: settled configuration.
        fingerprint: of the data.
        update: made of them.
    """
    settings = {key: value for key, value in identity(config).items() if key not in VALUES}
    numbers = [  # a delay in epochs is another one in steps where a schedule has batches grow
        {key: repr(value) for key, value in group.items() if key not in HOST and not isinstance(value, Tensor)}
        for group in update.optimizer.param_groups
    ]
    machine = config.device, config.deterministic, update.executor.compiled is not None
    return json.dumps([settings, numbers, fingerprint, machine], sort_keys=True)


def take_over(update: Update, data: ResidentData, earlier: Update, earlier_data: ResidentData) -> bool:
    """Puts an update's values into the tensors of an earlier one of its kind and lets it go on with these.

    Args:
        update: its optimizer has all of its state.
        data: its training set.
        earlier: of a training that is over.
        earlier_data: likewise.

    Returns:
        Whether that could be done; where it could not, nothing has changed.
    """
    if update.probes or earlier.probes:  # a captured measurement writes where the earlier run's probe reads
        return False
    pairs = list(_pairs(update, earlier))
    if any(mine is None or theirs is None or mine.shape != theirs.shape for mine, theirs in pairs):
        return False
    with torch.no_grad():
        for mine, theirs in pairs:
            theirs.copy_(mine)
    for mine, theirs in zip(update.optimizer.param_groups, earlier.optimizer.param_groups, strict=True):
        theirs.update({key: value for key, value in mine.items() if key != "params" and not isinstance(value, Tensor)})
    earlier.executor.batch = update.executor.batch
    update.executor, update.optimizer = earlier.executor, earlier.optimizer
    update.progress.sums = earlier.progress.sums
    earlier_data.generator.set_state(data.generator.get_state())
    data.images, data.labels, data.generator = earlier_data.images, earlier_data.labels, earlier_data.generator
    return True


def _pairs(update: Update, earlier: Update) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Yields each tensor whose value a run changes, and the earlier run's; None where one of them has none."""
    yield from _of_dicts(update.model.state_dict(), earlier.model.state_dict())
    yield from _of_dicts(update.progress.sums, earlier.progress.sums)
    for mine, theirs in zip(update.optimizer.param_groups, earlier.optimizer.param_groups, strict=True):
        yield from _of_dicts(mine, theirs)
        for parameter, other in zip(mine["params"], theirs["params"], strict=True):
            yield from _of_dicts(update.optimizer.state[parameter], earlier.optimizer.state[other])


def _of_dicts(mine: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    for key in mine.keys() | theirs.keys():
        pair = mine.get(key), theirs.get(key)
        if any(isinstance(value, Tensor) for value in pair):
            yield tuple(value if isinstance(value, Tensor) else None for value in pair)
