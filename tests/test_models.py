"""Models: architecture against torchvision, initialisation against its formulas, norms against their definitions."""

import math
import pickle
from copy import deepcopy
from typing import get_type_hints

import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lbt.models import INITS, MODELS, GhostBatchNorm2d, backbone, initialise, resnet18, resnet50

NORM_OPTIONS = {"batch": {}, "group": {"norm_groups": 8}, "layer": {}, "ghost": {"ghost_size": 2}}

NAMES = ["resnet18", "resnet34", "resnet50"]


def weights_of(model):
    return {n: m.weight for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]


# ---------------------------------------------------------------- architecture


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_stem_is_torchvisions_model(name):
    torch.manual_seed(0)
    ours = MODELS[name](37)
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=37)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize("norm", NORM_OPTIONS)
def test_parameter_count_is_the_same_for_every_norm(norm):
    with torch.device("meta"):
        model = resnet18(1000, norm=norm, **NORM_OPTIONS[norm])
    assert sum(p.numel() for p in model.parameters()) == 11_689_512  # torchvision's published count


@pytest.mark.parametrize("name", NAMES)
def test_cifar_stem(name):
    with torch.device("meta"):
        imagenet, cifar = MODELS[name](10), MODELS[name](10, stem="cifar")
    assert cifar.conv1.weight.shape == (64, 3, 3, 3)
    assert cifar.conv1.bias is None
    drop = sum(p.numel() for p in imagenet.parameters()) - sum(p.numel() for p in cifar.parameters())
    assert drop == 64 * 3 * (49 - 9)


@pytest.mark.parametrize("size", [8, 32, 64])
@pytest.mark.parametrize(("stem", "stride"), [("imagenet", 32), ("cifar", 8)])
def test_shapes(stem, stride, size):
    model = resnet18(7, stem=stem)
    maps = []
    model.layer4.register_forward_hook(lambda module, args, out: maps.append(out.shape))
    with torch.no_grad():
        assert model(torch.randn(2, 3, size, size)).shape == (2, 7)
    side = math.ceil(size / stride)
    assert maps == [(2, 512, side, side)]


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_backbone(name, width):
    model = MODELS[name](10).eval()
    images = torch.randn(2, 3, 32, 32)
    head = model.fc
    with torch.no_grad():
        logits = model(images)
        features_model, dim = backbone(model)
        features = features_model(images)
    assert features_model is model
    assert dim == width
    assert features.shape == (2, width)
    torch.testing.assert_close(head(features), logits)
    with pytest.raises(ValueError, match="no linear classifier"):
        backbone(model)


