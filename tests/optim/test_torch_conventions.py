"""What torch's own suite asks of each of its optimizers, asked of every choice here, beyond test_suite.py."""

import copy
import math

import pytest
import torch
from test_suite import CASES, LR, assert_equal, build, each, flat, give_gradients, make, take_step, tensors, walk
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import lbt.optim
from lbt.optim.layerwise import LayerwiseOptimizer

pytestmark = pytest.mark.filterwarnings("error")
all_names = pytest.mark.parametrize("name", lbt.optim.names())
START = {"shampoo": {"start": 1, "interval": 1}}
OURS = {"lars", "tvlars", "larc", "clars", "lamb", "sm3", "shampoo", "muon", "onebit_adam", "onebit_lamb", "slamb"}


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3)).to(dtype)


def train(net, optimizer, steps, first=0):
    for t in range(first, first + steps):
        x = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(t)).to(next(net.parameters()).dtype)

        def closure(x=x):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        take_step(optimizer, closure)
    optimizer.zero_grad()


@all_names
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_rate_in_a_tensor_of_one_element(name, shape):
    floats, boxed = network(), network()
    options = START.get(name, {})
    train(floats, build(name, floats.parameters(), lr=LR, **options), 4)
    train(boxed, build(name, boxed.parameters(), lr=torch.full(shape, LR), **options), 4)
    assert_equal(floats.parameters(), boxed.parameters(), rtol=1e-4, atol=1e-6)


@all_names
def test_a_rate_of_several_elements(name):
    with pytest.raises(ValueError, match=r"^Invalid lr: \(2,\) "):
        build(name, tensors(), lr=torch.ones(2))


@all_names
def test_a_bare_tensor_is_no_list_of_parameters(name):
    with pytest.raises(TypeError) as theirs:
        torch.optim.SGD(nn.Parameter(torch.ones(2)))
    with pytest.raises(TypeError) as ours:
        build(name, nn.Parameter(torch.ones(2)), lr=LR)
    assert str(ours.value).split(", but got ")[0] == str(theirs.value).split(", but got ")[0]


@each
def test_global_hooks_are_called_once_a_step(name, options):
    seen = []
    hooks = [
        register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(("before", optimizer))),
        register_optimizer_step_post_hook(lambda optimizer, *_: seen.append(("after", optimizer))),
    ]
    try:
        params = tensors()
        optimizer = make(name, params, options)
        walk(optimizer, params, 2)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == [("before", optimizer), ("after", optimizer)] * 2


