"""Convolutions that a CPU computes wrongly in bfloat16 compute in float32 instead.

The weight gradient of a strided convolution on a map smaller than its stride is uninitialised memory in bfloat16 on
CPUs (torch 2.14 with oneDNN, whatever the kernel's size, memory layout or number of groups); every other shape agrees
with float32 (`tests/train/test_precision.py` tries them). A ResNet with ImageNet's stem has such layers for images of
up to 16 pixels. Their maps hold a pixel or two, so that float32 costs nothing that could be measured.
"""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lbt.data.forms import PICTURES, Form


def compute_in_float32(
    model: nn.Module, task: Any, shape: Sequence[int], precision: str, form: Form = PICTURES
) -> list[str]:
    """Has the layers compute in float32 for which bfloat16 is wrong on a CPU, and returns their names.

    Args:
        model: on its device; layers are changed in place, their weights stay as they are.
        task: see `lbt.tasks`.
        shape: of an image, [C, H, W].
        precision: the run's; nothing needs to be changed in "fp32".
        form: what the images are.
    """
    if precision != "bf16" or next(model.parameters()).device.type != "cpu":
        return []
    inputs = input_sizes(model, task, shape, form)
    found = [name for name, size in inputs.items() if is_miscomputed(model.get_submodule(name), size)]
    for name in found:
        layer = model.get_submodule(name)
        layer.__class__ = _in_float32(type(layer))
    return found


class InFloat32:
    """Has a convolution, whatever its class does besides, be left in float32 by autocast."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns the convolution of maps [b, C, H, W], in float32."""
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


class Float32Conv2d(InFloat32, nn.Conv2d):
    """A convolution that autocast leaves in float32."""


@cache
def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Returns the class of convolutions of a kind, a library's own for instance, that compute in float32."""
    return Float32Conv2d if kind is nn.Conv2d else type(f"Float32{kind.__name__}", (InFloat32, kind), {})


def is_miscomputed(layer: nn.Conv2d, size: tuple[int, int]) -> bool:
    """Says whether bfloat16 gives a wrong weight gradient on maps of this height and width."""
    return any(length < stride for length, stride in zip(size, layer.stride, strict=True))


def input_sizes(model: nn.Module, task: Any, shape: Sequence[int], form: Form = PICTURES) -> dict[str, tuple[int, int]]:
    """Returns the height and width of what reaches each 2-D convolution, by its name; computes nothing."""
    shadow = copy.deepcopy(model).to("meta").eval()
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Any:
        return lambda _, inputs: sizes.__setitem__(name, tuple(inputs[0].shape[-2:]))

    for name, layer in shadow.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(note(name))
    image = form.blank(1, shape)
    with torch.no_grad():
        task.forward(shadow, image if task.views == 1 else [image] * task.views)
    return sizes
