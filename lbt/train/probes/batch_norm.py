"""How much a batch's gradient changes where its batch norm sees a micro-batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lbt.train.probes.curvature import Curvature
from lbt.train.probes.looks import Looks, joined, loss_of, trained

if TYPE_CHECKING:
    from lbt.train.update import Update


class BatchNorm(Looks):
    """Compares the gradient of a batch in one pass with that of the same images in micro-batches, at fixed weights.

    Figures: `change`, ||g' - g|| / ||g|| with g the gradient where batch norm normalises by the whole batch's
    statistics and g' the mean of the micro-batches' gradients, each normalised by its own; `cosine`, that of the angle
    between the two; `growth`, ||g'|| / ||g||; `images`, of the batch, and `micro_batch`. Without batch norm (and in a
    task whose loss is a mean over images) only rounding is left of `change`. The batch is one pass: it takes the memory
    of `probe.noise_images` images.
    """

    compares = "batch_norm"

    def choose(self, labels: Tensor) -> Tensor:
        """Returns a random draw without replacement."""
        order = np.random.RandomState(self.settings.seed).permutation(len(labels))
        return torch.from_numpy(order[: self.settings.noise_images])

    def figures(self, update: Update, model: nn.Module, parts: list[tuple[Any, Tensor]]) -> dict[str, Any]:
        """Returns what micro-batches change, of a copy of the model; ValueError where there is one of them."""
        if len(parts) < 2:
            raise ValueError(f"the set has {len(parts[0][1])} images, one micro-batch: nothing to compare")
        weights = [one for _, one in trained(model)]
        total = sum(len(labels) for _, labels in parts)
        pieces = [(len(labels) / total, loss_of(update, model, images, labels)) for images, labels in parts]
        split = _flat(Curvature(pieces, weights).gradient())
        whole = _flat(Curvature([(1.0, loss_of(update, model, *joined(parts)))], weights).gradient())
        norms = split.norm(), whole.norm()
        return {
            "change": float((split - whole).norm() / norms[1]),
            "cosine": float(split @ whole / (norms[0] * norms[1])),
            "growth": float(norms[0] / norms[1]),
            "images": total,
            "micro_batch": len(parts[0][1]),
        }


def _flat(gradient: list[Tensor]) -> Tensor:
    return torch.cat([one.reshape(-1) for one in gradient]).double()
