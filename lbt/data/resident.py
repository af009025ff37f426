"""Epochs over images that lie on the device: a seeded permutation, one gather a batch, batched augmentation."""

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lbt.data.augment import Rows
from lbt.data.forms import PICTURES, Form, augmentation
from lbt.errors import UserError


class ResidentData:
    """A training set on the device and the order in which its epochs go through it.

    Args:
        images: uint8 [N, C, H, W], or token sequences, int32 [N, L], on the device.
        labels: int64 [N], on the device.
        batch: images per update.
        last_batch: "keep" or "drop" an epoch's last, smaller batch.
        augment: name of the augmentation.
        stratified: draw batches whose class counts are as equal as the set's allow.
        seed: of the generator that draws permutations and augmentation.
        rows: the places in a batch of so many images of those that are delivered, int64 [b]; None: all of them.
        form: what the samples are.
        around: returns the function that is called in the augmentation's place, for whoever times it; None: itself.

    Raises:
        UserError: the batch is larger than the set, or there is no such augmentation for such images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch: int,
        last_batch: str,
        augment: str,
        stratified: bool = False,
        seed: int,
        rows: Callable[[int], Tensor] | None = None,
        form: Form = PICTURES,
        around: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None,
    ):
        self.images, self.labels, self.batch, self.last_batch = images, labels, batch, last_batch
        self.stratified, self.form = stratified, form
        self._augment = augmentation(form, augment)
        try:
            self._augment(form.zeros(images.shape), torch.Generator())
        except ValueError as error:  # for images so small, or not in colour
            raise UserError(f"data.augment={augment}: {error}") from error
        self.generator = torch.Generator(images.device).manual_seed(seed)
        self.steps(batch)
        self._rows, self._in_rows = rows, "rows" in inspect.signature(self._augment).parameters
        self._order = torch.empty(0, dtype=torch.long)  # empty between two epochs
        self._next = 0  # the batch that comes next
        if around is not None:
            self._augment = around(self._augment)

    @property
    def views(self) -> int:
        """Images that the augmentation makes of one."""
        return self.form.views(self._augment)

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch at the present batch size."""
        return self.steps(self.batch)

    def steps(self, batch: int) -> int:
        """Returns the updates per epoch at a batch size.

        Raises:
            UserError: it is larger than the set.
        """
        if batch > len(self.images):
            raise UserError(f"batch={batch}: larger than the training set of {len(self.images)} {self.form.noun}")
        full, rest = divmod(len(self.images), batch)
        return full + (rest > 0 and self.last_batch == "keep")

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches left of the current epoch, or of a new one: augmented images and labels, int64 [B].

        Images are uint8 [B, C, H, W], or [B, views, C, H, W] where the augmentation gives several views of each. They
        are those of `rows` alone, the labels those of the whole batch.
        """
        if not len(self._order):
            self._order, self._next = self._permutation(), 0
        while self._next < self.steps_per_epoch:
            indices = self._order[self._next * self.batch : (self._next + 1) * self.batch]
            batch = self.take(indices)
            self._next += 1
            yield batch
        self._order = self._order[:0]

    @property
    def augment(self) -> Callable[..., Tensor]:
        """The augmentation: `(samples, generator, rows=...)`."""
        return self._augment

    def examples(self, count: int) -> Tensor:
        """Returns up to `count` training images, drawn and augmented in the same way each time."""
        generator = torch.Generator(self.images.device).manual_seed(0)
        chosen = torch.randperm(len(self.images), generator=generator, device=self.images.device)[:count]
        return self._augment(self.images[chosen], generator)

    def chosen(self, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the images of `indices` (int64 [B]) and their labels, augmented in the same way each time."""
        indices = indices.to(self.labels.device)
        generator = torch.Generator(self.labels.device).manual_seed(seed)
        return self._augment(self.images[indices], generator), self.labels[indices]

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images of `indices` (int64 [B]), augmented, and their labels; of the images those of `rows`."""
        return self._augmented(self.images[self._read(indices)], len(indices)), self.labels[indices]

    def _read(self, indices: Tensor) -> Tensor:
        """Returns which images of a batch are read: those of `rows`, where the augmentation knows how to draw them."""
        return indices[self._rows(len(indices))] if self._rows and self._in_rows else indices

    def _augmented(self, images: Tensor, count: int) -> Tensor:
        """Returns the images delivered of a batch of `count`, of those that `_read` chose."""
        if self._rows is None:
            return self._augment(images, self.generator)
        own = self._rows(count)
        if self._in_rows:
            return self._augment(images, self.generator, rows=Rows(count, own))
        return self._augment(images, self.generator)[own]

    def _permutation(self) -> Tensor:
        """Returns a random order of the images, int64 [N]; stratified, each class is spread evenly over it."""
        if self.stratified:
            return spread_by_class(self.labels, self.generator)
        return torch.randperm(len(self.images), generator=self.generator, device=self.images.device)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Returns the place in the epoch and the generator's state."""
        return {"order": self._order, "next": self._next, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Goes back to the place `state_dict` described."""
        self._order, self._next = state["order"], state["next"]
        self.generator.set_state(state["generator"].cpu())


def spread_by_class(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a random order in which each class is spread evenly, int64 [N].

    Args:
        labels: int64 [N].
        generator: on their device.
    """
    count, device = len(labels), labels.device
    order = torch.randperm(count, generator=generator, device=device)
    by_class = order[labels[order].argsort(stable=True)]
    sizes = torch.bincount(labels)[labels[by_class]]
    first = torch.searchsorted(labels[by_class], labels[by_class])  # where each one's class begins
    place = torch.arange(count, device=device) - first  # among its class
    jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    return by_class[((place + jitter) / sizes).argsort()]