@each
def test_hooks_of_state_dicts(name, options):
    params, seen = tensors(), []
    optimizer = make(name, params, options)
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: state | {"more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: {k: v for k, v in state.items() if k != "more"})
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    walk(optimizer, params, 2)
    state = optimizer.state_dict()
    assert state["more"] == 1
    optimizer.load_state_dict(state)
    assert seen == ["saving", "loaded"]


@each
def test_another_default_device_and_dtype(name, options):
    """What an optimizer makes lies where its parameters are; on "meta" anything else would fail."""
    plain, elsewhere = tensors(), tensors()
    one = make(name, plain, options)
    with torch.device("meta"):
        other = make(name, elsewhere, options)
    for t in range(3):
        take_step(one, lambda t=t: give_gradients(plain, t))
        give_gradients(elsewhere, t)
        kept = [p.grad for p in elsewhere]

        def give(kept=kept):
            for p, grad in zip(elsewhere, kept, strict=True):
                p.grad = grad

        if getattr(other, "needs_closure", False):  # at another point: another gradient, made without the default
            with torch.device("cpu"):
                other.step(lambda t=t: give_gradients(elsewhere, t))
        else:
            with torch.device("meta"):
                other.step()
        with torch.device("meta"):
            other.load_state_dict(copy.deepcopy(other.state_dict()))
    assert_equal(plain, elsewhere)
    torch.set_default_dtype(torch.float64)
    try:
        walk(make(name, singles := tensors(torch.float32), options), singles, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.isfinite(p).all() for p in singles)


@each
def test_it_can_be_printed(name, options):
    params = tensors()
    optimizer = make(name, params, options)
    walk(optimizer, params, 1)
    assert "Parameter Group 0" in repr(optimizer) and "lr" in repr(optimizer)


@each
def test_names_of_parameters_are_kept_and_loading_does_not_need_them(name, options):
    params, others = tensors(), tensors()
    optimizer = make(name, [(f"layer{i}", p) for i, p in enumerate(params)], options)
    walk(optimizer, params, 2)
    state = optimizer.state_dict()
    assert sum(group["param_names"].count("layer0") for group in state["param_groups"]) == 1
    structure = {key: options[key] for key in ("decay_1d", "base") if key in options}
    loaded = make(name, others, structure)
    loaded.load_state_dict(copy.deepcopy(state))
    assert_equal(flat(loaded.state_dict()["state"]), flat(state["state"]))


@all_names
def test_distributed_checkpoints_load_into_a_fresh_optimizer(name):
    """By torch's functions, which fill the state by a step with gradients of zero and without a closure."""
    functions = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    net, other, options = network(dtype=torch.float64), network(1, torch.float64), START.get(name, {})
    optimizer = build(name, net.parameters(), lr=LR, **options)
    train(net, optimizer, 3)
    other.load_state_dict(net.state_dict())
    loaded = build(name, other.parameters(), lr=9.0, **options)
    functions.set_optimizer_state_dict(other, loaded, copy.deepcopy(functions.get_optimizer_state_dict(net, optimizer)))
    train(net, optimizer, 3, 3)
    train(other, loaded, 3, 3)
    assert_equal(net.parameters(), other.parameters())


@all_names
@pytest.mark.parametrize("subclass", [False, True])
def test_numbers_and_tensors_of_another_class(name, subclass):
    class Marked(torch.Tensor):
        pass

    def steps(change):
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(change(torch.randn(s, generator=generator))) for s in ((4, 3), (), (5, 0))]
        optimizer = build(name, params, lr=LR, **START.get(name, {}))
        for _ in range(3):
            grads = [change(torch.randn(p.shape, generator=generator)) for p in params]

            def give(grads=grads):
                for p, grad in zip(params, grads, strict=True):
                    p.grad = grad + 0  # another tensor

            take_step(optimizer, give)
        return [p.detach().as_subclass(torch.Tensor) for p in params]

    plain = steps(lambda t: t)
    assert all(torch.isfinite(p).all() for p in plain)
    if subclass:
        assert_equal(steps(lambda t: t.as_subclass(Marked)), plain, rtol=1e-4, atol=1e-6)


@all_names
def test_layers_that_are_not_initialised_yet(name):
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2))
    optimizer = build(name, net.parameters(), lr=LR)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    def closure():
        optimizer.zero_grad()
        net(x).square().sum().backward()

    take_step(optimizer, closure)
    before = [p.detach().clone() for p in net.parameters()]
    take_step(optimizer, closure)
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_without_decay_of_biases_a_lazy_layer_needs_its_shape():
    with pytest.raises(ValueError, match=r"decay_1d=False needs layers with a shape"):
        lbt.optim.get("sgd")(nn.LazyLinear(2).parameters(), 0.1, decay_1d=False)


