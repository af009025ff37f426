"""How much the gradients of single images differ: the simple noise scale and the temperature of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lbt.train.probes.looks import Looks, loss_of, momentum_of, relative_rates, trained

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbt.train.update import Update


class NoiseScale(Looks):
    """Measures the simple noise scale B = tr(Sigma) / |G|^2 of McCandlish et al. 2018 (arXiv 1812.06162).

    Sigma is the covariance of single images' gradients, G their mean. Figures: `trace` and `gradient_square`, unbiased
    estimates of tr(Sigma) and |G|^2; `noise_scale`, their quotient in images, null where the estimate of |G|^2 is not
    positive; `by_layer` the same for each layer; after the first update `temperature`, lr / (B (1 - mu)) with B the
    batch, for optimizers with momentum, and `by_layer.temperature` with layer-wise rates.
    """

    compares = "noise_scale"

    def choose(self, labels: Tensor) -> Tensor:
        """Returns a draw with replacement: the estimates are then unbiased, which they are not of a stratified one."""
        size = self.settings.micro_batch
        count = self.settings.noise_images // size * size  # micro-batches of one size
        return torch.from_numpy(np.random.RandomState(self.settings.seed).randint(len(labels), size=count))

    def figures(self, update: Update, model: nn.Module, parts: list[tuple[Any, Tensor]]) -> dict[str, Any]:
        """Returns the noise scale of a copy of the model."""
        named = trained(model)
        weights = [one for _, one in named]
        gradients = (
            torch.autograd.grad(loss_of(update, model, images, labels)(), weights, materialize_grads=True)
            for images, labels in parts
        )
        trace, square = estimates(gradients, self.settings.micro_batch)
        layers = [place for place, (_, one) in enumerate(named) if one.ndim > 1]
        whole, by_layer = _figures(trace.sum(), square.sum()), _figures(trace[layers], square[layers])
        heat, rates = temperature(update), relative_rates(update)
        if heat is not None:
            whole["temperature"] = heat
            if rates is not None:
                by_layer["temperature"] = [heat * rates[place] for place in layers]
        return {**whole, "by_layer": by_layer}


def temperature(update: Update) -> float | None:
    """Returns lr / (B (1 - mu)) of the last update (Smith & Le 2018, arXiv 1710.06451); None: no momentum, no update.

    On a quadratic, weights fluctuate around the minimum with the variance T s^2 / (2 h), s^2 the variance of single
    images' gradients and h the curvature, where lr h is small.
    """
    momentum = momentum_of(update)
    if momentum is None or update.progress.step == 0:
        return None
    return update.rates()[1] / (update.data.batch * (1 - momentum))


def estimates(gradients: Iterable[tuple[Tensor, ...]], size: int) -> tuple[Tensor, Tensor]:
    """Returns unbiased estimates, by weight, of tr(Sigma) and |G|^2, in float64.

    With m micro-batches of b images they are McCandlish et al.'s for the sizes b and m b, in a form that does not
    subtract large numbers from each other: tr(Sigma) is b times the variance of the micro-batches' gradients.

    Args:
        gradients: of at least two micro-batches, by weight; means over their images.
        size: images of a micro-batch.
    """
    mean: list[Tensor] = []
    for count, gradient in enumerate(gradients):
        if not mean:
            mean = [one.clone() for one in gradient]
            spread = torch.zeros(len(mean), dtype=torch.float64, device=mean[0].device)
            continue
        away = torch._foreach_sub(gradient, mean)
        spread += _squares(away) * (count / (count + 1))
        torch._foreach_add_(mean, away, alpha=1 / (count + 1))
    trace = size * spread / count
    return trace, _squares(mean) - trace / ((count + 1) * size)


def _squares(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64)).square()


def _figures(trace: Tensor, square: Tensor) -> dict[str, Any]:
    scale = torch.where(square > 0, trace / square, torch.nan)
    return {"noise_scale": scale.tolist(), "trace": trace.tolist(), "gradient_square": square.tolist()}
