"""Data sets as uint8 tensors (`load`), their validation split, and batched augmentation on the device."""

from lbt.data.augment import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD, crop_flip_rotate, normalise, warp
from lbt.data.imageset import ImageSet, fingerprint, split_validation
from lbt.data.sources import SOURCES, load
from lbt.data.streaming import feed

__all__ = [
    "AUGMENTATIONS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SOURCES",
    "ImageSet",
    "crop_flip_rotate",
    "feed",
    "fingerprint",
    "load",
    "normalise",
    "split_validation",
    "warp",
]
