"""Each rule against independent implementations, and the properties that are its own."""

import copy
import math
import sys
from pathlib import Path

import pytest
import torch

import lbt.optim
from lbt import build
from lbt.errors import UserError
from lbt.optim import CLARS, LAMB, LARC, LARS, SAM, SM3, TVLARS, Shampoo, packaged
from lbt.optim.muon import orthogonalise
from lbt.optim.shampoo import from_blocks, inverse_root, to_blocks
from lbt.optim.tvlars import phi

sys.path.insert(0, str(Path(__file__).parent))
import reference
from agreement import CASES, run

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import configure

PACKAGES = ("optax", "timm", "pytorch_optimizer")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agreement(case):
    for package in PACKAGES:
        if package in case.oracle or (package == "pytorch_optimizer" and case.rule in packaged.OPTIMIZERS):
            pytest.importorskip(package)
    assert case.largest_error() <= case.near


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
    for a, b in zip(constant, run(lambda p, lr: LARS(p, lr), *case), strict=True):
        assert a == pytest.approx(b, rel=1e-12)


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


def test_lars_nesterov_where_decay_takes_all_of_a_weight():
    """lr * ratio * wd = 1, where the fused form divides by its difference from 1."""
    case = [torch.zeros(2, 2).numpy()], [[torch.ones(2, 2).numpy()]] * 3, [20.0] * 3
    fast, slow = (
        run(lambda p, lr: LARS(p, lr, nesterov=True, weight_decay=0.05), *case, fast=f) for f in (True, False)
    )
    assert fast[0] == pytest.approx(slow[0], rel=1e-12)


def test_larc_is_never_faster_than_its_learning_rate():
    case = reference.problem()
    small = run(lambda p, lr: LARC(p, lr, eta=1e6, weight_decay=0.0), *case)  # each layer at the bound: plain SGD
    plain = run(lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), *case)
    for a, b in zip(small, plain, strict=True):
        assert a == pytest.approx(b, rel=1e-12)


def micro_batches_of(model, images, labels, parts):
    return [(len(x) / len(images), x, y) for x, y in zip(images.split(parts), labels.split(parts), strict=True)]


