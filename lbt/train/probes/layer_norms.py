"""Norms of each layer's weights and gradient over training (the TVLARS paper's LWN and LGN), without a host wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from lbt.config import Config
from lbt.optim.layerwise import norms

if TYPE_CHECKING:
    from lbt.train.update import Update

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

    obstacle: ClassVar[str | None] = "the layers' norms are measured between gradient and step"

    def __init__(self, model: nn.Module, *, every: int, most: int):
        layers = [(name, weight) for name, weight in model.named_parameters() if weight.ndim > 1]
        self.names = [name for name, _ in layers]
        self.weights = [weight for _, weight in layers]
        self.every = every
        device = self.weights[0].device
        self._values = torch.zeros(most // every + 1, 2, len(layers), device=device)  # [measurement, (w, g), layer]
        self._steps: list[int] = []  # updates made before each measurement
        self._named = False  # whether the record has the layers' names

    @classmethod
    def of(cls, config: Config, model: nn.Module, most: int) -> LayerNorms:
        """Returns the probe of a configuration, whose `layer_norms` is the interval."""
        return cls(model, every=config.layer_norms, most=most)

    def due(self, step: int) -> bool:
        """Says whether the norms are taken before update `step` (0-based)."""
        return step % self.every == 0

    @torch.no_grad()
    def measure(self, update: Update) -> None:
        """Takes the norms before an update."""
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.weights]
        row = self._values[len(self._steps)]
        row[0].copy_(norms(self.weights))
        row[1].copy_(norms(gradients))
        self._steps.append(update.progress.step)

    def read(self) -> dict[str, Any]:
        """Returns and forgets what was measured since the last call; waits for the device.

        Returns:
            `steps` [M], the updates made before each measurement; `lwn` and `lgn` [M][layer]; the first
            time in a run also `names` [layer].
        """
        weights, gradients = self._values[: len(self._steps)].unbind(1)
        found = {"steps": self._steps, "lwn": _rounded(weights), "lgn": _rounded(gradients)}
        self._steps = []
        named, self._named = self._named, True
        return found if named else {"names": self.names, **found}

    def state_dict(self) -> dict[str, Any]:
        """Returns what was measured since the last `read`."""
        values = self._values[: len(self._steps)].clone()
        return {"steps": list(self._steps), "values": values, "named": self._named}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._steps, self._named = list(state["steps"]), bool(state["named"])
        self._values[: len(self._steps)] = state["values"]


def _rounded(values: torch.Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in values.tolist()]