@pytest.mark.parametrize("name", sorted(OURS | {"sgd", "nesterov"}))
def test_a_model_cast_after_a_step(name):
    params = tensors(torch.float32)
    optimizer = build(name, params, lr=LR, **START.get(name, {}))
    walk(optimizer, params, 2)
    exact = tensors()
    for p, q in zip(params, exact, strict=True):
        p.data = p.data.bfloat16()
        q.data = p.data.double()
    twin = build(name, exact, lr=LR, **START.get(name, {}))
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    start = [p.detach().clone() for p in exact]
    for p, q, s in zip(walk(optimizer, params, 3, 2), walk(twin, exact, 3, 2), start, strict=True):
        assert (p.double() - q).abs().sum() <= 0.15 * (q - s).abs().sum() + 0.05 * q.numel()


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw"])
def test_fused_kernels_only_where_every_tensor_lies_alike(name):
    """A gradient, or a state from before a change of format, in another order of memory."""

    def steps(fused, gradient=None, change_at=None):
        generator = torch.Generator().manual_seed(0)
        p = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last))
        optimizer = build(name, [p], lr=LR)
        optimizer.cpu_kernels = fused
        for t in range(5):
            if t == change_at:
                p.data = p.data.contiguous()
            p.grad = torch.randn(4, 3, 2, 2, generator=generator)
            if gradient:
                p.grad = p.grad.to(memory_format=gradient)
            optimizer.step()
        return p.detach().contiguous(), optimizer

    plain, _ = steps(False)
    for gradient, change_at in ((None, None), (torch.channels_last, 3), (torch.channels_last, None)):
        found, optimizer = steps(True, gradient, change_at)
        torch.testing.assert_close(found, plain)
    assert optimizer.param_groups[0]["fused"]  # in the last of them all lie alike


def moved(name, dtype, scale, options):
    """What three steps with gradients of a size change, in float64; the weights are the same for every dtype."""
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(40, 30, generator=generator).to(torch.float16).to(dtype))
    start = p.detach().double().clone()
    optimizer = build(name, [p], lr=0.1, **options)
    for _ in range(3):
        grad = (torch.randn(40, 30, generator=generator).clamp(-3, 3) * scale).to(torch.bfloat16)

        def give(grad=grad):
            p.grad = grad.to(dtype)

        take_step(optimizer, give)
    return p.detach().double() - start


OVERFLOW = [  # sizes of gradients of which the norm, or its square, is no number of the type
    ("lars", {"eta": 1.0}), ("tvlars", {"eta": 1.0, "denominator": "joint"}), ("larc", {"eta": 1.0}),
    ("clars", {"eta": 1.0}), ("muon", {"ns_precision": "full", "scale": "original"}), ("lamb", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OVERFLOW, ids=[name for name, _ in OVERFLOW])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float16, 1e4),
        (torch.float16, 1e-6),
        (torch.bfloat16, 1e30),
        (torch.float32, 1e30),
        (torch.float32, 1e-24),
    ],
    ids=str,
)
def test_norms_out_of_range_do_not_stop_a_layer(name, options, dtype, scale):
    if dtype == torch.float16 and not 1e-7 < scale < 1e5:
        pytest.skip("no gradients of this type")
    if name == "lamb" and dtype != torch.float16:
        scale = min(max(scale, 1e-15), 1e17)  # its second moments are squares of gradients, as in Adam
    if name == "muon" and scale < 1e-7:
        pytest.skip("its normalisation has a floor of 1e-7")
    if name == "larc" and dtype == torch.float16 and scale < 1:
        pytest.skip("no faster than SGD: such steps are lost in the weights' own rounding")
    expected = moved(name, torch.float64, scale, options)
    if dtype == torch.float16 and scale < 1e-5:  # what is left of such gradients in float16 is coarse
        assert moved(name, dtype, scale, options).norm() > 0.3 * expected.norm()
        return
    near = 0.15 if dtype == torch.bfloat16 else 0.03  # the weights' own rounding
    assert (moved(name, dtype, scale, options) - expected).norm() <= near * expected.norm()


