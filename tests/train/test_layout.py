"""Small maps by matrix products against torch's convolutions."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lbt.models import MODELS
from lbt.train import winograd
from lbt.train.layout import CHANNELS, OUTPUTS, SIDE, TILES, SmallMapConv2d, WinogradConv2d, lay_out

CPU = torch.device("cpu")


def both(layer: nn.Conv2d, kind: type[nn.Conv2d] = SmallMapConv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    other = copy.deepcopy(layer)
    other.__class__ = kind
    return layer, other


@pytest.fixture
def filtered(monkeypatch):
    """The maps that minimal filtering was given, of any width and number."""
    for name in ("CHANNELS", "TILES"):
        monkeypatch.setattr(f"lbt.train.layout.{name}", 1)
    shapes, true = [], winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda maps, weight: shapes.append(maps.shape) or true(maps, weight))
    return shapes


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


@pytest.mark.parametrize("height", [4, 8, 12])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_minimal_filtering_is_the_convolution(filtered, height, width, bias):
    true, found = both(nn.Conv2d(3, 5, 3, padding=1, bias=bias).double(), WinogradConv2d)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    for one, other in zip(everything(true, images), everything(found, images), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    assert filtered == [images.shape]
    assert found(images).is_contiguous(memory_format=torch.channels_last)


def test_what_inference_leaves_can_be_trained_with(filtered):
    winograd._to_tiles.cache_clear()
    winograd._from_tiles.cache_clear()
    layer = lay_out(nn.Conv2d(3, 5, 3, padding=1), CPU, "winograd")
    with torch.inference_mode():
        layer(torch.zeros(2, 3, 4, 4))
    layer(torch.zeros(2, 3, 4, 4)).sum().backward()
    assert len(filtered) == 2


def test_minimal_filtering_in_single_precision_rounds_to_1e_5_of_the_largest(filtered):
    torch.manual_seed(0)
    true, found = both(nn.Conv2d(128, 128, 3, padding=1, bias=False), WinogradConv2d)
    images = torch.randn(64, 128, 8, 8)
    for one, other in zip(everything(true.double(), images.double()), everything(found, images), strict=True):
        assert (other - one).abs().max() < 2e-5 * one.abs().max()
    assert filtered


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 4, 6)),
        (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 4, SIDE + 4)),
        (nn.Conv2d(3, 5, 3, padding=1), (3, 4, 4)),
        (nn.Conv2d(3, 5, 3, padding=1), (0, 3, 4, 4)),
        (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 2, 2)),
        (nn.Conv2d(3, 5, 3), (2, 3, 8, 8)),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1), (2, 3, 8, 8)),
        (nn.Conv2d(3, 5, 1, padding=1), (2, 3, 8, 8)),
        (nn.Conv2d(3, 5, (3, 5), padding=1), (2, 3, 8, 8)),
    ],
    ids=[
        "6 pixels wide",
        "too wide",
        "no batch",
        "empty batch",
        "2x2 pixels",
        "no padding",
        "stride",
        "1x1 kernel",
        "3x5 kernel",
    ],
)
def test_minimal_filtering_is_left_out(filtered, layer, shape):
    true, found = both(layer.double(), WinogradConv2d)
    images = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(found(images), true(images))
    assert not filtered


def test_narrow_and_few_maps_and_half_precision_are_torch_s(monkeypatch):
    shapes = []
    monkeypatch.setattr(winograd, "conv3x3", lambda maps, weight: shapes.append(tuple(maps.shape)) or maps)
    for channels in (CHANNELS, CHANNELS - 1):
        layer = lay_out(nn.Conv2d(channels, channels, 3, padding=1, bias=False), CPU, "winograd")
        for count in (TILES, TILES - 1):
            layer(torch.zeros(count, channels, 4, 4))
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.zeros(TILES, channels, 4, 4))
    assert shapes == [(TILES, CHANNELS, 4, 4)]


def test_one_map_without_a_batch_and_an_empty_batch_are_the_convolution_s():
    true, found = both(nn.Conv2d(3, 5, 3, padding=1).double())
    for shape in ((3, 2, 2), (0, 3, 2, 2), (0, 3, 1, 1)):
        images = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(found(images), true(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("small_maps", ["products", "winograd"])
def test_a_network_keeps_its_names_weights_outputs_and_gradients(name, small_maps, filtered):
    torch.manual_seed(0)
    plain = MODELS[name](10, norm="group").double()
    laid_out = lay_out(copy.deepcopy(plain), CPU, small_maps)
    assert any(isinstance(layer, SmallMapConv2d) for layer in laid_out.modules())
    assert list(laid_out.state_dict()) == list(plain.state_dict())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for one, other in zip(everything(plain, images), everything(laid_out, images), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)
    assert bool(filtered) == (small_maps == "winograd")


def test_a_gradient_has_its_weight_s_memory_format(filtered):
    layer = lay_out(nn.Conv2d(8, 16, 3, padding=1, bias=False), CPU, "winograd")
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


@pytest.mark.parametrize("side", [2, 4])
def test_second_derivatives_are_the_convolution_s(side, filtered):
    true, found = both(nn.Conv2d(3, 4, 3, padding=1).double(), WinogradConv2d)
    images, direction = torch.randn(2, 3, side, side, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    products = []
    for layer in (true, found):
        (gradient,) = torch.autograd.grad(layer(images).pow(3).sum(), layer.weight, create_graph=True)
        products.append(torch.autograd.grad((gradient * direction).sum(), layer.weight)[0])
    torch.testing.assert_close(products[1], products[0])


def test_torch_s_convolutions_stay_where_they_are_asked_for():
    assert type(lay_out(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), CPU, "convolutions")[0]) is nn.Conv2d
