"""Batch norm's running statistics, kept as they are or made anew."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbt.train.sets import evaluation_batch


def _tracking(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps batch norm's running statistics as they are during further passes over one batch."""
    layers = _tracking(model)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def statistics_of(model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor) -> Iterator[None]:
    """Has batch norm's running statistics be those of `images` under the present weights, then gives them back.

    Args:
        model: whose layers they are.
        forward: takes some thousand images through the model.
        images: augmented as in training, uint8 [N, C, H, W] or [N, views, C, H, W].
    """
    layers = _tracking(model)
    kept = [({name: buffer.clone() for name, buffer in layer.named_buffers()}, layer.momentum) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    try:
        with torch.no_grad():
            for part in images.split(evaluation_batch(images)):
                if len(part) > 1 or len(images) == 1:  # a lone last one has no variance where maps are 1x1
                    forward(part)
        yield
    finally:
        for layer, (buffers, momentum) in zip(layers, kept, strict=True):
            layer.load_state_dict(buffers, strict=False)
            layer.momentum = momentum
