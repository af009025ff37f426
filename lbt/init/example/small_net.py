"""A network for images of a few pixels: a plug-in, which `lbt.yaml` lists."""

from collections import OrderedDict

from torch import nn


def small_net(num_classes: int, *, width: int = 16) -> nn.Module:
    """Two convolutions and a linear layer; `fc` is what lbt takes for the classifier."""
    layers = OrderedDict(
        conv1=nn.Conv2d(3, width, 3, padding=1, bias=False),
        norm1=nn.BatchNorm2d(width),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        norm2=nn.BatchNorm2d(2 * width),
        relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(8 * width, num_classes),
    )
    return nn.Sequential(layers)


MODELS = {"small_net": small_net}