@pytest.mark.parametrize("parts", [[20], [10, 10], [8, 8, 4]])
def test_clars_takes_the_mean_of_the_micro_batches_norms(parts):
    """The norms once more, by torch.func on each micro-batch; the loop's way is accumulation into p.grad."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    images = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (20,), generator=generator)
    optimizer = CLARS(model.parameters(), 0.1, eta=0.02, weight_decay=0.3)
    for _ in range(3):
        weights = {k: v.detach().clone() for k, v in model.named_parameters()}

        def loss(w, x, y):
            return torch.nn.functional.cross_entropy(torch.func.functional_call(model, w, (x,)), y)

        optimizer.zero_grad()
        mean = dict.fromkeys(weights, 0.0)
        for share, x, y in micro_batches_of(model, images, labels, parts):
            for k, g in torch.func.grad(loss)(weights, x, y).items():
                mean[k] += share * float(g.norm())
            (share * torch.nn.functional.cross_entropy(model(x), y)).backward()
            optimizer.observe_micro_batch(share)
        optimizer.step()
        for k, p in model.named_parameters():
            if p.ndim > 1:
                w = float(weights[k].norm())
                wanted = 0.02 * w / (mean[k] + 0.3 * w)
                assert float(optimizer.trust_ratios()[p]) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("observed", [None, (1.0,)])
def test_clars_without_micro_batches_is_lars(observed):
    weights, gradients, rates = reference.problem()
    lars = run(lambda p, lr: LARS(p, lr), weights, gradients, rates)
    single = [[[g] for g in grads] for grads in gradients] if observed else gradients
    clars = run(lambda p, lr: CLARS(p, lr), weights, single, rates, shares=observed)
    assert all((a == b).all() for a, b in zip(lars, clars, strict=True))


def observe_two(optimizer, p, scale=1.0):
    p.grad = scale * 0.5 * torch.tensor([[3.0, 0.0]])
    optimizer.observe_micro_batch(0.5)
    p.grad = p.grad + scale * 0.5 * torch.tensor([[0.0, 4.0]])
    optimizer.observe_micro_batch(0.5)


def test_clars_by_hand_after_clipping_and_after_a_skipped_step():
    p = torch.nn.Parameter(torch.tensor([[2.0, 0.0]]))
    optimizer = CLARS([p], 0.0, eta=1.0, weight_decay=0.0)
    observe_two(optimizer, p, scale=7.0)  # the step that belongs to it never comes
    observe_two(optimizer, p, scale=10.0)
    p.grad = p.grad / 10.0  # by a gradient scaler or a clip
    optimizer.step()
    assert float(optimizer.trust_ratios()[p]) == pytest.approx(2 / 3.5)  # mean of 3 and 4, not 2.5, the mean's norm
    p.grad = torch.tensor([[3.0, 0.0]])
    optimizer.step()
    assert float(optimizer.trust_ratios()[p]) == pytest.approx(2 / 3)  # forgotten
    optimizer.observe_micro_batch(0.5)
    with pytest.raises(RuntimeError, match=r"only 0\.5 of the batch"):
        optimizer.step()
    for wrong in (0.0, -1.0, 1.5, "x"):
        with pytest.raises(ValueError, match=r"^Invalid share: "):
            optimizer.observe_micro_batch(wrong)


def test_sam_climbs_by_rho_and_comes_back_exactly():
    p, still = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(2))
    optimizer = SAM([p, still], 0.1, rho=0.7, base={"name": "sgd", "momentum": 0.0})
    start = p.detach().clone()
    p.grad = torch.randn(3, 4)
    direction = p.grad / p.grad.norm()
    seen = []

    def closure():
        assert torch.is_grad_enabled()
        seen.append(p.detach().clone())
        p.grad = torch.ones_like(p)
        return "loss"

    assert optimizer.step(closure) == "loss"
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], start + 0.7 * direction)
    torch.testing.assert_close(p.detach(), start - 0.1)
    before = p.detach().clone()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(fail)
    assert torch.equal(p, before)


def test_sam_shares_groups_and_state_with_its_base():
    p, q = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3, 2))
    optimizer = SAM([p], 0.1, rho=0.2, base={"name": "tvlars", "lam": 0.5})
    optimizer.add_param_group({"params": [q], "rho": 0.0})
    for t in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (t + 1)
        p.grad, q.grad = torch.ones(2, 2), torch.ones(3, 2)
        seen = []
        optimizer.step(lambda seen=seen: seen.append((p.detach().clone(), q.detach().clone())))
        assert set(optimizer.state) == {p, q}
        assert set(optimizer.trust_ratios()) == {p, q}
    assert [group["rho"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert torch.equal(optimizer.param_groups[1]["params"][0], q)
    assert all(float(group["step"]) == 3 for group in optimizer.param_groups)
    loaded = SAM([p], 9.0, base={"name": "tvlars"})
    loaded.add_param_group({"params": [q]})
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for some in (loaded, loaded.inner, copy.deepcopy(loaded)):
        assert [group["rho"] for group in some.param_groups] == [0.2, 0.0]
        assert all(float(group["step"]) == 3 and group["lam"] == 0.5 for group in some.param_groups)
    assert loaded.param_groups is loaded.inner.param_groups
    assert loaded.state is loaded.inner.state


def test_clars_forgets_a_batch_that_was_broken_off():
    weights = []
    for broken in (False, True):
        p = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        optimizer = CLARS([p], 0.1)
        if broken:  # out of memory, say, after the first half; then everything anew in smaller parts
            p.grad = torch.tensor([[9.0, 0.0]])
            optimizer.observe_micro_batch(0.5)
        optimizer.zero_grad()
        for grad in ([1.0, 0.0], [1.0, 2.0]):
            p.grad = torch.tensor([grad])
            optimizer.observe_micro_batch(0.5)
        optimizer.step()
        weights.append(p)
    assert torch.equal(*weights)


def test_sam_checks_groups_that_come_with_and_after_it():
    def one(**settings):
        return {"params": [torch.nn.Parameter(torch.ones(2, 2))], **settings}

    with pytest.raises(ValueError, match=r"^Invalid rho: -1\.0 "):
        SAM([one(), one(rho=-1.0)], 0.1)
    optimizer = SAM([one()], 0.1)
    with pytest.raises(ValueError, match=r"^Invalid rho: nan "):
        optimizer.add_param_group(one(rho=float("nan")))
    with pytest.raises(ValueError, match=r"^Invalid params: a complex64 tensor"):
        optimizer.add_param_group({"params": torch.zeros(2, dtype=torch.complex64)})
    assert len(optimizer.param_groups) == len(optimizer.inner.param_groups) == 1


def test_sm3_bounds_adagrad_with_a_handful_of_numbers():
    p = torch.nn.Parameter(torch.zeros(4, 3, 2))
    optimizer = SM3([p], 0.1, momentum=0.0)
    squares = torch.zeros_like(p)
    for t in range(6):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
        squares += p.grad**2
        optimizer.step()
        rows, columns, depths = (optimizer.state[p][f"axis_{r}"] for r in range(3))
        bound = torch.minimum(torch.minimum(rows, columns), depths)
        assert (bound.expand_as(p) >= squares * (1 - 1e-6)).all()  # Anil et al., Claim 2
    assert sum(t.numel() for t in optimizer.state[p].values()) == 4 + 3 + 2


def test_shampoo_blocks():
    for shape in ((5, 7), (4, 3, 3, 3), (10, 1), (1, 1)):
        t = torch.randn(shape)
        for size in (1, 3, 4, 100):
            assert torch.equal(from_blocks(to_blocks(t, size), t), t)


def test_shampoo_roots():
    a = torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = a @ a.mT
    root = inverse_root(a, 0.0)
    torch.testing.assert_close(root @ root @ root @ root @ a, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))
    assert torch.equal(inverse_root(torch.zeros(1, 2, 2), 1e-6), torch.eye(2)[None])


def shampoo_steps(optimizer, params, steps, first=0):
    for t in range(first, first + steps):
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i))
        optimizer.step()


def test_shampoo_unfreezes_a_layer_as_gently_as_it_starts_one():
    """Its bias is corrected by its own count; by the others' its first steps would be many times as large."""
    early, late, fresh = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(3))
    optimizer, other = Shampoo([early, late], 0.1), Shampoo([fresh], 0.1)
    shampoo_steps(optimizer, [early], 300)
    late.grad = fresh.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    optimizer.step(), other.step()
    moved, expected = (float((p.detach() - 1).norm()) for p in (late, fresh))
    assert moved == pytest.approx(expected, rel=1e-4)


