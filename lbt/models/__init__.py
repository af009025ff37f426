"""The networks by name: `MODELS` maps what `model=` chooses to its builder, `builder(num_classes, **settings)`.

A builder marked by `sized` is given the images' size besides: `builder(num_classes, (height, width), **settings)`;
one of a network for text, whose attribute `reads` is "tokens", (tokens of the vocabulary, of a sequence).
"""

from collections.abc import Callable

from torch import nn

from lbt.models.features import backbone, classifier
from lbt.models.libraries import sized, timm, torchvision
from lbt.models.resnets import INITS, GhostBatchNorm2d, Init, Norm, Stem, initialise, resnet18, resnet34, resnet50

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "torchvision": torchvision,
    "timm": timm,
}

__all__ = [
    "INITS",
    "MODELS",
    "GhostBatchNorm2d",
    "Init",
    "Norm",
    "Stem",
    "backbone",
    "classifier",
    "initialise",
    "resnet18",
    "resnet34",
    "resnet50",
    "sized",
    "timm",
    "torchvision",
]
