"""Epochs over images that lie on the device: a seeded permutation, one gather a batch, batched augmentation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lbt.data.augment import AUGMENTATIONS
from lbt.errors import UserError
from lbt.registry import pick


class ResidentData:
    """A training set on the device and the order in which its epochs go through it.

    Args:
        images: uint8 [N, C, H, W], on the device.
        labels: int64 [N], on the device.
        batch: images per update.
        last_batch: "keep" or "drop" an epoch's last, smaller batch.
        augment: name of the augmentation.
        seed: of the generator that draws permutations and augmentation.

    Raises:
        UserError: the batch is larger than the set, or there is no such augmentation.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, batch: int, last_batch: str, augment: str, seed: int):
        if batch > len(images):
            raise UserError(f"batch={batch}: larger than the training set of {len(images)} images")
        self.images, self.labels, self.batch, self.last_batch = images, labels, batch, last_batch
        self._augment = pick("data.augment", augment, AUGMENTATIONS)
        self.generator = torch.Generator(images.device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.long)  # empty between two epochs
        self._next = 0  # the batch that comes next

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch."""
        full, rest = divmod(len(self.images), self.batch)
        return full + (rest > 0 and self.last_batch == "keep")

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches left of the current epoch, or of a new one: uint8 [B, C, H, W] augmented, int64 [B]."""
        if not len(self._order):
            self._order = torch.randperm(len(self.images), generator=self.generator, device=self.images.device)
            self._next = 0
        while self._next < self.steps_per_epoch:
            indices = self._order[self._next * self.batch : (self._next + 1) * self.batch]
            images = self._augment(self.images[indices], self.generator)
            self._next += 1
            yield images, self.labels[indices]
        self._order = self._order[:0]

    def state_dict(self) -> dict[str, Tensor | int]:
        """Returns the place in the epoch and the generator's state."""
        return {"order": self._order, "next": self._next, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Goes back to the place `state_dict` described."""
        self._order, self._next = state["order"], state["next"]
        self.generator.set_state(state["generator"].cpu())
