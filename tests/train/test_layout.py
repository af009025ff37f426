"""Small maps by matrix products against torch's convolutions."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lbt.models import MODELS
from lbt.train.layout import OUTPUTS, SmallMapConv2d, lay_out

CPU = torch.device("cpu")


def both(layer: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    other = copy.deepcopy(layer)
    other.__class__ = SmallMapConv2d
    return layer, other


def everything(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and the gradient of their weighted sum by images and weights."""
    images = images.clone().requires_grad_()
    outputs = model(images)
    weights = torch.sin(torch.arange(outputs.numel(), dtype=outputs.dtype)).reshape(outputs.shape)
    return [outputs, *torch.autograd.grad((outputs * weights).sum(), [images, *model.parameters()])]


@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_small_shape_is_the_convolution(kernel, stride):
    products = []
    for padding, height, width, bias in itertools.product(range(4), (1, 2, 3, 5), (1, 2, 4), (False, True)):
        if min(height, width) + 2 * padding < kernel:
            continue
        true, found = both(nn.Conv2d(3, 5, kernel, stride, padding, bias=bias).double())
        images = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = everything(true, images)
        products.append(expected[0][0, 0].numel() <= OUTPUTS)
        for one, other in zip(expected, everything(found, images), strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    assert any(products)


def test_small_maps_reach_no_convolution(monkeypatch):
    layer = lay_out(nn.Conv2d(3, 5, 3, padding=1), CPU, "products")
    monkeypatch.setattr(F, "conv2d", None)
    assert layer(torch.zeros(2, 3, 2, 2)).shape == (2, 5, 2, 2)
    with pytest.raises(TypeError):
        layer(torch.zeros(2, 3, 3, 3))


def test_one_map_without_a_batch_and_an_empty_batch_are_the_convolution_s():
    true, found = both(nn.Conv2d(3, 5, 3, padding=1).double())
    for shape in ((3, 2, 2), (0, 3, 2, 2), (0, 3, 1, 1)):
        images = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(found(images), true(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_network_keeps_its_names_weights_outputs_and_gradients(name):
    torch.manual_seed(0)
    plain = MODELS[name](10, norm="group").double()
    laid_out = lay_out(copy.deepcopy(plain), CPU, "products")
    assert any(isinstance(layer, SmallMapConv2d) for layer in laid_out.modules())
    assert list(laid_out.state_dict()) == list(plain.state_dict())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for one, other in zip(everything(plain, images), everything(laid_out, images), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


def test_a_gradient_has_its_weight_s_memory_format():
    layer = lay_out(nn.Conv2d(8, 16, 3, padding=1, bias=False), CPU, "products")
    for size in (1, 2, 4):
        layer.zero_grad()
        layer(torch.randn(4, 8, size, size).contiguous(memory_format=torch.channels_last)).sum().backward()
        assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 1),
    ],
    ids=["groups", "dilation", "same", "reflect", "pointwise"],
)
def test_other_convolutions_are_left_alone(layer):
    assert type(lay_out(nn.Sequential(layer), CPU, "products")[0]) is nn.Conv2d


def test_only_a_cpu_multiplies():
    assert type(lay_out(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), torch.device("meta"), "products")[0]) is nn.Conv2d


def test_second_derivatives_are_the_convolution_s():
    true, found = both(nn.Conv2d(3, 4, 3, padding=1).double())
    images, direction = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    products = []
    for layer in (true, found):
        (gradient,) = torch.autograd.grad(layer(images).pow(3).sum(), layer.weight, create_graph=True)
        products.append(torch.autograd.grad((gradient * direction).sum(), layer.weight)[0])
    torch.testing.assert_close(products[1], products[0])


def test_torch_s_convolutions_stay_where_they_are_asked_for():
    assert type(lay_out(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), CPU, "convolutions")[0]) is nn.Conv2d
