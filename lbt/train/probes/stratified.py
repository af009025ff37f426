"""How much less the gradients of stratified batches differ than those of random ones, at fixed weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lbt.data.resident import spread_by_class
from lbt.train.probes.looks import Looks, joined, loss_of, trained
from lbt.train.probes.noise_scale import estimates

if TYPE_CHECKING:
    from lbt.train.update import Update

IMBALANCE = 100  # images of the largest class to one of the smallest, as in CIFAR-10-LT (Cui et al. 2019, 1901.05555)


class Stratified(Looks):
    """Measures the variance of a batch's gradient where batches are drawn at random, and where they are stratified.

    The same images are cut into micro-batches twice, in a random order and in that of `data.stratified`: the variance
    among the pieces of a random order is that of random batches. Figures: `random` and `stratified`, tr(Sigma) in units
    of a single image's as in `noise_scale`, and `ratio`, the second over the first; `imbalanced` the same for images
    whose classes have a long tail: class k of K has a share that falls as 100^(-k / (K - 1)).
    """

    compares = "stratified"

    def choose(self, labels: Tensor) -> Tensor:
        """Returns a random draw of the set, and as many images with a long tail."""
        size = self.settings.micro_batch
        count, random = self.settings.noise_images // size * size, np.random.RandomState(self.settings.seed)
        own = np.resize(random.permutation(len(labels)), count)
        return torch.from_numpy(np.concatenate([own, long_tail(labels.numpy(), count, random)]))

    def figures(self, update: Update, model: nn.Module, parts: list[tuple[Any, Tensor]]) -> dict[str, Any]:
        """Returns the variances at a copy of the model."""
        half, device = len(parts) // 2, parts[0][1].device
        # Each look of each run has orders of its own: which ones they are is then part of the spread between runs.
        place = np.random.SeedSequence([self.settings.seed, self.config.seed, update.progress.step])
        generator = torch.Generator(device).manual_seed(int(place.generate_state(1)[0]))
        found = []
        for drawn in (parts[:half], parts[half:]):
            images, labels = joined(drawn)
            at_random = torch.randperm(len(labels), generator=generator, device=device)
            orders = at_random, spread_by_class(labels, generator)
            found.append([self._variance(update, model, images, labels, order) for order in orders])
        return {**_pair(*found[0]), "imbalanced": _pair(*found[1])}

    def _variance(self, update: Update, model: nn.Module, images: Any, labels: Tensor, order: Tensor) -> float:
        size, weights = self.settings.micro_batch, [one for _, one in trained(model)]
        gradients = (
            torch.autograd.grad(
                loss_of(update, model, taken(images, part), labels[part])(), weights, materialize_grads=True
            )
            for part in order.split(size)
        )
        return float(estimates(gradients, size)[0].sum())


def taken(images: Any, places: Tensor) -> Any:
    """Returns some images of a batch, or of a list of views of it."""
    return [view[places] for view in images] if isinstance(images, list) else images[places]


def long_tail(labels: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Returns the places of `count` images whose classes have a long tail, each class at least one if it has room.

    Args:
        labels: int64 [N].
        count: of images; those of a class that has too few come several times.
        random: decides which.
    """
    classes = np.unique(labels)
    falls = IMBALANCE ** (-np.arange(len(classes)) / max(len(classes) - 1, 1))
    shares = np.maximum(np.floor(count * falls / falls.sum()), 1).astype(int)
    shares[0] += count - shares.sum()
    drawn = [random.permutation(np.flatnonzero(labels == one)) for one in classes]
    found = [np.resize(one, max(share, 0)) for one, share in zip(drawn, shares, strict=True)]
    return np.concatenate(found)[:count]


def _pair(random: float, stratified: float) -> dict[str, float]:
    return {"random": random, "stratified": stratified, "ratio": stratified / random if random > 0 else float("nan")}