@pytest.mark.parametrize("name", ["lamb", "shampoo", "sm3", "lars"])
@pytest.mark.parametrize("fast", [True, False])
def test_float16_is_computed_with_and_remembered_in_float32(name, fast):
    options = START.get(name, {})
    exact, coarse = tensors(), tensors(torch.float16)
    for p, q in zip(exact, coarse, strict=True):
        p.data = q.data.double()
    one, other = build(name, exact, lr=LR, **options), build(name, coarse, lr=LR, **options)
    other.cpu_kernels = fast
    start = [p.detach().clone() for p in exact]
    for p, q, s in zip(walk(one, exact, 3), walk(other, coarse, 3), start, strict=True):
        assert (p - q.double()).abs().sum() <= 0.02 * (p - s).abs().sum() + 1e-2 * p.numel()
    state = copy.deepcopy(other.state_dict())
    others = [nn.Parameter(p.detach().clone()) for p in coarse]
    loaded = build(name, others, lr=9.0, **options)
    loaded.load_state_dict(state)
    held = [v for s in loaded.state.values() for k, v in s.items() if isinstance(v, torch.Tensor) and k != "step"]
    assert all(v.dtype == torch.float32 for v in held)
    assert_equal(walk(other, coarse, 2, 3), walk(loaded, others, 2, 3))


@pytest.mark.parametrize("clear", ["None", "zero", "never"])
def test_sam_of_a_trainer_that_hands_the_whole_step_over(clear):
    """Nothing is computed before ``step(closure)``: as if it had been."""

    def run(before):
        net = network(dtype=torch.float64)
        optimizer = lbt.optim.SAM(net.parameters(), 0.05, rho=0.5)
        calls, losses = 0, []
        for t in range(4):
            x = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)

            def closure(x=x):
                nonlocal calls
                calls += 1
                net.zero_grad() if clear == "never" else optimizer.zero_grad(set_to_none=clear == "None")
                loss = net(x).square().mean()
                loss.backward()
                return loss.detach()

            losses.append(closure()) if before else None
            found = optimizer.step(closure)
            losses.append(found) if not before else None
            if clear == "zero":
                optimizer.zero_grad(set_to_none=False)
        assert calls == 8
        return [*net.parameters(), *losses]

    assert_equal(run(True), run(False))


def test_sam_without_a_closure_steps_only_where_there_is_no_climb():
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = lbt.optim.SAM([p], 0.1, base={"name": "sgd", "weight_decay": 0.5})
    p.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2, 2), 0.95))
    p.grad = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match="needs a closure"):
        optimizer.step()


@all_names
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step(name):
    """Traced and run op by op, without a compiler, and by fake tensors, for which torch's CPU kernels do not exist."""
    torch._dynamo.reset()
    # A kernel, a bias and a number: tracing takes a while for each tensor.
    plain, traced = ([tensors(torch.float32)[i] for i in (0, 2, 3)] for _ in range(2))
    one, other = (build(name, some, lr=torch.tensor(LR), **START.get(name, {})) for some in (plain, traced))
    step = torch.compile(other.step, backend="aot_eager")
    for t in range(3):
        for params, go in ((plain, one.step), (traced, step)):

            def give(params=params, t=t):
                give_gradients(params, t)

            give()
            go(give) if getattr(other, "needs_closure", False) else go()
    assert_equal(plain, traced, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


def test_asam_by_its_authors_rule():
    """T = |w| + 0.01 for weights, 1 for biases; the radius in units of T."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in ((4, 3), (4,))]
    optimizer = lbt.optim.SAM(params, 0.1, rho=0.5, adaptive=True)
    start = [p.detach().clone() for p in params]
    give_gradients(params, 0)
    scales = [start[0].abs() + 0.01, torch.ones_like(start[1])]
    away = []
    optimizer.step(lambda: away.extend(p.detach() - s for p, s in zip(params, start, strict=True)))
    assert math.isclose(
        sum(float((e / t).square().sum()) for e, t in zip(away, scales, strict=True)), 0.25, rel_tol=1e-9
    )
    grads = [p.grad for p in params]
    assert_equal(
        [e / away[0].norm() for e in away],
        [t**2 * g / (scales[0] ** 2 * grads[0]).norm() for t, g in zip(scales, grads, strict=True)],
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip


def test_every_choice_is_here():
    assert {name for name, _ in CASES} == set(lbt.optim.names())
    kinds = {name for name in lbt.optim.names() if isinstance(lbt.optim.get(name), type)}
    assert {name for name in kinds if issubclass(lbt.optim.get(name), LayerwiseOptimizer)} == OURS
