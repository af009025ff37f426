"""`compile=`: the model's training pass as compiled code, where that pays.

Compilation takes some 30 to 60 s for each shape of batch. Runs of one process share what has been compiled, and torch
keeps it on the disk for later processes. On a CPU it gains nothing (`scripts/BENCHMARKS.md`); on a GPU it is to be
measured.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils.flop_counter import FlopCounterMode

from lbt.data.forms import PICTURES, Form

BACKEND = "inductor"
SHAPES = 64  # of all runs of a process; at torch's 8 it would give up
RATE = 1e14  # FLOP/s that these networks reach, in order of magnitude, on a GPU of the H100's kind
PAYS_FROM = 120.0  # expected seconds of training


class CompiledModel:
    """Calls a model as compiled code, or as it is where it cannot be compiled; one graph, or none of it.

    Args:
        model: what to compile; its weights stay its own.

    Attributes:
        state: "compiled", "not yet", or why the model is called as it is.
    """

    def __init__(self, model: nn.Module):
        self._model, self.state = model, "not yet"
        torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
        self._call: Callable[..., Any] = torch.compile(model, backend=BACKEND, dynamic=False, fullgraph=True)

    def __call__(self, *inputs: Tensor) -> Any:
        """Returns the model's outputs."""
        try:
            outputs = self._call(*inputs)
        except TorchDynamoException as error:  # before anything has been computed
            self._call, self.state = self._model, f"not compiled: {type(error).__name__}: {error}".splitlines()[0]
            return self._model(*inputs)
        if self.state == "not yet":
            self.state = "compiled"
        return outputs


def pays(model: nn.Module, task: Any, data: Any, epochs: int) -> bool:
    """Says whether a training is long enough, as far as its arithmetic tells: the same run is always decided alike.

    Args:
        model: on its device.
        task: see `lbt.tasks`.
        data: the feed, see `lbt.data`.
        epochs: of the training.
    """
    if next(model.parameters()).device.type != "cuda":
        return False
    flops = 3 * forward_flops(model, task, data.form.shape(data.examples(1)), data.form)  # the backward pass: twice
    return flops * len(data.images) * epochs / RATE >= PAYS_FROM


def forward_flops(model: nn.Module, task: Any, shape: Sequence[int], form: Form = PICTURES) -> int:
    """Returns the FLOPs of the forward pass of an image [C, H, W], of all its views; computes nothing."""
    image = form.blank(1, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.forward(copy.deepcopy(model).to("meta").eval(), image if task.views == 1 else [image] * task.views)
    return counter.get_total_flops()
