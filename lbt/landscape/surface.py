"""The loss and scores of a network at any weights, on parts of its training and test images."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbt import build, runtime
from lbt.config import Config
from lbt.data import ImageSet, augmentation, augmented_shape, held_out
from lbt.errors import UserError
from lbt.train.executor import Executor, Sets
from lbt.train.layout import lay_out
from lbt.train.precision import compute_in_float32

REESTIMATED, KEPT = "re-estimated", "kept"
BATCH_NORM = (REESTIMATED, KEPT)


@dataclass(frozen=True)
class Part:
    """Images that the loss is computed on.

    Attributes:
        images: uint8 [n, C, H, W], on the device.
        labels: int64 [n].
        of: how many there are in all.
    """

    images: Tensor
    labels: Tensor
    of: int


class Surface:
    """Scores a network at weights that are given to it.

    Where batch norm's running statistics are `re-estimated` they are computed anew at each point, from the part of the
    training images, as they are without augmentation: those of two networks, mixed, are of neither, and between two
    minima they alone make a barrier. `kept` has them lie on the line as the weights do; then both ends are what the
    runs were scored with.

    Args:
        network: of the run; its weights are overwritten.
        config: settled configuration.
        images: its data.
        count: images of either part at most, a stratified draw.
        seed: of the draw.
        batch_norm: `re-estimated` or `kept`.

    Raises:
        UserError: the task's loss is not one of single images.
    """

    def __init__(self, network: nn.Module, config: Config, images: ImageSet, *, count: int, seed: int, batch_norm: str):
        device, task = runtime.prepare(config), build.task(config)
        if task.views != 1 or task.spans_batch:
            raise UserError(
                f"task={config.task['name']}: its loss is of pairs of images; a landscape is drawn of a task whose "
                "loss is a mean over single images"
            )
        self.network = lay_out(network, device, config.small_maps)
        form, augment = images.form, augmentation(images.form, config.data.augment)
        compute_in_float32(network, task, augmented_shape(images, augment), config.precision, form)
        self.train = _part(images.train_images, images.train_labels, count, seed, device)
        self.test = _part(images.test_images, images.test_labels, count, seed, device)
        self._executor = Executor(network, task, precision=config.precision, micro_batch=None, form=form)
        parts = self.train.images, self.train.labels, self.test.images, self.test.labels
        self._sets = Sets(*parts, len(images.classes), augment=augment)
        self._length, self._seed = config.length, seed
        normalised = any(isinstance(layer, _BatchNorm) and layer.track_running_stats for layer in network.modules())
        self.batch_norm = batch_norm if normalised else None

    @property
    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights and buffers as they are."""
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def at(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns the task's scores at weights, `train_...` and `test_...`; infinite ones are as they are."""
        self.network.load_state_dict(dict(weights))
        again = self.batch_norm == REESTIMATED
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)  # dropout draws while statistics are estimated: the same at every point
            with self._executor.statistics_of(self.train.images) if again else nullcontext():
                return {**self._scores("train", self.train), **self._scores("test", self.test)}

    def _scores(self, split: str, part: Part) -> dict[str, float]:
        sets = replace(self._sets, test_images=part.images, test_labels=part.labels)
        found = self._executor.evaluate(sets, epoch=self._length, epochs=self._length)
        return {f"{split}_{name}": value for name, value in found.items()}


def _part(images: Any, labels: Tensor, count: int, seed: int, device: torch.device) -> Part:
    """Returns images in their order, each class in proportion to its size."""
    if count >= len(labels):
        return Part(images[torch.arange(len(labels))].to(device), labels.to(device), len(labels))
    chosen = held_out(labels, count, seed).nonzero().flatten()
    return Part(images[chosen].to(device), labels[chosen].to(device), len(labels))
