"""Networks of torchvision and timm: what is built, what their features are, and what is refused in one line."""

import sys

import pytest
import torch
import torchvision
from support import configure
from torch import nn

from lbt import build, fit
from lbt.errors import UserError
from lbt.identity import identity
from lbt.models import MODELS, backbone, classifier

SMALL = ["data=synthetic", "data.size=32", "data.test_size=16", "batch=16", "epochs=1", "device=cpu", "precision=fp32"]


def network(library, arch, size=(32, 32), classes=7, **settings):
    return MODELS[library](classes, size, arch=arch, **settings)


def checked(*overrides):
    config = configure(*SMALL, *overrides)
    build.validate(config)
    fit.fits(config, build.images(config))


def told(*overrides):
    """The one line that a configuration is refused with, before anything is trained."""
    with pytest.raises(UserError) as caught:
        checked(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_network_is_torchvisions_own_with_weights_of_the_seed(arch):
    torch.manual_seed(3)
    ours = network("torchvision", arch)
    torch.manual_seed(3)
    theirs = getattr(torchvision.models, arch)(weights=None, num_classes=7)
    for one, other in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert one[0] == other[0] and torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("library", "arch", "layer", "width"),
    [
        ("torchvision", "resnet18", "fc", 512),
        ("torchvision", "mobilenet_v3_small", "classifier.3", 1024),
        ("torchvision", "convnext_tiny", "classifier.2", 768),
        ("torchvision", "vit_b_16", "heads.head", 768),
        ("torchvision", "efficientnet_b0", "classifier.1", 1280),
        ("torchvision", "densenet121", "classifier", 1024),
        ("timm", "vit_tiny_patch16_224", "head", 192),
    ],
)
def test_features_are_what_the_classifier_was_given(library, arch, layer, width):
    with torch.device("meta"):
        model = network(library, arch)
    images = torch.empty(3, 3, 32, 32, device="meta")
    given = []
    name, linear = classifier(model)
    linear.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].shape))
    assert name == layer and model(images).shape == (3, 7) and given == [(3, width)]
    features, found = backbone(model)
    assert features is model and found == width and model(images).shape == (3, width)


def test_a_network_for_one_size_is_made_for_the_images():
    with torch.device("meta"):
        assert network("torchvision", "vit_b_16", (48, 48)).encoder.pos_embedding.shape == (1, 10, 768)
        assert network("timm", "vit_tiny_patch16_224", (32, 32), patch_size=8).pos_embed.shape == (1, 17, 192)
    checked("model=torchvision", "model.arch=vit_b_16")
    assert "vit_b_16 cannot be built for images of 40x40 pixels: Input shape indivisible by patch size!" in told(
        "model=torchvision", "model.arch=vit_b_16", "data.resolution=40"
    )


def test_shares_reach_the_layers():
    with torch.device("meta"):
        own, other = (network("torchvision", "mobilenet_v3_small", **share) for share in ({}, {"dropout": 0.75}))
        none = network("torchvision", "convnext_tiny", stochastic_depth=0.0)
        of_timm = network("timm", "vit_tiny_patch16_224", dropout=0.25)
    shares = [[layer.p for layer in one.modules() if isinstance(layer, nn.Dropout)] for one in (own, other)]
    assert shares == [[0.2], [0.75]] and of_timm.head_drop.p == 0.25
    assert {layer.p for layer in none.modules() if isinstance(layer, torchvision.ops.StochasticDepth)} == {0.0}


def test_no_share_and_the_networks_own_are_two_runs():
    def of(*more):
        return identity(configure(*SMALL, "model=torchvision", "model.arch=convnext_tiny", *more))["model"]

    assert of() == {"name": "torchvision", "arch": "convnext_tiny"}
    assert of("model.stochastic_depth=0") == {**of(), "stochastic_depth": 0.0}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=torchvision", "model.arch=vit_b16"], 'model.arch=vit_b16: no such choice; did you mean "vit_b_16"?'),
        (["model=torchvision"], "model.arch=None: no such choice; choose from alexnet, "),
        (["model=timm", "model.arch=convnext_ato"], 'timm has no network of that name; did you mean "convnext_atto"?'),
        (["model=timm", "model.arch=hf-hub:timm/resnet18"], "timm has no network of that name"),
        (["model=timm", "model.arch=convnext_atto.d2_in1k"], "timm has no network of that name"),
        (["model=torchvision", "model.arch=resnet18", "model.dropout=0.1"], "dropout=0.1: resnet18 has no dropout"),
        (["model=torchvision", "model.arch=resnet18", "model.dropout=1"], "expected a share of at least 0 and less"),
        (["model=torchvision", "model.arch=swin_t", "model.stochastic_depth=0"], "swin_t has a share of its own"),
        (["model=timm", "model.arch=resnet18", "model.patch_size=8"], "resnet18 cannot be built"),
        (
            ["model=torchvision", "model.arch=alexnet"],
            "model=torchvision alexnet: does not take images of 32x32 pixels",
        ),
        (["model=torchvision", "model.arch=maxvit_t"], "maxvit_t cannot be built for images of 32x32 pixels"),
        (
            ["model=torchvision", "model.arch=squeezenet1_1", "task=barlow_twins", "data.augment=barlow_twins"],
            "SqueezeNet has no linear classifier to replace",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(overrides, line):
    assert line in told(*overrides)


def test_norm_and_stem_are_the_resnets_alone():
    from lbt.sweep.mistakes import in_one_line

    with pytest.raises(UserError, match=r"^model\.norm: not a setting of the model"), in_one_line():
        configure("model=torchvision", "model.arch=resnet18", "model.norm=ghost")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm is not installed: pip install 'lbt[timm]'" in told("model=timm", "model.arch=resnet18")


def test_a_network_that_looks_at_its_weights_is_checked_all_the_same():
    """torchvision's RegNets read numbers from tensors while they are built, which have none without memory."""
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        checked("model=torchvision", "model.arch=regnet_y_400mf")
        assert torch.equal(torch.get_rng_state(), before)
