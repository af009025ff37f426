"""Eigenvalues, noise scale, edge of stability and temperature against dense matrices and against what trainings do."""

import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lbt import optim
from lbt.train.probes.curvature import Curvature
from lbt.train.probes.looks import momentum_of, relative_rates, still
from lbt.train.probes.noise_scale import estimates, temperature
from lbt.train.probes.sharpness import edge, sam

SHARES = [(0.4, 8), (0.6, 12)]


def network():
    """A small network with a batch norm whose two micro-batches have different sizes, in float64."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4))
    model = nn.Sequential(*layers).double()
    parts = [(torch.randn(size, 2, 4, 4).double(), torch.randint(4, (size,))) for _, size in SHARES]
    return model, parts


def of(model, parts):
    def loss(images, labels):
        return lambda: nn.functional.cross_entropy(model(images), labels)

    return Curvature([(share, loss(*part)) for (share, _), part in zip(SHARES, parts, strict=True)], model.parameters())


def dense(model, parts):
    """The Hessian as a matrix, by torch's own functional."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [weight.shape for weight in model.parameters()]

    def loss(flat):
        pieces = flat.split([shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        losses = [nn.functional.cross_entropy(functional_call(model, weights, (one,)), wanted) for one, wanted in parts]
        return sum(share * one for (share, _), one in zip(SHARES, losses, strict=True))

    flat = torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])
    return torch.autograd.functional.hessian(loss, flat)


def test_eigenvalues_are_those_of_the_dense_hessian():
    model, parts = network()
    scales = [2.5, 0.0, 1.0, 0.3, 0.0]  # a weight each; those of 0 are held fast
    with still(model) as copied:
        matrix = dense(copied, parts)
        curvature = of(copied, parts)
        found = curvature.largest(3), curvature.largest(3, scales=scales)
    roots = torch.cat([torch.full((w.numel(),), s**0.5) for s, w in zip(scales, model.parameters(), strict=True)])
    for one, wanted in zip(found, (matrix, roots[:, None] * matrix * roots), strict=True):
        assert one.values == pytest.approx(torch.linalg.eigvalsh(wanted).flip(0)[:3].tolist(), rel=1e-6)
        assert one.products < 123  # the columns of the matrix


def quadratic(spectrum):
    """A quadratic of this spectrum in a random basis, its weights in two tensors, and its matrix."""
    torch.manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum)).double())
    matrix = basis * torch.tensor(spectrum).double() @ basis.T
    weights = [nn.Parameter(torch.randn(10).double()), nn.Parameter(torch.randn(len(spectrum) - 10).double())]
    return weights, matrix, lambda: 0.5 * torch.cat(weights) @ matrix @ torch.cat(weights)


@pytest.mark.parametrize("largest", [5.0, -0.01])
def test_eigenvalues_of_a_quadratic_are_its_spectrum(largest):
    spectrum = [largest, *np.linspace(-3, -1, 39)]  # the largest one, not that of the largest magnitude
    weights, _, loss = quadratic(spectrum)
    found = Curvature([(1.0, loss)], weights).largest(2)
    assert found.values == pytest.approx([largest, -1.0], rel=1e-6)
    assert Curvature([(1.0, loss)], weights).largest(2).values == found.values


def test_few_weights_and_a_loss_without_curvature():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]).double())
    bowl = Curvature([(1.0, lambda: (weight**2 * torch.tensor([3.0, 1.0])).sum())], [weight])
    assert bowl.largest(2).values == [6, 2]
    assert Curvature([(1.0, lambda: 3 * weight.sum())], [weight]).largest().values == [0]


def test_sams_sharpness_of_a_quadratic():
    weights, matrix, loss = quadratic(list(np.linspace(1, 4, 40)))
    curvature, before = Curvature([(1.0, loss)], weights), torch.cat([one.detach() for one in weights])
    gradient = matrix @ before
    climbed = before + 0.05 * gradient / gradient.norm()
    found = sam(curvature, curvature.loss(), curvature.gradient(), float(gradient.norm()), 0.05)
    assert found == pytest.approx(float(0.5 * climbed @ matrix @ climbed - 0.5 * before @ matrix @ before), rel=1e-9)


