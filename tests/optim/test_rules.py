"""Each rule against independent implementations: NumPy float64 from the formulas, optax, timm."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lbt.optim import LAMB, LARS, TVLARS
from lbt.optim.tvlars import phi

sys.path.insert(0, str(Path(__file__).parent))
import reference

NEAR = {"rtol": 1e-10, "atol": 1e-12}


def run(make, weights, gradients, rates, fast=True):
    """Final weights of a torch optimizer under the given gradients and learning rates."""
    params = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in weights]
    optimizer = make(params, lr=rates[0])
    if not fast:
        optimizer.fast_cpu = False
    for grads, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    return [p.detach().numpy() for p in params]


def same(ours, theirs, moved_from=None):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), **NEAR)
    if moved_from is not None:
        assert all(np.abs(a - w).max() > 1e-6 for a, w in zip(ours, moved_from, strict=True))


def agree(kind, rule, options, **problem):
    case = reference.problem(**problem)
    expected = rule(*case, **options)
    for fast in (True, False):
        same(run(lambda p, lr: kind(p, lr, **options), *case, fast=fast), expected, case[0])


@pytest.mark.parametrize("exclude_1d", [True, False])
@pytest.mark.parametrize(
    ("denominator", "placement", "nesterov", "wd"),
    list(itertools.product(["sum", "joint", "bare"], ["inside", "outside"], [True, False], [0.0, 0.05])),
)
def test_lars_formula(denominator, placement, nesterov, wd, exclude_1d):
    options = {"denominator": denominator, "momentum_placement": placement, "nesterov": nesterov, "weight_decay": wd}
    agree(LARS, reference.lars, options | {"exclude_1d": exclude_1d, "eta": 0.02})


@pytest.mark.parametrize(
    "options",
    [
        {}, {"norm_clamp": 1.5}, {"norm_clamp": 1.5, "denominator": "joint"}, {"eps": 0.1}, {"maximize": True},
        {"maximize": True, "denominator": "joint", "weight_decay": 0.3}, {"momentum": 0.0},
        {"momentum": 0.0, "momentum_placement": "outside"},
    ],
)  # fmt: skip
def test_lars_options(options):
    agree(LARS, reference.lars, {"eta": 0.02} | options)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"weight_decay": 0.0}, {"bias_correction": False}, {"ratio_clip": 1.0}, {"grad_clip": 1.0},
        {"grad_clip": 1e6}, {"norm_clamp": 1.5, "bias_correction": False}, {"adapt": False}, {"exclude_1d": True},
        {"maximize": True}, {"maximize": True, "grad_clip": 1.0}, {"betas": (0.8, 0.95), "eps": 0.1},
    ],
)  # fmt: skip
def test_lamb_formula(options):
    agree(LAMB, reference.lamb, {"weight_decay": 0.1} | options)


RELEASED = {"alpha": 0.1, "delay_steps": None, "phi_scope": "adapted", "norm_clamp": 10.0, "denominator": "joint"}


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize(
    "options",
    [{}, {"delay_steps": 8, "floor": 0.01}, {"denominator": "bare"}, RELEASED, {"phi_scope": "adapted"}],
)
def test_tvlars_formula(options, placement):
    options = {"lam": 0.3, "eta": 0.02, "weight_decay": 0.05, "momentum_placement": placement} | options
    agree(TVLARS, reference.tvlars, options)


def test_phi():
    assert phi(0, 1.0, 0.3, 0, 0.0) == 0.5
    assert phi(0, 0.1, 1e-3, None, 0.0) == pytest.approx(1 / (0.1 + math.exp(1e-3)), rel=1e-15)
    assert phi(7, 1.0, 0.3, 10, 0.2) == pytest.approx(1 / (1 + math.exp(-0.9)) + 0.2, rel=1e-15)
    steps = torch.arange(0, 10**6, 1000, dtype=torch.float64)
    values = phi(steps, 1.0, 1e-2, 2000, 0.01)
    assert torch.isfinite(values).all()
    assert (values.diff() <= 0).all()
    assert values[-1] == 0.01
    assert values[0] <= 1 / (1 + math.exp(-1e-2 * 2000)) + 0.01
    assert phi(10**9, 1.0, 1e-2, 0, 0.25) == 0.25


def test_tvlars_counts_from_zero_and_logs_its_factor():
    p = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = TVLARS([p], lr=1.0, lam=0.5, delay_steps=3, floor=0.1)
    for t in range(5):
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert float(optimizer.param_groups[0]["lr_factor"]) == pytest.approx(phi(t, 1.0, 0.5, 3, 0.1), rel=1e-12)


def test_tvlars_is_lars_where_phi_is_one():
    case = reference.problem()
    constant = run(lambda p, lr: TVLARS(p, lr, lam=0.0, floor=0.5), *case)
    same(constant, run(lambda p, lr: LARS(p, lr), *case))


def test_trust_ratios():
    matrix, bias, zero = (torch.nn.Parameter(torch.full(s, v)) for s, v in (((2, 2), 3.0), ((2,), 1.0), ((2, 3), 0.0)))
    for kind, expected in (
        (LARS(params := [matrix, bias, zero], 0.1, weight_decay=0.5), 1e-3 * 6 / (4 + 3)),
        (TVLARS(params, 0.1, weight_decay=0.0, lam=2.0), 1e-3 * 6 / 4),
        (LAMB(params, 0.1, weight_decay=0.0, exclude_1d=True), 6 / 2),
    ):
        for p, value in zip(params, (3.0, 1.0, 0.0), strict=True):
            p.data.fill_(value)
            p.grad = torch.full_like(p, 2.0)
        kind.step()
        ratios = kind.trust_ratios()
        assert set(ratios) == {matrix, zero}
        assert all(r.shape == () for r in ratios.values())
        assert float(ratios[matrix]) == pytest.approx(expected, rel=1e-5)
        assert float(ratios[zero]) == 1.0


@pytest.mark.parametrize("wd", [0.0, 0.05])
@pytest.mark.parametrize("nesterov", [True, False])
def test_lars_optax(wd, nesterov):
    case = reference.problem()
    ours = run(
        lambda p, lr: LARS(p, lr, denominator="joint", weight_decay=wd, exclude_1d=False, nesterov=nesterov, eta=0.02),
        *case,
    )
    make = lambda optax, rate: optax.lars(rate, weight_decay=wd, trust_coefficient=0.02, nesterov=nesterov)  # noqa: E731
    same(ours, optax_run(make, *case), case[0])


@pytest.mark.parametrize("wd", [0.0, 0.05])
def test_lamb_optax(wd):
    case = reference.problem()
    ours = run(lambda p, lr: LAMB(p, lr, weight_decay=wd), *case)
    same(ours, optax_run(lambda optax, rate: optax.lamb(rate, weight_decay=wd), *case), case[0])


def optax_run(make, weights, gradients, rates):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        table = jax.numpy.asarray(rates)
        chain = make(optax, lambda count: table[count])
        params = [jax.numpy.asarray(w) for w in weights]
        state = chain.init(params)
        update = jax.jit(chain.update)
        for grads in gradients:
            changes, state = update([jax.numpy.asarray(g) for g in grads], state, params)
            params = optax.apply_updates(params, changes)
        return [np.asarray(p) for p in params]
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("wd", [0.0, 0.05])
@pytest.mark.parametrize("nesterov", [True, False])
def test_lars_timm(wd, nesterov):
    timm = pytest.importorskip("timm.optim")
    case = reference.problem()
    options = {"momentum": 0.9, "weight_decay": wd, "nesterov": nesterov}
    ours = run(lambda p, lr: LARS(p, lr, momentum_placement="outside", exclude_1d=False, eta=0.02, **options), *case)
    theirs = run(lambda p, lr: timm.Lars(p, lr, trust_coeff=0.02, eps=0.0, always_adapt=True, **options), *case)
    same(ours, theirs, case[0])


@pytest.mark.parametrize("wd", [0.0, 0.05])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({}, {}),
        ({"bias_correction": False}, {"bias_correction": False}),
        ({"ratio_clip": 1.0}, {"trust_clip": True}),
        ({"grad_clip": 1.0}, {"max_grad_norm": 1.0}),
    ],
)
def test_lamb_timm(wd, mine, theirs):
    timm = pytest.importorskip("timm.optim")
    case = reference.problem()
    theirs = {"max_grad_norm": None, "always_adapt": True, "weight_decay": wd} | theirs
    ours = run(lambda p, lr: LAMB(p, lr, weight_decay=wd, **mine), *case)
    same(ours, run(lambda p, lr: timm.Lamb(p, lr, **theirs), *case), case[0])