def test_shampoo_takes_up_a_state_that_counted_the_groups_steps_alone():
    params, others = ([torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3))] for _ in range(2))
    optimizer, loaded = Shampoo(params, 0.1, start=2), Shampoo(others, 0.1)
    shampoo_steps(optimizer, params, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for held in state["state"].values():
        del held["step"]
    loaded.load_state_dict(state)
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p)
    shampoo_steps(optimizer, params, 3, 3), shampoo_steps(loaded, others, 3, 3)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_shampoo_of_numbers_is_what_it_is_grafted_on():
    """A 1 x 1 preconditioner is the identity after grafting."""
    case = reference.problem(shapes=((1, 1), (1,)))
    grafted = run(lambda p, lr: Shampoo(p, lr, graft="sgd", start=1, interval=1), *case)
    plain = run(lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), *case)
    for a, b in zip(grafted, plain, strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_shampoo_whitens_an_ill_conditioned_quadratic():
    """Where SGD, and Adam, crawl along the flat directions: these are not the coordinates."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q for _ in range(2))
    scale = torch.logspace(-1, 0, 6)
    best = torch.randn(6, 6, generator=generator)

    def left_over(make):
        w = torch.nn.Parameter(torch.zeros(6, 6))
        optimizer = make([w])
        for t in range(150):
            optimizer.param_groups[0]["lr"] = 0.3 * (1 - t / 150)
            optimizer.zero_grad()
            ((left * scale) @ (w - best) @ (right * scale)).pow(2).sum().backward()
            optimizer.step()
        return float((w.detach() - best).norm() / best.norm())

    assert left_over(lambda p: Shampoo(p, 0.3, start=1, interval=1, momentum=0.5)) < 0.01
    assert left_over(lambda p: torch.optim.Adam(p, 0.3)) > 0.1
    assert left_over(lambda p: torch.optim.SGD(p, 0.3, momentum=0.5)) > 0.5


def test_muon_orthogonalises():
    for shape in ((3, 5, 8), (2, 8, 5)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        values = torch.linalg.svdvals(orthogonalise(x, 5, torch.float64))
        assert values.min() > 0.6 and values.max() < 1.3


def test_without_the_package_names_work_and_building_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    lbt.optim._registry.cache_clear()
    assert {"lion", "adan", "soap", "schedulefree_sgd", "schedulefree_adamw"} <= set(lbt.optim.names())
    message = r"Lion needs the package pytorch_optimizer: pip install 'lbt\[more\]'$"
    with pytest.raises(ValueError, match=f"^{message}"):
        lbt.optim.get("lion")([torch.nn.Parameter(torch.ones(2))], 0.1)
    with pytest.raises(UserError, match=f"^optimizer: {message}"):
        build.validate(configure("optimizer=lion"))


@pytest.mark.parametrize("name", ["schedulefree_sgd", "schedulefree_adamw"])
def test_schedule_free_switches_between_iterate_and_average(name):
    pytest.importorskip("pytorch_optimizer")
    p = torch.nn.Parameter(torch.tensor([4.0], dtype=torch.float64))
    optimizer = lbt.optim.get(name)([p], 0.3)
    optimizer.eval()  # before the first step there is nothing to switch
    optimizer.train()
    for t in range(60):
        p.grad = p.detach() + (-1) ** t  # noise, which the average takes out
        optimizer.step()
    iterate = p.detach().clone()
    optimizer.eval()
    average = p.detach().clone()
    optimizer.eval()
    assert torch.equal(p, average)
    optimizer.train()
    torch.testing.assert_close(p.detach(), iterate)
    assert abs(float(average)) < 0.5
    assert not torch.equal(average, iterate)
