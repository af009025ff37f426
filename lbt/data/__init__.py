"""Data sets as uint8 tensors (`load`), their validation split, and batched augmentation on the device."""

from lbt.data.augment import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD, crop_flip_rotate, normalise, warp
from lbt.data.imageset import ImageSet, fingerprint, split_validation, take_subset
from lbt.data.sources import SOURCES, load

__all__ = [
    "AUGMENTATIONS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SOURCES",
    "ImageSet",
    "crop_flip_rotate",
    "fingerprint",
    "load",
    "normalise",
    "split_validation",
    "take_subset",
    "warp",
]
