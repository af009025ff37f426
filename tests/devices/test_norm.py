"""Batch norm of several devices is torch's where there is one, however images and gradients are laid out."""

import copy

import pytest
import torch
from torch import nn

from lbt.devices.group import Group, Part
from lbt.devices.norm import spread

SHAPES = {nn.BatchNorm1d: (8, 6), nn.BatchNorm2d: (8, 6, 5, 4), nn.BatchNorm3d: (8, 6, 3, 2, 4)}


@pytest.fixture
def group():
    one = Group()
    one.part = Part(0, 8, 0, 8, everywhere=False)  # as where there are several
    return one


def passed(layer, images, gradient):
    images = images.detach().requires_grad_()
    out = layer(images)
    return [out, *torch.autograd.grad(out, [images, *layer.parameters()], gradient), *layer.buffers()]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", SHAPES)
def test_it_is_torchs_in_any_layout(group, kind, affine, last):
    torch.manual_seed(0)
    images, gradient = torch.randn(2, *SHAPES[kind], dtype=torch.float64).unbind()
    if last:  # the gradient stays as it is
        images = images.movedim(1, -1).contiguous().movedim(-1, 1)
    own = kind(6, affine=affine).double()
    for parameter in own.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    model = nn.Sequential(own, nn.Linear(1, 1))
    both = copy.deepcopy(model)
    spread(both, group)
    found, expected = passed(both[0], images, gradient), passed(own, images, gradient)
    assert type(both[0]) is not kind and found[1].stride() == images.stride()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_it_keeps_images_of_less_precision(group):
    torch.manual_seed(0)
    images, gradient = torch.randn(2, 64, 6, 5, 4).bfloat16().unbind()
    own = nn.BatchNorm2d(6)
    both = nn.Sequential(copy.deepcopy(own))
    spread(both, group)
    found, expected = passed(both[0], images, gradient), passed(own, images, gradient)
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    torch.testing.assert_close(found[1], expected[1], rtol=0.02, atol=0.02)
