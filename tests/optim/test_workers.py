"""Rules for several workers against NumPy simulators of 2 to 4 of them, and what must hold of each."""

import copy
import itertools

import numpy as np
import pytest
import simulators
import torch
from test_suite import assert_equal, flat, saved
from torch import nn

import lbt.optim
from lbt.optim import jointspar, onebit, slamb
from lbt.optim.exchange import Exchange

ALONE = {"workers": 1}


def parameters(weights, dtype=torch.float64):
    return [nn.Parameter(torch.tensor(w, dtype=dtype)) for w in weights]


def take(optimizer, params, local):
    """Collects each worker's gradients, shown in its own weights where it has some."""
    for worker, grads in enumerate(local):
        if hasattr(optimizer, "show_worker"):
            optimizer.show_worker(worker)
        for p, g in zip(params, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g, dtype=p.dtype)
        optimizer.collect(worker)


def run(name, problem, first=0, optimizer=None, **options):
    """The optimizer and its parameters after the problem's updates."""
    weights, gradients, rates = problem
    params = parameters(weights)
    groups = [{"params": [p]} for p in params] if name == "agvm" else params
    optimizer = lbt.optim.get(name)(groups, rates[0], workers=len(gradients[0]), **options)
    go_on(optimizer, params, gradients[first:], rates[first:])
    return optimizer, params


def go_on(optimizer, params, gradients, rates):
    for local, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        take(optimizer, params, local)
        optimizer.step()


def vector(params):
    return torch.cat([p.detach().flatten() for p in params]).numpy()


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("rule", ["onebit_adam", "onebit_lamb"])
def test_1bit_rules_are_the_simulators(rule, workers, weight_decay):
    problem, options = simulators.problem(workers), {"freeze_steps": 12, "weight_decay": weight_decay}
    _, params = run(rule, problem, **options)
    expected = getattr(simulators, rule)(*problem, **options)
    np.testing.assert_allclose(vector(params), expected, rtol=1e-9, atol=1e-10)
    exact = getattr(simulators, rule)(*problem, **options | {"freeze_steps": 50})
    assert np.abs(expected - exact).max() > 1e-3  # signs are not the momentum


@pytest.mark.parametrize("rule", ["onebit_adam", "onebit_lamb"])
def test_elements_that_never_had_a_gradient_count_for_no_scale(rule):
    """As the outer taps of a convolution over a map of one pixel: here five columns of six of the first layer."""
    weights, gradients, rates = simulators.problem(3)
    for local in gradients:
        for one in local:
            one[0][:, 1:] = 0.0
    problem, options = (weights, gradients, rates), {"freeze_steps": 12, "weight_decay": 0.05}
    _, params = run(rule, problem, **options)
    np.testing.assert_allclose(vector(params), getattr(simulators, rule)(*problem, **options), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("rule", "exact"), [("onebit_adam", "adam"), ("onebit_lamb", "lamb")])
