"""One suite for every optimizer that ``lbt.optim`` finds: what torch tests its own optimizers for."""

import copy
import inspect
import io
import pickle
import typing

import pytest
import torch

import lbt.optim

# extra constructor arguments, only so that an optimizer's rarer parts take part; an optimizer needs no line here
EXTRA = {
    "lars": [{}, {"denominator": "joint", "momentum_placement": "outside", "nesterov": True}, {"momentum": 0.0}],
    "lamb": [{}, {"grad_clip": 0.5, "ratio_clip": 1.0, "exclude_1d": True}, {"adapt": False}],
    "tvlars": [{"lam": 0.3}, {"lam": 0.3, "delay_steps": None, "phi_scope": "adapted", "norm_clamp": 1.0}],
    "sgd": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_1d": False}],
}
CASES = [(name, options) for name in lbt.optim.names() for options in EXTRA.get(name, [{}])]
LR = 0.05
each = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}{i}" for i, (n, _) in enumerate(CASES)])
pytestmark = pytest.mark.filterwarnings("error")


def tensors(dtype=torch.float64, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3, 3, 3), (5, 7), (6,), (1,), (2, 0))
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in shapes]


def give_gradients(params, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)


def walk(optimizer, params, steps=7, start=0):
    for t in range(start, start + steps):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(LR * (1 + t % 3))
            else:
                group["lr"] = LR * (1 + t % 3)
        give_gradients(params, t)
        optimizer.step()
    return [p.detach().clone() for p in params]


def make(name, params, options, lr=LR):
    return lbt.optim.get(name)(params, lr=lr, **options)


