"""The networks by name: `MODELS` maps what `model=` chooses to its builder, `builder(num_classes, **settings)`.

A builder marked by `sized` is given the images' size besides: `builder(num_classes, (height, width), **settings)`;
one of a network for text, whose attribute `reads` is "tokens", (tokens of the vocabulary, of a sequence).
"""

from collections.abc import Callable

from torch import nn

from lbt.models.bert import Bert, bert_base, bert_large, bert_small, bert_tiny, draw
from lbt.models.features import backbone, classifier
from lbt.models.libraries import sized, timm, torchvision
from lbt.models.resnets import INITS, GhostBatchNorm2d, Init, Norm, Stem, initialise, resnet18, resnet34, resnet50

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "torchvision": torchvision,
    "timm": timm,
    "bert_tiny": bert_tiny,
    "bert_small": bert_small,
    "bert_base": bert_base,
    "bert_large": bert_large,
}

__all__ = [
    "INITS",
    "MODELS",
    "Bert",
    "GhostBatchNorm2d",
    "Init",
    "Norm",
    "Stem",
    "backbone",
    "bert_base",
    "bert_large",
    "bert_small",
    "bert_tiny",
    "classifier",
    "draw",
    "initialise",
    "resnet18",
    "resnet34",
    "resnet50",
    "sized",
    "timm",
    "torchvision",
]