def test_before_the_freeze_a_1bit_rule_is_the_exact_one(rule, exact):
    weights, gradients, rates = problem = simulators.problem(3)
    _, params = run(rule, problem, freeze_steps=50, weight_decay=0.0)
    means = [[np.mean(layer, axis=0) for layer in zip(*local, strict=True)] for local in gradients]
    others = parameters(weights)
    optimizer = lbt.optim.get(exact)(others, rates[0], weight_decay=0.0)
    for mean, rate in zip(means, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for p, g in zip(others, mean, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(vector(params), vector(others), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("workers", "k"), [(2, 0.5), (3, 0.3), (4, 0.25), (1, 0.5), (2, 1.0)])
def test_slamb_is_the_simulator(workers, k):
    problem = simulators.problem(workers)
    optimizer, params = run("slamb", problem, k=k, exchanged_below=16, average_steps=7)

    def chunks(size, count, turn):
        return slamb.chunk(size, count, turn, 0).numpy()

    expected = simulators.slamb(*problem, chunks=chunks, k=k, below=16, average_steps=7)
    for worker in range(workers):
        optimizer.show_worker(worker)
        np.testing.assert_allclose(vector(params), expected[worker], rtol=1e-8, atol=1e-9)
    assert workers == 1 or np.ptp(expected, axis=0).max() > 1e-3  # 50 is not a multiple of 7
    optimizer.eval()
    np.testing.assert_allclose(vector(params), expected.mean(0), rtol=1e-8, atol=1e-9)
    optimizer.train()
    np.testing.assert_allclose(vector(params), expected[0], rtol=1e-8, atol=1e-9)


def test_slamb_with_one_worker_and_all_of_the_momentum_is_lamb():
    weights, gradients, rates = problem = simulators.problem(1)
    _, params = run("slamb", problem, k=1.0, average_steps=1)
    others = parameters(weights)
    go = lbt.optim.LAMB(others, rates[0])
    for [grads], rate in zip(gradients, rates, strict=True):
        go.param_groups[0]["lr"] = rate
        for p, g in zip(others, grads, strict=True):
            p.grad = torch.tensor(g)
        go.step()
    np.testing.assert_allclose(vector(params), vector(others), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("steps", [7, 8])
def test_after_an_averaging_all_workers_agree(steps):
    weights, gradients, rates = simulators.problem(3, steps=steps)
    optimizer, params = run("slamb", (weights, gradients, rates), k=0.5, exchanged_below=0, average_steps=7)
    shown = []
    for worker in range(3):
        optimizer.show_worker(worker)
        shown.append(vector(params))
    assert np.array_equal(shown[0], shown[1]) == (steps == 7)


@pytest.mark.parametrize(("size", "count"), [(1, 3), (10, 3), (24, 4), (100, 10)])
def test_chunks_tile_the_vector(size, count):
    places = torch.cat([slamb.chunk(size, count, turn, 5) for turn in range(count)])
    assert sorted(places.tolist()) == list(range(size))


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_agvm_is_the_simulator(workers):
    problem = simulators.problem(workers)
    base = {"name": "sgd", "weight_decay": 0.0}
    optimizer, params = run("agvm", problem, base=base, interval=3, warmup_steps=4)
    expected, factors = simulators.agvm(*problem, interval=3, warmup_steps=4)
    np.testing.assert_allclose(vector(params), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose([float(g["agvm_factor"]) for g in optimizer.param_groups], factors, rtol=1e-9)


def noisy(noise, steps=40):
    """Three equal modules, whose gradients differ by so much between four workers."""
    rng = np.random.default_rng(3)
    weights, common = [rng.standard_normal((4, 5))] * 3, rng.standard_normal((4, 5))
    gradients = []
    for _ in range(steps):
        away = [rng.standard_normal((4, 5)) for _ in range(4)]
        gradients.append([[common + one * level for level in noise] for one in away])
    return weights, gradients, [0.01] * steps


def test_agvm_with_equal_variances_changes_nothing_and_with_planted_noise_lowers_that_modules_rate():
    base = {"name": "sgd"}
    equal, params = run("agvm", noisy((0.5, 0.5, 0.5)), base=base)
    weights, gradients, rates = noisy((0.5, 0.5, 0.5))
    others = parameters(weights)
    plain = lbt.optim.get("sgd")(others, rates[0])
    for local in gradients:
        for p, *grads in zip(others, *local, strict=True):
            p.grad = torch.tensor(np.mean(grads, axis=0))
        plain.step()
    assert [float(group["agvm_factor"]) for group in equal.param_groups] == pytest.approx([1.0] * 3)
    np.testing.assert_allclose(vector(params), vector(others), rtol=1e-9, atol=1e-12)
    planted, _ = run("agvm", noisy((0.5, 0.5, 5.0)), base=base)
    factors = [float(group["agvm_factor"]) for group in planted.param_groups]
    assert factors[:2] == pytest.approx([1.0, 1.0]) and factors[2] < 0.95


# --- signs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_signs_go_through_bytes(dtype):
    x = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[3] = 0
    packed = onebit.pack(torch.signbit(x))
    assert packed.dtype == torch.uint8 and packed.numel() == 8
    assert torch.equal(onebit.signs(packed, dtype), torch.where(x >= 0, 1, -1).to(dtype))
    eights = torch.signbit(x).view(torch.int64)  # as on a GPU
    assert torch.equal(((eights * onebit.GATHER) >> 56).to(torch.uint8), packed)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("by", ["_by_blocks", "_by_vectors"])
def test_sent_and_error_are_what_was_to_be_sent(monkeypatch, by, masked):
    monkeypatch.setattr(onebit, "_by_blocks", getattr(onebit, by))
    monkeypatch.setattr(onebit, "BLOCK", 8)
    lengths = [13, 1, 20]
    y = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y[34:] = 0
    x = torch.linspace(-1, 1, 34, dtype=torch.float64)
    error = y.clone()
    error[:34] -= x
    mask = None
    if masked:
        mask = (torch.arange(34) % 5 > 0).double()
        y[:34] *= mask
    packed, scales = onebit.compress(error, x, lengths, mask)
    sent = onebit.signs(packed, y.dtype)[:34] * onebit.spread_over(scales, lengths)
    sent = sent if mask is None else sent * mask
    assert_equal(sent + error[:34], y[:34], rtol=1e-12, atol=1e-12)
    assert (error[34:] == 0).all() and (mask is None or (error[:34][mask == 0] == 0).all())
    counts = lengths if mask is None else [float(piece.sum()) for piece in mask.split(lengths)]
    expected = [
        float(p.norm()) / count**0.5 if count else 0.0 for p, count in zip(y[:34].split(lengths), counts, strict=True)
    ]
    assert scales.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("lengths", "workers"), [([5], 4), ([24, 7, 15], 2), ([100, 1, 200], 8)])
def test_chunks_of_servers_tile_the_vector(lengths, workers):
    plan = onebit.Signs(lengths, Exchange(None, workers))
    assert sum(length for part in plan.parts for length in part) == plan.size == sum(lengths)
    assert plan.length % (8 * workers) == 0 and all(sum(part) <= plan.chunk for part in plan.parts)


@pytest.mark.parametrize("workers", [2, 8])
def test_a_1bit_update_sends_a_32nd(workers):
    p = nn.Parameter(torch.randn(4096, 64))
    optimizer = lbt.optim.OneBitAdam([p], 0.01, workers=workers, freeze_steps=1)
    sent = []
    for _ in range(2):
        for worker in range(workers):
            p.grad = torch.randn_like(p)
            optimizer.collect(worker)
        optimizer.step()
        sent.append(optimizer.bytes_sent)
    assert sent[0] == 2 * (workers - 1) / workers * 4 * p.numel()  # a ring all-reduce
    assert 0 < sent[1] - sent[0] / 32 < 100


# --- JointSpar


def test_a_weighted_gradient_is_right_in_the_mean():
    chances, gradients = [0.2, 0.5, 0.9], torch.tensor([3.0, -1.0, 4.0])
    mean = torch.zeros(3)
    for drawn in itertools.product([0, 1], repeat=3):
        likely = np.prod([p if z else 1 - p for z, p in zip(drawn, chances, strict=True)])
        mean += likely * torch.tensor([z / p for z, p in zip(drawn, chances, strict=True)]) * gradients
    assert mean.tolist() == pytest.approx(gradients.tolist(), rel=1e-6)
    # ... and that is what a step takes: plain SGD moves by the drawn gradients over their chances.
    params = parameters([np.zeros((2, 2)), np.zeros((3, 1)), np.zeros((1, 4))])
    optimizer = lbt.optim.JointSpar(params, 1.0, base={"name": "sgd", "momentum": 0.0}, share=0.5, rate=0.3)
    rested = 0
    for step in range(30):
        before, (drawn,), p = vector(params), [optimizer.drawn()], list(optimizer.chances())
        assert sum(p) == pytest.approx(1.5) and min(p) >= 0.1 and max(p) <= 1
        optimizer.begin_update()
        assert [q.requires_grad for q in params] == drawn
        take(
            optimizer,
            params,
            [[np.full(q.shape, 1.0 + step) if ok else None for q, ok in zip(params, drawn, strict=True)]],
        )
        optimizer.step()
        assert all(q.requires_grad for q in params)
        expected = np.concatenate(
            [np.full(q.numel(), z * (1.0 + step) / c) for q, z, c in zip(params, drawn, p, strict=True)]
        )
        np.testing.assert_allclose(before - vector(params), expected, rtol=1e-9)
        rested += drawn.count(False)
    assert 20 < rested < 70


def test_chances_become_proportional_to_the_norms():
    norms, chances = [1.0, 2.0, 4.0, 20.0], [0.5] * 4
    rng = np.random.default_rng(0)
    mean = np.zeros(4)
    for step in range(12000):
        drawn = rng.random(4) < chances
        if drawn.any():
            chances = jointspar.descend(chances, [n * z for n, z in zip(norms, drawn, strict=True)], 2.0, 0.05, 0.003)
        assert sum(chances) == pytest.approx(2.0)
        mean += np.array(chances) * (step >= 6000) / 6000
    assert mean.tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7, 1.0], rel=0.1)  # the last is capped


@pytest.mark.parametrize(("rule", "base"), [("jointspar", "sgd"), ("jointspar_lars", "lars")])
def test_jointspar_with_all_layers_is_its_base(rule, base):
    weights, gradients, rates = problem = simulators.problem(3)
    _, params = run(rule, problem, share=1.0)
    others = parameters(weights)
    plain = lbt.optim.get(base)(others, rates[0])
    for local, rate in zip(gradients, rates, strict=True):
        plain.param_groups[0]["lr"] = rate
        for p, *grads in zip(others, *local, strict=True):
            p.grad = torch.tensor(np.mean(grads, axis=0))
        plain.step()
    np.testing.assert_allclose(vector(params), vector(others), rtol=1e-9, atol=1e-12)


# --- what must hold of all of them

RULES = {
    "onebit_adam": {"freeze_steps": 5},
    "onebit_lamb": {"freeze_steps": 5},
    "slamb": {"k": 0.5, "exchanged_below": 0, "average_steps": 4},
    "agvm": {"interval": 3, "base": {"name": "adam"}},
    "jointspar": {"share": 0.6},
    "jointspar_lars": {"share": 0.6},
}
each = pytest.mark.parametrize("rule", RULES)


@each
def test_state_of_each_worker_in_lock_step(rule):
    weights, gradients, rates = simulators.problem(3, steps=20)
    optimizer, params = run(rule, (weights, gradients[:12], rates[:12]), **RULES[rule])
    optimizer.consolidate_state_dict()
    other, others = run(rule, (weights, [gradients[0]], [9.0]), **RULES[rule])
    other.load_state_dict(saved(optimizer))
    for p, q in zip(params, others, strict=True):
        if not hasattr(optimizer, "show_worker"):  # else the state has them
            q.data.copy_(p.data)
    go_on(optimizer, params, gradients[12:], rates[12:])
    go_on(other, others, gradients[12:], rates[12:])
    assert_equal(params, others)
    assert_equal(flat(optimizer.state_dict()), flat(other.state_dict()))
    with pytest.raises(ValueError, match=r"^Invalid state_dict: 'of 3 workers' \(must be of 2\)$"):
        run(rule, simulators.problem(2, steps=1), **RULES[rule])[0].load_state_dict(optimizer.state_dict())


@each
def test_layers_frozen_and_unfrozen(rule):
    weights, gradients, rates = simulators.problem(2, steps=24)
    frozen = [
        [[g if k or not 8 <= t < 16 else None for k, g in enumerate(one)] for one in local]
        for t, local in enumerate(gradients)
    ]
    optimizer, params = run(
        rule, (weights, frozen[:8], rates[:8]), **RULES[rule] | ({"share": 1.0} if "spar" in rule else {})
    )
    before = params[0].detach().clone()
    go_on(optimizer, params, frozen[8:16], rates[8:16])
    assert torch.equal(params[0], before)
    go_on(optimizer, params, frozen[16:], rates[16:])
    assert not torch.equal(params[0], before) and all(p.isfinite().all() for p in params)


@each
def test_a_worker_without_images_counts_as_one_with_a_zero_gradient(rule):
    weights, gradients, rates = simulators.problem(3, steps=9)
    zeros = [np.zeros_like(w) for w in weights]
    told = [[*local[:2], zeros] if t % 4 == 3 else local for t, local in enumerate(gradients)]
    _, params = run(rule, (weights, told, rates), **RULES[rule])
    other, others = run(rule, (weights, [gradients[0]], rates[:1]), **RULES[rule])
    for t, (local, rate) in enumerate(list(zip(gradients, rates, strict=True))[1:], start=1):
        for group in other.param_groups:
            group["lr"] = rate
        take(other, others, local[:2] if t % 4 == 3 else local)
        other.step()
    assert_equal(params, others)


@each
def test_a_nan_of_one_worker_shows_and_raises_nothing(rule):
    weights, gradients, rates = simulators.problem(3, steps=10)
    spoilt = copy.deepcopy(gradients)
    spoilt[7][2][0][0, 0] = np.nan
    optimizer, params = run(rule, (weights, spoilt, rates), **RULES[rule] | ({"share": 1.0} if "spar" in rule else {}))
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    assert params[0].isnan().any()


@pytest.mark.parametrize("rule", ["onebit_adam", "onebit_lamb"])
def test_an_element_without_a_gradient_stays_where_it_is(rule):
    weights, gradients, rates = simulators.problem(2, steps=15)
    unused = [[[g * (np.arange(g.shape[-1]) != 1) for g in one] for one in local] for local in gradients]
    optimizer, params = run(rule, (weights, unused, rates), freeze_steps=5, weight_decay=0.0)
    for p, w in zip(params, weights, strict=True):
        moved = p.detach().numpy() != w
        assert not moved[..., 1].any() and moved[..., [0, 2]].all()
        assert (optimizer.state[p]["worker_error"][..., 1] == 0).all()


@each
def test_workers_have_to_be_collected(rule):
    params = parameters([np.ones((2, 3))])
    optimizer = lbt.optim.get(rule)(params, 0.1, workers=2)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(RuntimeError, match=r"2 workers: call collect\(worker\)"):
        optimizer.step()
    with pytest.raises(ValueError, match=r"^Invalid worker: 2 \(must be one of the 2 of this process\)"):
        optimizer.collect(2)
