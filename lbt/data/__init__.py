"""Data sets as uint8 tensors (`load`), their validation split, and batched augmentation on the device."""

from lbt.data.augment import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD, crop_flip_rotate, normalise, views_of, warp
from lbt.data.cache import Known, cached
from lbt.data.forms import PICTURES, Form, Pictures, Tokens, augmentation
from lbt.data.imageset import (
    ImageSet,
    augmented_shape,
    fingerprint,
    held_out,
    image_set,
    scored_part,
    split_validation,
    take_subset,
    token_set,
)  # fmt: skip
from lbt.data.sources import SOURCES, load, source
from lbt.data.streaming import feed
from lbt.data.views import resized_crop_flip, two_views

from lbt.data import readers  # isort: skip  # registers the data sets

__all__ = [
    "AUGMENTATIONS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PICTURES",
    "SOURCES",
    "Form",
    "ImageSet",
    "Known",
    "Pictures",
    "Tokens",
    "augmentation",
    "augmented_shape",
    "cached",
    "crop_flip_rotate",
    "feed",
    "fingerprint",
    "held_out",
    "image_set",
    "load",
    "normalise",
    "readers",
    "resized_crop_flip",
    "scored_part",
    "source",
    "split_validation",
    "take_subset",
    "token_set",
    "two_views",
    "views_of",
    "warp",
]
