"""The samples that a model is scored on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from lbt.data.augment import none, normalise
from lbt.devices.group import ALONE, Group

EVALUATION_BATCH = 2000  # images per forward pass of an evaluation; the scores do not depend on it
LARGE = 64 * 64  # pixels of an image from which on there are fewer of them in a pass; a token counts as 32


def evaluation_batch(images: Tensor) -> int:
    """Returns how many samples a forward pass takes without gradients: fewer of large ones, for the memory."""
    *_, height, width = images.shape
    return max(1, EVALUATION_BATCH * LARGE // max(LARGE, (height if len(images.shape) > 3 else 32) * width))


@dataclass(frozen=True)
class Sets:
    """The images a task is scored on, on the device, and how they reach the model.

    Attributes:
        train_images: uint8 [N, C, H, W], without augmentation.
        train_labels: int64 [N].
        test_images: uint8 [M, C, H, W]; the validation set where one is held out.
        test_labels: int64 [M].
        classes: number of classes.
        input: uint8 images (or tokens) to the model's input, normalised and in the run's precision.
        augment: the training's augmentation, `(samples, generator, rows=...)`, for tasks that score augmented samples.
        group: the devices that score together.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    input: Callable[[Tensor], Tensor] = normalise
    augment: Callable[..., Tensor] = none
    group: Group = ALONE

    def own(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches as `batches` does, of this device's share of the images; `group` adds up what it finds."""
        share = self.group.share(len(labels))
        return self.batches(images[share], labels[share])

    def batches(self, images: Tensor, labels: Tensor, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised images and what belongs to them, `size` at a time or as `evaluation_batch` says."""
        size = evaluation_batch(images) if size is None else size
        for part, wanted in zip(images.split(size), labels.split(size), strict=True):
            yield self.input(part), wanted
