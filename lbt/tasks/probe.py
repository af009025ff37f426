"""How good frozen features are: a linear classifier trained on them, and a weighted vote of nearest neighbours."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.config.binding import bind, pick
from lbt.data import AUGMENTATIONS, views_of
from lbt.metrics import percentage

CHUNK = 2000  # test images compared with all training images at once


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, **vote: Any) -> float:
    """Returns the accuracy, in %, of the vote of `knn_right`, whose arguments these are."""
    return percentage(knn_right(train, train_labels, test, test_labels, **vote).item(), len(test_labels))


def knn_right(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    classes: int,
) -> Tensor:
    """Returns how many a vote of the k nearest training features gets right, weighted by exp(cosine / T); int64.

    Args:
        train: features [N, F].
        train_labels: int64 [N].
        test: features [M, F].
        test_labels: int64 [M].
        k: neighbours; at most N are taken.
        temperature: T.
        classes: number of classes.

    Source: Wu et al. 2018, arXiv 1805.01978, section 3.4.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    correct = torch.zeros((), dtype=torch.int64, device=test.device)
    for part, labels in zip(test.split(CHUNK), test_labels.split(CHUNK), strict=True):
        with torch.autocast(test.device.type, enabled=False):  # in bfloat16 all cosines near 1 are one number
            near, which = (part @ train.T).topk(min(k, len(train)), dim=1)
        votes = torch.zeros(len(part), classes, device=test.device)
        # Weights relative to the nearest neighbour's: the same winner, and no overflow at a small temperature.
        votes.scatter_add_(1, train_labels[which], ((near - near[:, :1]).float() / temperature).exp())
        correct += (votes.argmax(dim=1) == labels).sum()
    return correct