@pytest.mark.parametrize("norm", NORM_OPTIONS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_gradients_flow_to_every_parameter(norm, stem):
    torch.manual_seed(0)
    model = resnet18(10, stem=stem, norm=norm, **NORM_OPTIONS[norm])
    nn.functional.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


def test_registry_is_annotated_documented_and_picklable():
    for name in NAMES:
        build = MODELS[name]
        hints = get_type_hints(build)
        assert hints["num_classes"] is int
        assert hints["norm_groups"] is int
        assert hints["ghost_size"] == int | None
        assert hints["bn_momentum"] is hints["bn_eps"] is float
        assert hints["zero_init_residual"] is bool
        assert name in build.__doc__
        assert pickle.loads(pickle.dumps(build)) is build


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"stem": "cifr"}, "unknown stem 'cifr'; choose from imagenet, cifar"),
        ({"norm": "batchnorm"}, "unknown norm 'batchnorm'; choose from batch, group, layer, ghost"),
        (
            {"init": "he"},
            "unknown init 'he'; choose from xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal",
        ),
        ({"norm": "group", "norm_groups": 48}, "norm_groups must divide .* 48 does not divide 64"),
        ({"norm": "group", "norm_groups": 128}, "128 does not divide 64"),
        ({"norm": "group", "norm_groups": 0}, "norm_groups must divide"),
        ({"norm": "ghost"}, "ghost_size >= 1.* got None"),
        ({"norm": "ghost", "ghost_size": 0}, "ghost_size >= 1.* got 0"),
        ({"bn_momentum": 1.1}, "bn_momentum must be in"),
        ({"bn_eps": 0.0}, "bn_eps must be > 0"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        resnet18(**{"num_classes": 10, **bad})


# -------------------------------------------------------------- initialisation


def fans(weight):
    area = math.prod(weight.shape[2:])
    return weight.shape[1] * area, weight.shape[0] * area


def check_distribution(weight, variance, normal, name):
    """Mean, variance, and what tells a uniform from a normal draw, within 5 standard errors."""
    n, std = weight.numel(), variance**0.5
    weight = weight.detach().double()
    assert abs(weight.mean()) < 5 * std / n**0.5, name
    kurtosis = 3.0 if normal else 1.8
    assert abs(weight.var() / variance - 1) < 5 * ((kurtosis - 1) / n) ** 0.5, name
    bound = (3 * variance) ** 0.5
    if normal:
        assert weight.abs().max() > 1.5 * bound, name
    else:
        assert bound * (1 - 20 / n) < weight.abs().max() <= bound * (1 + 1e-6), name


VARIANCES = {
    "xavier_uniform": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), False),
    "xavier_normal": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), True),
    "kaiming_uniform": (lambda fan_in, fan_out: 2 / fan_in, False),
    "kaiming_normal": (lambda fan_in, fan_out: 2 / fan_in, True),
}


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("init", INITS)
def test_init_draws_every_weight_from_its_distribution(init, stem):
    torch.manual_seed(1)
    variance, normal = VARIANCES[init]
    model = resnet18(100, stem=stem, init=init)
    weights = weights_of(model)
    assert len(weights) == 21
    for name, weight in weights.items():
        check_distribution(weight, variance(*fans(weight)), normal, name)
    assert not model.fc.bias.any()


def test_default_is_torchvisions_distribution():
    torch.manual_seed(2)
    model = resnet18(100, stem="cifar")
    for name, weight in weights_of(model).items():
        if name == "fc":
            check_distribution(weight, 1 / (3 * fans(weight)[0]), False, name)
        else:
            check_distribution(weight, 2 / fans(weight)[1], True, name)
    assert model.fc.bias.any()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("norm", NORM_OPTIONS)
def test_initialise_replaces_whatever_was_there(init, norm):
    """The released code's guard skipped every layer; here nothing of the old values is left."""
    model = resnet18(10, norm=norm, **NORM_OPTIONS[norm])
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(7)
    initialise(model, init)
    for name, weight in weights_of(model).items():
        assert not (weight == 7).any(), name
    assert not model.fc.bias.any()
    for module in norms_of(model):
        assert (module.weight == 1).all()
        assert (module.bias == 0).all()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0


@pytest.mark.parametrize("init", [None, *INITS])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_residual(name, init):
    with torch.no_grad():
        model = MODELS[name](10, zero_init_residual=True, init=init)
    last = "bn3" if name == "resnet50" else "bn2"
    zero = {n for n, p in model.named_parameters() if "bn" in n and n.endswith("weight") and not p.any()}
    assert zero == {n for n, _ in model.named_parameters() if n.startswith("layer") and n.endswith(f"{last}.weight")}
    assert len(zero) == (16 if name == "resnet50" else 8)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("init", [None, *INITS])
def test_seed_decides_the_weights(init, stem):
    def state(seed):
        torch.manual_seed(seed)
        return resnet18(10, stem=stem, init=init).state_dict()

    first, again, other = state(3), state(3), state(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first if "conv" in name)


# ----------------------------------------------------------------------- norms


