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

from lbt.identity import identity

VALUES = ("seed", "lr", "lr_scaling", "schedule", "epochs")  # settings that reach an update through tensors alone
HOST = ("params", "lr", "initial_lr")  # of a parameter group: what the host fills in before a replay
SHARED = ("model", "executor", "optimizer", "sums", "sets")  # attributes of a training that hold such tensors


def kind(training: Any) -> str:
    """Returns what a captured update depends on besides the values of its tensors; equal kinds can share one."""
    settings = {key: value for key, value in identity(training.config).items() if key not in VALUES}
    numbers = [  # a delay in epochs is another one in steps where a schedule has batches grow
        {key: repr(value) for key, value in group.items() if key not in HOST and not isinstance(value, Tensor)}
        for group in training.optimizer.param_groups
    ]
    machine = str(training.device), training.config.deterministic, training.executor.compiled is not None
    return json.dumps([settings, numbers, training.images.fingerprint, machine], sort_keys=True)


def take_over(training: Any, earlier: Any) -> bool:
    """Puts a training's values into the tensors of an earlier one of its kind and lets it go on with these.

    Args:
        training: its optimizer has all of its state.
        earlier: a training that is over.

    Returns:
        Whether that could be done; where it could not, nothing has changed.
    """
    pairs = list(_pairs(training, earlier))
    if any(mine is None or theirs is None or mine.shape != theirs.shape for mine, theirs in pairs):
        return False
    with torch.no_grad():
        for mine, theirs in pairs:
            theirs.copy_(mine)
    for mine, theirs in zip(training.optimizer.param_groups, earlier.optimizer.param_groups, strict=True):
        theirs.update({key: value for key, value in mine.items() if key != "params" and not isinstance(value, Tensor)})
    earlier.executor.batch = training.executor.batch
    for name in SHARED:
        setattr(training, name, getattr(earlier, name))
    _share_data(training.data, earlier.data)
    return True


def _pairs(training: Any, earlier: Any) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Yields each tensor whose value a run changes, and the earlier run's; None where one of them has none."""
    yield from _of_dicts(training.model.state_dict(), earlier.model.state_dict())
    yield from _of_dicts(training.sums, earlier.sums)
    for mine, theirs in zip(training.optimizer.param_groups, earlier.optimizer.param_groups, strict=True):
        yield from _of_dicts(mine, theirs)
        for parameter, other in zip(mine["params"], theirs["params"], strict=True):
            yield from _of_dicts(training.optimizer.state[parameter], earlier.optimizer.state[other])


def _of_dicts(mine: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    for key in mine.keys() | theirs.keys():
        pair = mine.get(key), theirs.get(key)
        if any(isinstance(value, Tensor) for value in pair):
            yield tuple(value if isinstance(value, Tensor) else None for value in pair)


def _share_data(data: Any, earlier: Any) -> None:
    """Lets one feed read the images and draw from the generator of another, without a change of what comes next."""
    earlier.generator.set_state(data.generator.get_state())
    data.images, data.labels, data.generator = earlier.images, earlier.labels, earlier.generator