class LinearProbe:
    """A linear classifier on frozen features: SGD with momentum and a cosine learning rate.

    Without augmentation and in eval mode the features are computed once. Otherwise each batch goes through the
    backbone anew, a forward pass of the training set an epoch, on a copy of the backbone.

    Args:
        epochs: passes over the training set.
        batch: images per update; an epoch's last, smaller batch is kept.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: of SGD.
        period_steps: updates in which the cosine goes from `lr` to 0, after which it rises again; None: all of them.
            (Released TVLARS code: 100.)
        augment: augmentation of the training images, one of lbt.data's; "none" caches the features.
        test_augment: likewise of the test images; released TVLARS code: resized_crop_flip.
        standardise: subtract each feature's mean over the training set and divide by its standard deviation. The papers
            do not; but norm layers trained at a raw, large rate give features so large that the probe's rate is too.
        mode: "eval", or "train": batch norm uses and goes on adapting to each batch, test batches too (released code).
        seed: of initialisation, order and augmentation.

    Raises:
        ValueError: a number out of range, or an augmentation that gives several views.

    Source: settings of arXiv 2309.14053 (100 epochs, batch 256, lr 0.3); momentum, decay and initialisation of the
    Barlow Twins authors' evaluation.
    """

    def __init__(
        self,
        *,
        epochs: int = 100,
        batch: int = 256,
        lr: float = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        period_steps: int | None = None,
        augment: str = "none",
        test_augment: str = "none",
        standardise: bool = False,
        mode: Literal["eval", "train"] = "eval",
        seed: int = 0,
    ):
        for name, value in (("epochs", epochs), ("batch", batch), ("period_steps", period_steps)):
            if value is not None and value < 1:
                raise ValueError(f"probe.{name}={value}: expected 1 or more")
        if not lr > 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError("probe: expected lr > 0, momentum in [0, 1) and weight_decay >= 0")
        self.epochs, self.batch, self.lr, self.mode, self.seed = epochs, batch, lr, mode, seed
        self.momentum, self.weight_decay, self.period_steps = momentum, weight_decay, period_steps
        self.standardise = standardise
        self.augment = self._one_view("augment", augment)
        self.test_augment = self._one_view("test_augment", test_augment)
        self._cached = augment == "none" and mode == "eval"
        self._as_tested = test_augment == "none" and mode == "eval"

    @staticmethod
    def _one_view(setting: str, name: str) -> Callable[[Tensor, torch.Generator], Tensor]:
        augment = pick(f"task.probe.{setting}", name, AUGMENTATIONS)
        if views_of(augment) > 1:
            raise ValueError(f"probe.{setting}={name}: expected an augmentation that gives one view of an image")
        return augment

    @classmethod
    def of(cls, settings: dict) -> LinearProbe:
        """Returns the probe that `settings` describe.

        Raises:
            UserError: a setting there is not, or of a wrong type.
        """
        return cls(**bind(cls, settings, "task.probe"))

    def rate(self, step: int, total: int) -> float:
        """Returns the learning rate of update `step` (from 0) of `total`, as torch's CosineAnnealingLR."""
        return self.lr * (1 + math.cos(math.pi * step / (self.period_steps or total))) / 2

    @torch.no_grad()
    def scores(self, network: nn.Module, sets: Any, train: Tensor, test: Tensor) -> dict[str, float]:
        """Trains the classifier and returns `loss`, `accuracy` and `top5_accuracy` (%) on the test set.

        Args:
            network: the frozen backbone; it is left as it is.
            sets: images and labels, see `lbt.train.sets.Sets`.
            train: float32 [N, F], features of the training images as they are, in eval mode.
            test: float32 [M, F], likewise of the test images.
        """
        generator = torch.Generator(train.device).manual_seed(self.seed)
        if not self._cached or not self._as_tested:
            network = copy.deepcopy(network).train(self.mode == "train")
        weight = torch.empty(sets.classes, train.shape[1], device=train.device)
        weight.normal_(std=0.01, generator=generator)
        bias = torch.zeros(sets.classes, device=train.device)
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay, "fused": True}
        optimizer = torch.optim.SGD(parameters, lr=self.lr, **options)
        self._centre, self._scale = train.new_zeros(()), train.new_ones(())
        if self.standardise:
            self._scale, self._centre = torch.std_mean(train, dim=0, correction=0)
            self._scale = self._scale.clamp(min=1e-6)
        steps = math.ceil(len(train) / self.batch)
        step = 0
        for _ in range(self.epochs):
            for inputs, labels in self._batches(network, sets, train, generator):
                optimizer.param_groups[0]["lr"] = self.rate(step, steps * self.epochs)
                with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
                    loss = F.cross_entropy(F.linear(inputs, weight, bias), labels)
                weight.grad, bias.grad = torch.autograd.grad(loss, parameters)
                optimizer.step()
                step += 1
        return self._test(network, sets, test, (weight, bias), generator)

    def _batches(
        self, network: nn.Module, sets: Any, train: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields an epoch's features, float32 [b, F], and labels in a random order."""
        order = torch.randperm(len(train), generator=generator, device=train.device)
        for which in order.split(self.batch):
            if self._cached:
                inputs = train[which]
            else:
                images = self.augment(sets.train_images[which], generator)
                inputs = network(sets.input(images)).float()
            yield (inputs - self._centre) / self._scale, sets.train_labels[which]

    def _test(
        self, network: nn.Module, sets: Any, test: Tensor, head: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        sums = torch.zeros(3, dtype=torch.float64, device=test.device)
        which = torch.arange(len(test), device=test.device)
        for part in which.split(self.batch):
            labels = sets.test_labels[part]
            if self._as_tested:
                inputs = test[part]
            else:
                images = self.test_augment(sets.test_images[part], generator)
                inputs = network(sets.input(images)).float()
            with torch.autocast(inputs.device.type, enabled=False):
                logits = F.linear((inputs - self._centre) / self._scale, *head)
            hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            sums += torch.stack([F.cross_entropy(logits, labels, reduction="sum"), hits[:, 0].sum(), hits.any(1).sum()])
        loss, top1, top5 = sums.tolist()
        shares = {"accuracy": percentage(top1, len(test)), "top5_accuracy": percentage(top5, len(test))}
        return {"loss": loss / len(test), **shares}
