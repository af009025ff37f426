"""How sharp the loss is at the weights: the Hessian's largest eigenvalues, SAM's sharpness, the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lbt.data import held_out
from lbt.train.probes.curvature import Curvature
from lbt.train.probes.looks import Looks, loss_of, momentum_of, relative_rates, trained

if TYPE_CHECKING:
    from lbt.train.update import Update

# A layer's scale has a meaning where more than this is so: the change of the outputs when its weights are doubled, as a
# share of them, or the cosine between weights and gradient, which is 0 where the loss does not depend on the scale.
CHANGED, COSINE = 1e-2, 1e-4
TRIED_ON = 16  # images


class Sharpness(Looks):
    """Measures the curvature of the training loss on a stratified subset.

    Figures: `loss` and `gradient_norm` on the subset; `lambda_max`, the Hessian's largest eigenvalue (`eigenvalues`:
    the largest `probe.eigenvalues`), and `products`, the Hessian-vector products of the whole look; `sam`,
    L(w + rho g / ||g||) - L(w) of Foret et al. 2020 (arXiv 2010.01412); `lambda_max_normalised`, where each layer
    whose scale means nothing is measured in units of its own norm and all others are held fast. After the first update
    also `lambda_max_optimizer`, in the geometry of layer-wise rates (the largest of D^(1/2) H D^(1/2), D the trust
    ratios), and `edge`: the rate as a share of the largest that is stable on a quadratic of this curvature.
    """

    def choose(self, labels: Tensor) -> Tensor:
        """Returns a stratified draw in a random order, so that each micro-batch holds all classes."""
        count = min(self.settings.images, len(labels))
        chosen = held_out(labels, count, self.settings.seed).nonzero().flatten()
        return chosen[torch.from_numpy(np.random.RandomState(self.settings.seed).permutation(count))]

    def figures(self, update: Update, model: nn.Module, parts: list[tuple[Any, Tensor]]) -> dict[str, Any]:
        """Returns the curvature of a copy of the model."""
        total = sum(len(labels) for _, labels in parts)
        losses = [(len(labels) / total, loss_of(update, model, images, labels)) for images, labels in parts]
        curvature, settings = Curvature(losses, [one for _, one in trained(model)]), self.settings
        loss, gradient = curvature.loss(), curvature.gradient()
        norm = float(torch.stack([one.double().norm() for one in gradient]).norm())
        found = {"loss": loss, "gradient_norm": norm}
        if not math.isfinite(loss + norm):
            return {**found, "lambda_max": math.nan}
        how = {"tolerance": settings.tolerance, "seed": settings.seed}
        plain = curvature.largest(settings.eigenvalues, **how)
        found |= {"lambda_max": plain.values[0], "products": plain.products}
        if settings.eigenvalues > 1:
            found["eigenvalues"] = plain.values
        rates = relative_rates(update)
        if rates is not None:
            geometry = curvature.largest(**how, scales=rates)
            found["lambda_max_optimizer"] = geometry.values[0]
            found["products"] += geometry.products
        found["edge"] = edge(update, found.get("lambda_max_optimizer", found["lambda_max"]))
        scales = scale_free(update, model, parts[0][0], gradient)
        if any(scales):
            normalised = curvature.largest(**how, scales=scales)
            found["lambda_max_normalised"] = normalised.values[0]
            found["products"] += normalised.products
        return {**found, "sam": sam(curvature, loss, gradient, norm, settings.rho)}


def edge(update: Update, largest: float) -> float | None:
    """Returns the last update's rate as a share of the largest that is stable; None: not known of the optimizer.

    Heavy ball diverges on a quadratic with a curvature above 2 (1 + mu) / lr, Nesterov's momentum above that over
    1 + 2 mu (Cohen et al. 2021, arXiv 2103.00065).

    Args:
        update: of the training.
        largest: eigenvalue, in the optimizer's geometry.
    """
    momentum = momentum_of(update)
    if momentum is None or update.progress.step == 0:
        return None
    steeper = 1 + 2 * momentum if update.optimizer.param_groups[0].get("nesterov") else 1.0
    return update.rates()[1] * largest * steeper / (2 * (1 + momentum))


@torch.no_grad()
def sam(curvature: Curvature, loss: float, gradient: list[Tensor], norm: float, rho: float) -> float:
    """Returns how much the loss grows at a distance of `rho` up the gradient; the weights are left there."""
    if norm > 0:
        torch._foreach_add_(curvature.weights, gradient, alpha=rho / norm)
    return curvature.loss() - loss


@torch.no_grad()
def scale_free(update: Update, model: nn.Module, images: Any, gradient: Sequence[Tensor]) -> list[float]:
    """Returns ||w||^2 of each trained weight whose scale means nothing, as before a norm layer, and 0 for the others.

    A layer is one where the outputs stay as they are when its weights are doubled, and whose gradient, which must not
    be 0, is at right angles to the weights (Euler's theorem: the loss is homogeneous of degree 0 in them). Each alone
    is not enough: outputs may hardly depend on a layer, and vectors of many entries are nearly at right angles.

    Args:
        update: of the training.
        model: a copy; its weights are as before afterwards.
        images: normalised, or a list of views.
        gradient: of the loss, by weight.
    """
    some = [view[:TRIED_ON] for view in images] if isinstance(images, list) else images[:TRIED_ON]
    task, found = update.executor.task, []
    outputs = task.forward(model, some)
    for (_, weight), slope in zip(trained(model), gradient, strict=True):
        scale = 0.0
        if weight.ndim > 1 and abs(_cosine(weight, slope)) <= COSINE:
            weight.mul_(2)  # exact, there and back
            changed = (task.forward(model, some) - outputs).abs().max()
            weight.div_(2)
            if changed <= CHANGED * outputs.abs().max():
                scale = float(weight.double().square().sum())
        found.append(scale)
    return found


def _cosine(one: Tensor, other: Tensor) -> float:
    """Returns the cosine of the angle between two tensors, NaN where one is 0."""
    first, second = one.double().flatten(), other.double().flatten()
    return float(first @ second / (first.norm() * second.norm()))
