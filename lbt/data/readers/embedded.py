"""Data sets that need no files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lbt.data.imageset import ImageSet, held_out, image_set
from lbt.data.sources import at_least_one, embedded, source


@source
@embedded
def digits(root: Path) -> ImageSet:
    """scikit-learn's embedded 8x8 digits: 1,437 + 360 images, a fixed stratified split; `root` is not looked at."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy(((data.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8))  # 0..16 to 0..255
    images = grey[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(data.target.astype(np.int64))
    test = held_out(labels, 360, seed=0)
    pairs = (images[~test], labels[~test]), (images[test], labels[test])
    return image_set("digits", *pairs, tuple("0123456789"), origin="digits (scikit-learn)", official=True)


@source
@embedded
def synthetic(root: Path, size: int = 4096, test_size: int = 1024, classes: int = 10, resolution: int = 32) -> ImageSet:
    """Seeded images of any number and size, for benchmarks: a pattern of 8x8 tiles a class under as much noise.

    Args:
        root: not looked at; nothing is cached.
        size: training images.
        test_size: test images.
        classes: number of classes; the labels go round.
        resolution: height and width in pixels.
    """
    at_least_one(size=size, test_size=test_size, classes=classes, resolution=resolution)
    random = np.random.RandomState(0)  # a frozen stream: the same pixels on every platform
    tiles = random.randint(0, 128, (classes, 3, 8, 8), dtype=np.uint8)
    place = np.arange(resolution) * 8 // resolution
    patterns = torch.from_numpy(tiles[:, :, place][..., place])

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = random.randint(0, 128, (count, 3, resolution, resolution), dtype=np.uint8)
        return torch.from_numpy(noise).add_(patterns[labels]), labels

    names = tuple(map(str, range(classes)))
    origin = f"synthetic ({size}+{test_size} images of {classes} classes, {resolution}x{resolution})"
    return image_set("synthetic", draw(size), draw(test_size), names, origin=origin, official=True)