def update_of(optimizer, model=None, batch=1):
    """What the probes ask of a training, of an optimizer alone."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    rates = lambda: (optimizer.param_groups[0]["lr"],) * 2  # noqa: E731
    has = {"optimizer": optimizer, "model": model, "rates": rates, "data": types.SimpleNamespace(batch=batch)}
    return types.SimpleNamespace(progress=types.SimpleNamespace(step=1), **has)


@pytest.mark.parametrize("rule", ["sgd", "nesterov"])
@pytest.mark.parametrize("layerwise", [False, True])
def test_beyond_the_edge_a_training_diverges_at_the_predicted_rate(rule, layerwise):
    weights, _, loss = quadratic([4.0, *np.linspace(0.1, 2, 39)])
    model, mu = nn.ParameterList(weights), 0.8
    growth = []
    for wanted in (0.97, 1.03):
        groups = [{"params": [weight], "lr": lr} for weight, lr in zip(weights, (1.0, 3.0), strict=True)]
        optimizer = optim.get(rule)(groups if layerwise else weights, lr=1.0, momentum=mu, weight_decay=0.0)
        update = update_of(optimizer, model)
        scales = relative_rates(update)
        assert scales == ([1.0, 3.0] if layerwise else None)
        largest = Curvature([(1.0, loss)], weights).largest(scales=scales).values[0]
        factor = wanted / edge(update, largest)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        norms = []
        for _ in range(400):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            norms.append(float(torch.cat([one.detach() for one in weights]).norm()))
        growth.append((norms[-1] / norms[199]) ** (1 / 200))
        h = optimizer.param_groups[0]["lr"] * largest  # the update of weight and buffer along the steepest direction
        look = 1 + mu if rule == "nesterov" else 1.0
        step = torch.tensor([[1 - h * look, -(mu**2 if rule == "nesterov" else mu)], [h, mu]])
        radius = float(torch.linalg.eigvals(step).abs().max())
        if wanted > 1:
            assert growth[-1] == pytest.approx(radius, rel=1e-3) and growth[-1] > 1
    assert growth[0] < 1


def weights_of_two_layers():
    torch.manual_seed(4)
    shapes = (8, 6), (8,), (3, 8), (3,)
    return [nn.Parameter(torch.randn(*shape, dtype=torch.float64)) for shape in shapes]


def steps_of(optimizer, weights):
    """The length of the first step by that of the gradient, weight by weight."""
    before = [one.detach().clone() for one in weights]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    return [float((new.detach() - old).norm() / new.grad.norm()) for new, old in zip(weights, before, strict=True)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("lars", {}),
        ("tvlars", {"lam": 0.5}),
        ("tvlars", {"lam": 0.5, "phi_scope": "adapted", "momentum_placement": "outside"}),
        ("sam", {"base": {"name": "tvlars", "phi_scope": "adapted", "weight_decay": 0.0}}),
        ("nesterov", {"momentum": 1e-12}),
    ],
)
def test_relative_rates_are_those_of_the_step_that_was_made(rule, settings, groups):
    weights = weights_of_two_layers()
    members = weights if groups == 1 else [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.7}]
    plain = {} if rule == "sam" else {"weight_decay": 0.0}
    optimizer = optim.get(rule)(members, lr=0.2, **plain, **settings)
    update = update_of(optimizer, nn.ParameterList(weights))
    if rule == "sam":
        optimizer.step = optimizer.step_inside
    made = steps_of(optimizer, weights)
    group = optimizer.param_groups[0]
    effective = float(group["lr"] * group.get("lr_factor", 1.0))
    assert [effective * one for one in relative_rates(update) or [1.0] * 4] == pytest.approx(made, rel=1e-9)


def test_agvms_factors_are_in_the_rates_and_layers_at_rest_have_none():
    weights = weights_of_two_layers()
    agvm = optim.get("agvm")([{"params": weights[:2]}, {"params": weights[2:]}], lr=0.2, base={"name": "sgd"})
    agvm.param_groups[1]["agvm_factor"] = torch.tensor(0.25)
    assert relative_rates(update_of(agvm, nn.ParameterList(weights))) == [1.0, 1.0, 0.25, 0.25]

    weights = weights_of_two_layers()
    drawn = optim.get("jointspar_lars")(weights, lr=0.2, share=0.5, floor=0.5, seed=3)
    made = steps_of(drawn, weights)
    assert {one == 0 for one in made} == {True, False}
    rates = relative_rates(update_of(drawn, nn.ParameterList(weights)))
    assert [one == 0 for one in rates] == [one == 0 for one in made]


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        *((name, 0.9) for name in ("sgd", "nesterov", "lars", "tvlars", "larc", "clars", "sam", "agvm")),
        *((name, None) for name in ("adamw", "lamb", "muon", "sm3", "shampoo", "jointspar", "jointspar_lars", "slamb")),
    ],
)
def test_edge_and_temperature_are_of_heavy_balls_kind_alone(rule, known):
    optimizer = optim.get(rule)(weights_of_two_layers(), lr=0.1)
    assert momentum_of(update_of(optimizer)) == known
    if known is None:
        assert edge(update_of(optimizer), 1.0) is None and temperature(update_of(optimizer)) is None


@pytest.mark.parametrize(("lr", "mu", "batch"), [(0.01, 0.0, 1), (0.02, 0.9, 20), (0.04, 0.5, 8)])
def test_weights_fluctuate_as_the_temperature_says(lr, mu, batch):
    torch.manual_seed(2)
    curvature, deviation, weight = 1.5, 2.0, nn.Parameter(torch.zeros(40_000))  # each entry a training of its own
    optimizer = optim.get("sgd")([weight], lr=lr, momentum=mu, weight_decay=0.0)
    for _ in range(400):
        weight.grad = curvature * weight.detach() + deviation / batch**0.5 * torch.randn_like(weight)
        optimizer.step()
    wanted = temperature(update_of(optimizer, batch=batch)) * deviation**2 / (2 * curvature)
    assert weight.detach().var().item() == pytest.approx(wanted, rel=0.04)


def per_image_gradients(images=200):
    """Gradients of single images of a small network [images, weights], by torch.func, weight by weight."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(images, 6).double(), torch.randint(3, (images,))

    def loss(weights, one, wanted):
        return nn.functional.cross_entropy(functional_call(model, weights, (one[None],)), wanted[None])

    weights = {name: one.detach() for name, one in model.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, labels)
    return [one.flatten(1) for one in found.values()]


@pytest.mark.parametrize(("parts", "size"), [(2, 8), (8, 16)])
def test_the_noise_scale_is_unbiased(parts, size):
    gradients = per_image_gradients()
    trace = torch.stack([one.var(0, correction=0).sum() for one in gradients])
    square = torch.stack([one.mean(0).square().sum() for one in gradients])
    random, found = torch.Generator().manual_seed(0), []
    for _ in range(3000):
        drawn = torch.randint(200, (parts, size), generator=random)
        found.append(torch.stack(estimates((tuple(one[some].mean(0) for one in gradients) for some in drawn), size)))
    mean_trace, mean_square = torch.stack(found).mean(0)
    assert mean_trace.tolist() == pytest.approx(trace.tolist(), rel=0.02)
    assert mean_square.sum().item() == pytest.approx(square.sum().item(), rel=0.03)
    assert (mean_trace.sum() / mean_square.sum()).item() == pytest.approx((trace.sum() / square.sum()).item(), rel=0.03)