def assert_equal(left, right, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(list(left), list(right), **tolerance)


def flat(tree):
    """Tensors and numbers of a state_dict, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in flat(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for item in tree for leaf in flat(item)]
    return [torch.as_tensor(tree, dtype=torch.float64)] if isinstance(tree, int | float | torch.Tensor) else []


def saved(optimizer):
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def use_plain_path(optimizer):
    optimizer.fast_cpu = False
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"], group["foreach"] = False, False


def test_names():
    assert {"lars", "lamb", "tvlars", "sgd", "nesterov", "adam", "adamw"} <= set(lbt.optim.names())
    assert lbt.optim.get("lars") is lbt.optim.LARS
    with pytest.raises(KeyError):
        lbt.optim.get("larz")


@pytest.mark.parametrize("name", lbt.optim.names())
def test_arguments_are_annotated(name):
    factory = lbt.optim.get(name)
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    first, second, *options = inspect.signature(factory).parameters.values()
    assert (first.name, second.name) == ("params", "lr")
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert hints[option.name] in (
            float, float | None, bool, int, int | None, str, tuple[float, float]
        ), option.name  # fmt: skip


WRONG = {
    "lr": [-1.0, float("nan"), float("inf"), "abc", torch.tensor(-0.5)],
    "momentum": [1.0, -0.1],
    "weight_decay": [-0.1, float("nan")],
    "eps": [-1e-8],
    "eta": [0.0],
    "betas": [(1.0, 0.9), (0.9, -0.1), 0.9, (0.9,)],
    "denominator": ["product"],
    "momentum_placement": ["nowhere"],
    "phi_scope": ["none"],
    "norm_clamp": [0.0],
    "ratio_clip": [-1.0],
    "grad_clip": [0.0],
    "alpha": [0.0],
    "lam": [-1.0],
    "delay_steps": [-1],
    "floor": [-0.1],
}


@pytest.mark.parametrize("name", lbt.optim.names())
def test_bad_arguments(name):
    factory = lbt.optim.get(name)
    for argument in inspect.signature(factory).parameters.keys() & WRONG.keys():
        for value in WRONG[argument]:
            with pytest.raises(ValueError, match=f"^Invalid {argument}: ") as caught:
                factory(tensors(), **({"lr": LR} | {argument: value}))
            shown = repr(value.item() if isinstance(value, torch.Tensor) else value)
            assert shown in str(caught.value)


@each
def test_complex_and_sparse_refused(name, options):
    for dtype in (torch.complex64, torch.int64):
        bad = torch.zeros(3, 3).to(dtype)
        with pytest.raises(ValueError, match=f"^Invalid params: a {str(dtype)[6:]} tensor"):
            make(name, [bad], options)
    with pytest.raises(ValueError, match=r"^Invalid params: a sparse tensor"):
        make(name, [torch.eye(3).to_sparse()], options)
    p = torch.nn.Parameter(torch.eye(3))
    p.grad = torch.eye(3).to_sparse()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="sparse"):
        make(name, [p], options).step()
    assert torch.equal(p, before)


@each
def test_groups_equal_one_group(name, options):
    single, several = tensors(), tensors()
    one = walk(make(name, iter(single), options), single)
    two = walk(make(name, [{"params": several[:2]}, {"params": several[2:], "lr": 7.0}], options), several)
    assert_equal(one, two, rtol=1e-12, atol=1e-14)


@each
def test_none_gradients_and_frozen_layers(name, options):
    params, fewer = tensors(), tensors()[1:]
    optimizer, smaller = make(name, params, options), make(name, fewer, options)
    before = params[0].detach().clone()
    for t in range(4):
        give_gradients(params, t)
        params[0].grad = None
        for mine, other in zip(params[1:], fewer, strict=True):
            other.grad = mine.grad.clone()
        optimizer.step()
        smaller.step()
    assert torch.equal(params[0], before)
    assert not optimizer.state.get(params[0])
    assert_equal(params[1:], fewer, rtol=1e-12, atol=1e-14)
    walk(optimizer, params, 2, 4)  # unfrozen
    assert not torch.equal(params[0], before)
    assert all(torch.isfinite(p).all() for p in params)
    optimizer.zero_grad()
    still = [p.detach().clone() for p in params]
    optimizer.step()
    assert_equal(params, still)


@each
def test_zero_gradients_and_weights(name, options):
    params = tensors()
    with torch.no_grad():
        params[0].zero_()
    optimizer = make(name, params, options)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(params[0], torch.zeros_like(params[0]))
    walk(optimizer, params, 2)
    assert all(torch.isfinite(p).all() for p in params)
    assert params[0].abs().max() > 0  # zero weights are not a trap


@each
def test_tensor_lr_equals_float_lr(name, options):
    floats, boxed = tensors(), tensors()
    a = walk(make(name, floats, options), floats)
    b = walk(make(name, boxed, options, lr=torch.tensor(LR, dtype=torch.float64)), boxed)
    assert_equal(a, b, rtol=1e-9, atol=1e-12)


@each
def test_fast_path_equals_foreach(name, options):
    quick, plain = tensors(), tensors()
    fast, slow = make(name, quick, options), make(name, plain, options)
    use_plain_path(slow)
    assert_equal(walk(fast, quick), walk(slow, plain), rtol=1e-9, atol=1e-12)
    assert_equal(flat(fast.state_dict()["state"]), flat(slow.state_dict()["state"]), rtol=1e-9, atol=1e-12)


@each
@pytest.mark.parametrize("where", ["param", "gradient", "channels_last"])
def test_memory_layout_does_not_matter(name, options, where):
    plain = tensors()
    expected = walk(make(name, plain, options), plain)
    odd = tensors()
    if where == "param":
        odd = [torch.nn.Parameter(torch.stack([p.data, p.data], -1)[..., 0]) for p in odd]
        assert not odd[1].is_contiguous()
    if where == "channels_last":
        odd[0] = torch.nn.Parameter(odd[0].data.to(memory_format=torch.channels_last))
    optimizer = make(name, odd, options)
    if where == "gradient" and not hasattr(optimizer, "trust_ratios"):
        pytest.skip("torch's own fused kernels need the gradient's layout that autograd guarantees")
    for t in range(7):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 + t % 3)
        give_gradients(odd, t)
        for p in odd:
            if where == "gradient":
                p.grad = torch.stack([p.grad, p.grad], -1)[..., 0]
            elif where == "channels_last" and p.ndim == 4:
                p.grad = p.grad.to(memory_format=torch.channels_last)
        optimizer.step()
    assert_equal(odd, expected, rtol=1e-9, atol=1e-12)


@each
def test_mixed_dtypes(name, options):
    kinds = (torch.float64, torch.float32, torch.bfloat16)
    mixed = [tensors(kind)[i % 4] for i, kind in enumerate(kinds * 3)]
    alone = [[p.detach().clone().requires_grad_() for p in mixed if p.dtype == kind] for kind in kinds]
    options = {k: v for k, v in options.items() if k != "grad_clip"}  # a global norm couples them
    walk(make(name, mixed, options), mixed, 1)
    for kind, params in zip(kinds, alone, strict=True):
        for p, q in zip(params, [p for p in mixed if p.dtype == kind], strict=True):
            p.grad = q.grad.clone()
        make(name, params, options).step()
        assert_equal(params, [p for p in mixed if p.dtype == kind])


@each
def test_low_precision_follows_double(name, options):
    exact, coarse = tensors(), tensors(torch.bfloat16)
    with torch.no_grad():
        for p, q in zip(exact, coarse, strict=True):
            p.copy_(q)
    for fast in (True, False):
        optimizer = make(name, coarse, options)
        if not fast:
            use_plain_path(optimizer)
        before = [p.detach().double().clone() for p in coarse]
        moved = torch._foreach_sub(walk(make(name, exact, options), exact, 3), before)
        found = [b.double() - a for a, b in zip(before, walk(optimizer, coarse, 3), strict=True)]
        for want, got in zip(moved, found, strict=True):
            assert (want - got).abs().sum() <= 0.15 * want.abs().sum() + 0.05 * want.numel()
        with torch.no_grad():
            for p, q in zip(exact, coarse, strict=True):
                p.copy_(q)


def resume(optimizer, params, rebuild):
    walk(optimizer, params, 3)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = rebuild(optimizer, others)
    assert_equal(walk(optimizer, params, 4, 3), walk(other, others, 4, 3))
    assert_equal(flat(optimizer.state_dict()), flat(other.state_dict()))


@each
def test_state_dict_in_lock_step(name, options):
    def rebuild(optimizer, params):
        other = make(name, params, {}, lr=9.0)
        other.load_state_dict(saved(optimizer))
        return other

    params = tensors()
    if options.get("decay_1d", True):  # else the groups differ
        resume(make(name, params, options), params, rebuild)


@each
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_go_on_alike(name, options, how):
    params = tensors()
    optimizer = make(name, params, options)
    walk(optimizer, params, 3)
    twins, twin = how((params, optimizer))
    assert_equal(walk(optimizer, params, 4, 3), walk(twin, twins, 4, 3))
    assert_equal(flat(optimizer.state_dict()), flat(twin.state_dict()))


@each
def test_older_state_without_newer_keys(name, options):
    params = tensors()
    optimizer = make(name, params, {})
    walk(optimizer, params, 2)
    old = optimizer.state_dict()
    needed = {"params", "lr", "weight_decay", "betas", "momentum", "step", "eps"}
    optional = set(old["param_groups"][0]) - needed
    if not hasattr(optimizer, "trust_ratios"):
        optional &= {"maximize", "foreach", "capturable", "differentiable", "fused"}
    for group in old["param_groups"]:
        for key in optional:
            del group[key]
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = make(name, others, {})
    other.load_state_dict(copy.deepcopy(old))
    assert_equal(walk(optimizer, params, 2, 2), walk(other, others, 2, 2), rtol=1e-9, atol=1e-12)


@each
def test_counters_of_a_resumed_run_matter(name, options):
    """A counter which were lost on the way would show: fresh state gives other weights."""
    params = tensors()
    optimizer = make(name, params, options)
    walk(optimizer, params, 3)
    if not any("step" in group for group in optimizer.param_groups):
        pytest.skip("keeps no counter in its groups")
    state = saved(optimizer)
    assert all(int(group["step"]) == 3 for group in state["param_groups"])
    for group in state["param_groups"]:
        group["step"] = torch.tensor(0.0)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = make(name, others, options)
    other.load_state_dict(state)
    with_counter, without = walk(optimizer, params, 1, 3), walk(other, others, 1, 3)
    same = any(options.get(k) is False for k in ("bias_correction",))
    assert same or not all(torch.equal(a, b) for a, b in zip(with_counter, without, strict=True))


@each
def test_closure_and_hooks(name, options):
    params = tensors()
    optimizer = make(name, params, options)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        seen.append("closure")
        return loss

    first = optimizer.step(closure)
    assert seen == ["before", "closure", "after"]
    for _ in range(20):
        last = optimizer.step(closure)
    assert last < first
    assert optimizer.step() is None


@each
def test_grad_scaler_skips_all_of_a_bad_step(name, options):
    params = tensors(torch.float32)
    optimizer = make(name, params, options)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    walk(optimizer, params, 2)
    before, state = [p.detach().clone() for p in params], copy.deepcopy(flat(optimizer.state_dict()))
    give_gradients(params, 9)
    params[1].grad[0, 0] = float("inf")
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    scaler.update()
    assert_equal(params, before)
    assert_equal(flat(optimizer.state_dict()), state)
    give_gradients(params, 10)
    scaler.step(optimizer)
    assert not torch.equal(params[0], before[0])


@each
def test_maximize_is_the_negated_gradient(name, options):
    up, down = tensors(), tensors()
    a = walk(make(name, up, options | {"maximize": True}), up)
    optimizer = make(name, down, options)
    for t in range(7):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 + t % 3)
        give_gradients(down, t)
        for p in down:
            p.grad.neg_()
        optimizer.step()
    assert_equal(a, down, rtol=1e-9, atol=1e-12)


@each
@pytest.mark.parametrize("maximize", [True, False])
def test_gradients_are_left_alone(name, options, maximize):
    for fast in (True, False):
        params = tensors()
        optimizer = make(name, params, options | {"maximize": maximize})
        if not fast:
            use_plain_path(optimizer)
        walk(optimizer, params, 2)
        give_gradients(params, 5)
        kept = [(p.grad, p.grad.clone()) for p in params]
        optimizer.step()
        for p, (tensor, value) in zip(params, kept, strict=True):
            assert p.grad is tensor
            assert torch.equal(p.grad, value)


@each
def test_effective_rate_is_readable(name, options):
    params = tensors()
    optimizer = make(name, params, options)
    walk(optimizer, params, 1)
    for group in optimizer.param_groups:
        assert float(group["lr"] * group.get("lr_factor", 1.0)) > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
def test_cuda_graph(name, options):
    rate = torch.tensor(LR, device="cuda")
    eager, captured = tensors(torch.float32, device="cuda"), tensors(torch.float32, device="cuda")
    plain, graphed = make(name, eager, options, lr=rate.clone()), make(name, captured, options, lr=rate.clone())
    give_gradients(captured, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graphed.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    static = [p.grad for p in captured]
    with torch.cuda.graph(graph):
        graphed.step()
    for t in range(1, 7):
        graphed.param_groups[0]["lr"].fill_(LR * (1 + t % 3))
        fresh = tensors(torch.float32, device="cuda")
        give_gradients(fresh, t)
        for held, new in zip(static, fresh, strict=True):
            held.copy_(new.grad)
        graph.replay()
    assert_equal(walk(plain, eager), captured, rtol=1e-5, atol=1e-6)
