"""Norms of each layer's weights and gradient over training (the TVLARS paper's LWN and LGN), without a host wait."""

from typing import Any

import torch
from torch import nn

from lbt.optim.layerwise import norms

DIGITS = 5  # significant digits recorded


class LayerNorms:
    """Measures ||w|| (LWN) and ||g|| (LGN) of every layer at every so many updates, just before the weights move.

    The layers are the parameters of more than one dimension, in the model's order: those the layer-wise optimizers
    adapt. g is the gradient the optimizer is given, without weight decay. The paper's LNR is LWN / LGN, without the
    trust coefficient or TVLARS's phi (arXiv 2309.14053); its own code logs it with both.

    Args:
        model: on its device.
        every: updates between two measurements; the first one is at update 0.
        most: the most updates between two calls of `read`, for which memory is laid out.
    """

    def __init__(self, model: nn.Module, *, every: int, most: int):
        layers = [(name, weight) for name, weight in model.named_parameters() if weight.ndim > 1]
        self.names = [name for name, _ in layers]
        self.weights = [weight for _, weight in layers]
        self.every = every
        device = self.weights[0].device
        self._values = torch.zeros(most // every + 1, 2, len(layers), device=device)  # [measurement, (w, g), layer]
        self._steps: list[int] = []  # updates made before each measurement

    @torch.no_grad()
    def measure(self, step: int) -> None:
        """Takes the norms before update `step` (0-based), if they are due."""
        if step % self.every:
            return
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.weights]
        row = self._values[len(self._steps)]
        row[0].copy_(norms(self.weights))
        row[1].copy_(norms(gradients))
        self._steps.append(step)

    def read(self, *, with_names: bool) -> dict[str, Any]:
        """Returns and forgets what was measured since the last call; waits for the device.

        Returns:
            `steps` [M], the updates made before each measurement; `lwn` and `lgn` [M][layer]; and `names` [layer].
        """
        weights, gradients = self._values[: len(self._steps)].unbind(1)
        found = {"steps": self._steps, "lwn": _rounded(weights), "lgn": _rounded(gradients)}
        self._steps = []
        return {"names": self.names, **found} if with_names else found

    def state_dict(self) -> dict[str, Any]:
        """Returns what was measured since the last `read`."""
        return {"steps": list(self._steps), "values": self._values[: len(self._steps)].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._steps = list(state["steps"])
        self._values[: len(self._steps)] = state["values"]


def _rounded(values: torch.Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in values.tolist()]