def trained_norm(module):
    """Gives a norm layer non-trivial weights and running statistics."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in (module.weight, module.bias, module.running_mean, module.running_var):
            value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
    return module


def pair(ghost_size, channels=6, momentum=0.3, dtype=torch.float64):
    ghost = trained_norm(GhostBatchNorm2d(channels, ghost_size, eps=1e-3, momentum=momentum).to(dtype))
    return ghost, trained_norm(nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum).to(dtype))


def images(n, channels=6, size=5, dtype=torch.float64, memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(n, channels, size, size, generator=generator, dtype=dtype) * 3 + 1
    return (x + torch.arange(n).view(-1, 1, 1, 1)).to(memory_format=memory_format)  # chunks differ


def run(module, x, split=None):
    """Output and gradients of `module`, called once or on the chunks one after another."""
    x = x.detach().clone().requires_grad_()
    y = torch.cat([module(part) for part in x.split(split)]) if split else module(x)
    torch.manual_seed(7)
    grads = torch.autograd.grad(y, (x, module.weight, module.bias), torch.randn(y.shape, dtype=y.dtype))
    return y.detach(), *grads


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("momentum", [0.3, 0.0, 1.0, None])
@pytest.mark.parametrize(("batch", "ghost_size"), [(12, 4), (12, 1), (12, 12), (14, 4), (13, 4), (3, 8)])
def test_ghost_equals_batch_norm_chunk_by_chunk(batch, ghost_size, momentum, memory_format):
    """Output, all gradients and running statistics, over two batches; momentum None is the cumulative average."""
    ghost, plain = pair(ghost_size, momentum=momentum)
    for offset in (0, 2):
        x = images(batch, memory_format=memory_format) + offset
        for ours, expected in zip(run(ghost, x), run(plain, x, split=ghost_size), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    for ours, expected in zip(ghost.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_ghost_of_the_whole_batch_is_batch_norm_and_of_chunks_is_not():
    x = images(12)
    ghost, plain = pair(12)
    for ours, expected in zip(run(ghost, x), run(plain, x), strict=True):
        assert torch.equal(ours, expected)
    for ours, expected in zip(ghost.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, expected)
    ghost, plain = pair(4)
    assert not torch.allclose(ghost(x), plain(x), atol=0.1)


def test_ghost_running_statistics_follow_the_documented_formula():
    ghost, _ = pair(4, momentum=0.3)
    x, before = images(12), ghost.running_var.clone()
    ghost(x)
    chunk_vars = [chunk.transpose(0, 1).flatten(1).var(1) for chunk in x.split(4)]  # unbiased, as torch tracks it
    expected = 0.7**3 * before + sum(0.3 * 0.7 ** (2 - j) * var for j, var in enumerate(chunk_vars))
    torch.testing.assert_close(ghost.running_var, expected)
    assert ghost.num_batches_tracked == 3


def test_ghost_in_eval_is_batch_norm():
    ghost, plain = pair(4)
    ghost.eval()
    plain.eval()
    buffers = [b.clone() for b in ghost.buffers()]
    x = images(10)
    assert torch.equal(ghost(x), plain(x))
    assert torch.equal(ghost(x)[:3], ghost(x[:3]))
    assert all(torch.equal(a, b) for a, b in zip(buffers, ghost.buffers(), strict=True))


def test_ghost_keeps_its_statistics_when_tracking_is_off():
    ghost, plain = pair(4)
    ghost.track_running_stats = plain.track_running_stats = False
    buffers = [b.clone() for b in ghost.buffers()]
    x = images(12)
    torch.testing.assert_close(ghost(x), torch.cat([plain(part) for part in x.split(4)]))
    assert all(torch.equal(a, b) for a, b in zip(buffers, ghost.buffers(), strict=True))


def test_ghost_double_backward():
    """Hessian-vector products go through it."""
    ghost, _ = pair(2, channels=2)
    ghost.track_running_stats = False
    x = images(5, channels=2, size=2).requires_grad_()
    assert torch.autograd.gradgradcheck(ghost, (x,))


def test_ghost_statistics_are_full_precision_under_autocast():
    ghost, plain = pair(4, dtype=torch.float32)
    x = images(12, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, expected = ghost(x), torch.cat([plain(part) for part in x.split(4)])
    assert ours.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(ghost.running_mean, plain.running_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ghost.running_var, plain.running_var, rtol=1e-5, atol=1e-5)


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ghost_is_one_vectorised_call_without_a_sync(memory_format, momentum):
    """The number of operations does not grow with the chunks, and no value travels to the host."""
    counts = {}
    for batch in (8, 64, 66):
        ghost, _ = pair(4, momentum=momentum)
        with Ops() as ops:
            y = ghost(images(batch, memory_format=memory_format).requires_grad_())
            y.sum().backward()
        assert "_local_scalar_dense" not in ops.names
        assert sum("batch_norm" in name and "backward" not in name for name in ops.names) == (2 if batch % 4 else 1)
        counts[batch] = len(ops.names)
    assert counts[8] == counts[64]


def test_ghost_copes_with_a_single_value_as_torch_does():
    ghost, plain = pair(4)
    for module in (ghost, plain):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(images(1, size=1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ghost(images(5, size=1))  # the left-over chunk has one sample of one pixel
    with pytest.raises(ValueError, match="expected 4D input"):
        ghost(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="ghost_size must be at least 1"):
        GhostBatchNorm2d(6, 0)


@pytest.mark.parametrize(
    ("norm", "independent"), [("group", True), ("layer", True), ("batch", False), ("ghost", False)]
)
def test_who_depends_on_the_rest_of_the_batch(norm, independent):
    torch.manual_seed(8)
    model = resnet18(10, norm=norm, **NORM_OPTIONS[norm])
    first, second = torch.randn(2, 6, 3, 32, 32)
    second[0] = first[0]
    with torch.no_grad():
        same = torch.allclose(model(first)[0], model(second)[0], rtol=1e-4, atol=1e-5)
    assert same is independent


def test_ghost_chunks_do_not_see_each_other():
    torch.manual_seed(9)
    model = resnet18(10, norm="ghost", ghost_size=2)
    first, second = torch.randn(2, 6, 3, 32, 32)
    second[:2] = first[:2]
    with torch.no_grad():
        a, b = model(first), model(second)
    torch.testing.assert_close(a[:2], b[:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a[2:], b[2:], atol=1e-2)


@pytest.mark.parametrize("norm", NORM_OPTIONS)
@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_norm_options_reach_every_layer(build, norm):
    with torch.device("meta"):
        model = build(10, norm=norm, norm_groups=16, ghost_size=24, bn_momentum=0.03, bn_eps=1e-3)
    layers = norms_of(model)
    assert len(layers) == (20 if build is resnet18 else 53)
    for layer in layers:
        assert layer.eps == 1e-3
        if norm in ("batch", "ghost"):
            assert type(layer) is (nn.BatchNorm2d if norm == "batch" else GhostBatchNorm2d)
            assert layer.momentum == 0.03
            assert getattr(layer, "ghost_size", 24) == 24
        else:
            assert type(layer) is nn.GroupNorm
            assert layer.num_groups == (16 if norm == "group" else 1)


@pytest.mark.parametrize("norm", NORM_OPTIONS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_channels_last_is_preserved_and_changes_nothing(norm, stem):
    torch.manual_seed(10)
    plain = resnet18(10, stem=stem, norm=norm, **NORM_OPTIONS[norm])
    last = deepcopy(plain).to(memory_format=torch.channels_last)
    formats = {}
    for name, module in last.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
            module.register_forward_hook(
                lambda module, args, out, name=name: formats.update(
                    {name: out.is_contiguous(memory_format=torch.channels_last)}
                )
            )
    x = torch.randn(5, 3, 40, 40)  # 5: ghost has a chunk left over; 40: the last map is larger than 1x1
    expected, ours = plain(x), last(x.to(memory_format=torch.channels_last))
    assert len(formats) == 40
    assert all(formats.values()), [name for name, kept in formats.items() if not kept]
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_ghost_gradient_is_channels_last():
    ghost, _ = pair(4)
    x = images(14, memory_format=torch.channels_last).requires_grad_()
    y = ghost(x)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
