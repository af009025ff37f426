"""One suite for every optimizer that ``lbt.optim`` finds: what torch tests its own optimizers for.

``python -m lbt.suite my_module`` runs it on those of a plug-in, which it names in ``$LBT_SUITE``.
"""

import copy
import inspect
import io
import pickle
import typing
import warnings
from functools import partial

import pytest
import torch

import lbt.optim
from lbt import suite
from lbt.optim.layerwise import LayerwiseOptimizer

# extra constructor arguments, only so that an optimizer's rarer parts take part; an optimizer needs no line here
EXTRA = {
    "lars": [{}, {"denominator": "joint", "momentum_placement": "outside", "nesterov": True}, {"momentum": 0.0},
             {"fused": True, "denominator": "joint", "nesterov": True}],
    "lamb": [{}, {"grad_clip": 0.5, "ratio_clip": 1.0, "exclude_1d": True}, {"unit_ratio": True},
             {"fused": True, "grad_clip": 0.5, "exclude_1d": True}],
    "tvlars": [{"lam": 0.3}, {"lam": 0.3, "delay_steps": None, "phi_scope": "adapted", "norm_clamp": 1.0},
               {"lam": 0.3, "phi_scope": "adapted", "fused": True}],
    "sgd": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_1d": False}],
    "larc": [{}, {"eta": 1.0, "momentum_placement": "inside", "nesterov": True}],
    "clars": [{}, {"nesterov": True}],
    "sam": [
        {}, {"rho": 0.5, "adaptive": True, "base": {"name": "lamb", "exclude_1d": True}},
        {"base": {"name": "schedulefree_sgd"}},
    ],
    "sm3": [{}, {"momentum": 0.0, "weight_decay": 0.1}],
    "muon": [{}, {"ns_precision": "full", "scale": "original", "nesterov": False}],
    "shampoo": [
        {"start": 2, "interval": 2, "eps": 1e-3},
        {"start": 1, "interval": 1, "block": 4, "graft": "sgd", "nesterov": True},
        {"graft": "none", "start": 1, "interval": 1, "momentum": 0.0, "weight_decay": 0.1},
    ],
    "lion": [{}, {"weight_decay": 0.1}],
    "adan": [{}, {"weight_decay": 0.1}],
    "soap": [{"precondition_frequency": 2}],
    "schedulefree_adamw": [{}, {"warmup_steps": 3, "weight_decay": 0.1}],
    "onebit_adam": [{}, {"freeze_steps": 2, "weight_decay": 0.1}],
    "onebit_lamb": [{"freeze_steps": 2, "betas": (0.9, 0.95)}],
    "slamb": [{}, {"k": 0.3, "exchanged_below": 0, "average_steps": 3}],
    "agvm": [{}, {"base": {"name": "adam"}, "interval": 1}],
    # Who is drawn depends on all layers; resumed draws: test_workers.py.
    "jointspar": [{"share": 1.0}, {"share": 1.0, "base": {"name": "lamb"}}],
    "jointspar_lars": [{"share": 1.0}],
}  # fmt: skip
# (optimizer, how the test's id begins): why the property does not hold. Each is expected to fail: one that is mended
# has to leave the list.
COUNTS = "the package counts steps on the host"
PHASES = "a layer's steps are counted on the host, which changes what is sent"
ONE_SCALE = "one scale serves all layers of a group on the way"
EXCEPTIONS = {
    ("sam", "test_cuda_graph"): "the closure's gradients would have to be captured too: that is the loop's to do",
    ("shampoo", "test_cuda_graph"): "the eigendecomposition cannot be captured; refused with a clear error",
    ("shampoo", "test_no_step_waits"): "the eigendecomposition waits for the device",
    ("adan", "test_cuda_graph"): COUNTS,
    ("soap", "test_cuda_graph"): COUNTS,
    ("soap", "test_no_step_waits"): "the eigendecomposition waits for the device",
    ("soap", "test_a_training_that_diverges"): "the package's eigendecomposition refuses what is not finite",
    ("soap", "test_cuda_equals_cpu"): "the package's eigenbases are found in float32",
    ("schedulefree_adamw", "test_cuda_graph"): COUNTS,
    ("schedulefree_adamw", "test_no_step_waits"): "the package reads the rate, to keep the largest",
    ("schedulefree_sgd", "test_cuda_graph"): COUNTS,
    ("schedulefree_sgd", "test_no_step_waits"): "the package reads the rate, to keep the largest",
    ("onebit_adam", "test_cuda_graph"): PHASES,
    ("onebit_lamb", "test_cuda_graph"): PHASES,
    ("onebit_lamb", "test_groups_equal_one_group"): ONE_SCALE,
    ("onebit_lamb", "test_parameters_may_come_in_any_way"): ONE_SCALE,
    ("onebit_lamb", "test_a_training_that_diverges"): ONE_SCALE,
    ("slamb", "test_cuda_graph"): PHASES,
    ("agvm", "test_cuda_graph"): PHASES,
    ("lion", "test_counters_of_a_resumed_run_matter"): "the package keeps a counter which its rule does not use",
    ("schedulefree_sgd", "test_counters_of_a_resumed_run_matter"): "without a warm-up its rule does not count",
    ("soap", "test_memory_layout_does_not_matter[param"): "its first basis comes from one gradient: the covariance is "
    "singular, and rounding, which depends on the layout, chooses the basis of the null space",
}
NAMES = suite.names()
CASES = [(name, options) for name in NAMES for options in suite.options(EXTRA).get(name, [{}])]
LR = 0.05
each = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}{i}" for i, (n, _) in enumerate(CASES)])
# What torch asks of its optimizers, and no training of this package does: a plug-in may do without.
convention = pytest.mark.convention
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _expect_known_exceptions(request):
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    inner = (given.get("options") or {}).get("base") or {}  # what holds of an optimizer holds of one around it
    for (optimizer, test), reason in EXCEPTIONS.items():
        if optimizer in (given.get("name"), inner.get("name")) and request.node.name.startswith(test):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def tensors(dtype=torch.float64, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3, 3, 3), (5, 7), (6,), (1,), (2, 0))
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in shapes]


def give_gradients(params, seed):
    """Gradients of the step ``seed``, which lean towards the weights: where they are taken matters."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        noise = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        p.grad = noise.add_(p.detach(), alpha=0.1) if p.is_contiguous() else noise + 0.1 * p.detach().contiguous()


def take_step(optimizer, give):
    """One step with the gradients that ``give`` puts into the parameters."""
    give()
    if getattr(optimizer, "needs_closure", False):
        return optimizer.step(give)
    return optimizer.step()


def walk(optimizer, params, steps=7, start=0, change=lambda params: None):
    def give():
        give_gradients(params, t)
        change(params)

    for t in range(start, start + steps):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(LR * (1 + t % 3))
            else:
                group["lr"] = LR * (1 + t % 3)
        take_step(optimizer, give)
    return [p.detach().clone() for p in params]


def build(name, params, **options):
    try:
        return lbt.optim.get(name)(params, **options)
    except ValueError as error:
        if "lbt[more]" in str(error):
            pytest.skip(str(error))
        raise


def make(name, params, options, lr=LR):
    return build(name, params, lr=lr, **options)


def skip_without(name, argument):
    """Skips what is asked of an argument that a plug-in's optimizer lacks; the package's own have it."""
    if argument not in inspect.signature(lbt.optim.get(name)).parameters:
        assert suite.of_plugins()
        pytest.skip(f"has no argument {argument}")


def uncoupled(name, options):
    """Options without what takes a norm over all parameters."""
    coupling = {"grad_clip": None, "rho": 0.0}
    return options | {k: v for k, v in coupling.items() if k in inspect.signature(lbt.optim.get(name)).parameters}


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
    getattr(optimizer, "inner", optimizer).cpu_kernels = False
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"], group["foreach"] = False, False


def test_names():
    assert {"lars", "lamb", "tvlars", "sgd", "nesterov", "adam", "adamw"} <= set(lbt.optim.names())
    assert lbt.optim.get("lars") is lbt.optim.LARS
    with pytest.raises(KeyError):
        lbt.optim.get("larz")


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_annotated(name):
    factory = lbt.optim.get(name)
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    first, second, *options = inspect.signature(factory).parameters.values()
    assert (first.name, second.name) == ("params", "lr")
    if suite.of_plugins():
        assert {option.name for option in options} <= hints.keys()  # settings are checked by them
        return
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert hints[option.name] in (
            float, float | None, bool, int, int | None, str, dict | None, tuple[float, float],
            tuple[float, float, float],
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
    "fused": ["yes", 1],
    "alpha": [0.0],
    "lam": [-1.0],
    "delay_steps": [-1],
    "floor": [-0.1],
    "rho": [-0.1],
    "base": [{"name": "larz"}, {}, {"name": "sam"}, {"name": "lars", "etta": 1.0}],
    "ns_steps": [0, 100, 5.0],
    "ns_precision": ["fp8"],
    "scale": ["none"],
    "rest_lr": [-1.0],
    "graft": ["lars"],
    "block": [0, 1.5],
    "interval": [0],
    "start": [0],
    "graft_eps": [-1.0],
    "precondition_frequency": [0],
    "max_precondition_dim": [0],
    "warmup_steps": [-1],
    "workers": [0, 1.5],
    "freeze_steps": [-1, 1.5],
    "factor_change": [0.0],
    "ratio_low": [-1.0],
    "k": [0.0, 1.5],
    "beta3": [-0.1, 1.5],
    "average_steps": [0],
    "exchanged_below": [-1],
    "decay": [1.0],
    "share": [0.0, 1.5],
    "rate": [-0.1],
    "seed": [-1],
}


@convention
@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments(name):
    factory = lbt.optim.get(name)
    for argument in inspect.signature(factory).parameters.keys() & WRONG.keys():
        for value in WRONG[argument]:
            with pytest.raises(ValueError, match=f"^Invalid {argument}.*: ") as caught:
                build(name, tensors(), **({"lr": LR} | {argument: value}))
            if isinstance(value, dict):  # the message shows what is wrong in it
                value = "etta" if "etta" in value else value.get("name")
            shown = repr(value.item() if isinstance(value, torch.Tensor) else value)
            assert shown in str(caught.value)


@convention
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
        take_step(make(name, [p], options), lambda: None)
    assert torch.equal(p, before)


@each
def test_groups_equal_one_group(name, options):
    single, several = tensors(), tensors()
    one = walk(make(name, iter(single), options), single)
    two = walk(make(name, [{"params": several[:2]}, {"params": several[2:], "lr": 7.0}], options), several)
    assert_equal(one, two, rtol=1e-12, atol=1e-14)


@each
def test_groups_with_settings_of_their_own_equal_several_optimizers(name, options):
    known = inspect.signature(lbt.optim.get(name)).parameters
    if "weight_decay" not in known:
        pytest.skip("its settings are those of the optimizer within")
    betas = (0.7, 0.8, 0.9)[: len(known["betas"].default) if "betas" in known else 0]
    own = {"weight_decay": 0.3, "momentum": 0.5, "betas": betas, "eta": 0.02, "lam": 0.7}
    own, options = {key: value for key, value in own.items() if key in known}, uncoupled(name, options)
    together, apart = tensors(), tensors()
    grouped = make(name, [{"params": together[:1]}, {"params": together[1:], "lr": 0.3, **own}], options)
    several = make(name, apart[:1], options), make(name, apart[1:], options | own, lr=0.3)
    for t in range(7):
        for params in (together, apart):
            give_gradients(params, t)
        for optimizer in (grouped, *several):
            optimizer.step()
    assert_equal(together, apart, rtol=1e-12, atol=1e-14)


@each
def test_parameters_may_come_in_any_way_torch_takes(name, options):
    """A generator in a group among them: one that a check uses up leaves an optimizer without parameters."""
    expected = walk(make(name, plain := tensors(), options), plain)
    for arrange in (
        lambda params: [{"params": (p for p in params)}],
        lambda params: [{"params": p} for p in params],
        lambda params: ((f"layer{i}", p) for i, p in enumerate(params)),
    ):
        params = tensors()
        found = walk(make(name, arrange(params), options), params)
        assert_equal(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_parameters(name):
    with pytest.raises(ValueError, match="empty parameter list"):
        build(name, [], lr=LR)
    with pytest.raises(TypeError, match=r"can only optimize Tensors, but one of the params is .*Linear"):
        build(name, torch.nn.Sequential(torch.nn.Linear(2, 2)), lr=LR)  # forgotten: .parameters()


@each
def test_none_gradients_and_frozen_layers(name, options):
    params, fewer = tensors(), tensors()[1:]
    optimizer, smaller = make(name, params, options), make(name, fewer, options)
    before = params[0].detach().clone()

    def give_most(t):
        give_gradients(params, t)
        params[0].grad = None

    def give_fewer(t):
        twins = tensors()
        for twin, other in zip(twins[1:], fewer, strict=True):
            twin.data.copy_(other)
        give_gradients(twins, t)
        for twin, other in zip(twins[1:], fewer, strict=True):
            other.grad = twin.grad

    for t in range(4):
        take_step(optimizer, partial(give_most, t))
        take_step(smaller, partial(give_fewer, t))
    assert torch.equal(params[0], before)
    assert not optimizer.state.get(params[0])
    assert_equal(params[1:], fewer, rtol=1e-12, atol=1e-14)
    walk(optimizer, params, 2, 4)  # unfrozen
    assert not torch.equal(params[0], before)
    assert all(torch.isfinite(p).all() for p in params)
    still = [p.detach().clone() for p in params]
    take_step(optimizer, optimizer.zero_grad)
    assert_equal(params, still)


@each
def test_zero_gradients_and_weights(name, options):
    params = tensors()
    with torch.no_grad():
        params[0].zero_()
    optimizer = make(name, params, options)

    def give_zeros():
        for p in params:
            p.grad = torch.zeros_like(p)

    take_step(optimizer, give_zeros)
    assert torch.equal(params[0], torch.zeros_like(params[0]))
    walk(optimizer, params, 2)
    assert all(torch.isfinite(p).all() for p in params)
    assert params[0].abs().max() > 0  # zero weights are not a trap


@each
def test_a_training_that_diverges_does_so_without_an_error(name, options):
    """A loop finds it by the loss; an exception from within a step would look like a fault of the program."""
    params = tensors()
    optimizer = make(name, params, uncoupled(name, options))
    for bad in (float("inf"), float("nan")):

        def spoil(params, bad=bad):
            params[1].grad[0, 0] = bad

        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # Triton's interpreter, in NumPy
            walk(optimizer, params, 2, change=spoil)
    assert all(torch.isfinite(p).all() for p in (params[0], *params[2:]))  # each layer for itself


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
        odd = [strided(p) for p in odd]
        assert not odd[1].is_contiguous()
    if where == "channels_last":
        odd[0] = channels_last(odd[0])
    optimizer = make(name, odd, options)
    ours = isinstance(optimizer, LayerwiseOptimizer)
    if where == "gradient" and not ours and any(group.get("fused") for group in optimizer.param_groups):
        pytest.skip("torch's own fused kernels need the gradient's layout that autograd guarantees")

    def change(params):
        for p in params:
            if where == "gradient":
                p.grad = torch.stack([p.grad, p.grad], -1)[..., 0]
            elif where == "channels_last" and p.ndim == 4:
                p.grad = p.grad.to(memory_format=torch.channels_last)

    assert_equal(walk(optimizer, odd, change=change), expected, rtol=1e-9, atol=1e-12)


def strided(param):
    """The same parameter with every other element of memory."""
    return torch.nn.Parameter(torch.stack([param.data, param.data], -1)[..., 0])


def channels_last(param):
    return torch.nn.Parameter(param.data.to(memory_format=torch.channels_last))


@each
@pytest.mark.parametrize("other", [strided, channels_last])
def test_a_state_goes_into_another_memory_layout(name, options, other):
    structure = {key: options[key] for key in ("decay_1d", "base") if key in options}
    params = tensors()
    optimizer = make(name, params, options)
    walk(optimizer, params, 3)
    others = [other(p.detach()) if p.ndim == 4 else torch.nn.Parameter(p.detach().clone()) for p in params]
    loaded = make(name, others, structure, lr=9.0)
    loaded.load_state_dict(saved(optimizer))

    def change(params):
        if other is channels_last:  # as autograd lays them
            params[0].grad = params[0].grad.to(memory_format=torch.channels_last)

    assert_equal(walk(optimizer, params, 3, 3), walk(loaded, others, 3, 3, change), rtol=1e-9, atol=1e-12)


@convention
@each
def test_a_group_that_comes_later(name, options):
    found = []
    for layout in (lambda p: p, strided):
        params = tensors()
        params[0] = layout(params[0])
        optimizer = make(name, params[2:], options)
        walk(optimizer, params[2:], 2)
        optimizer.add_param_group({"params": params[:1], "weight_decay": 0.2})
        optimizer.add_param_group({"params": params[1:2]})
        found.append(walk(optimizer, params, 3, 2))
        assert not any(torch.equal(p, q) for p, q in zip(params[:2], tensors(), strict=False))
        with pytest.raises(ValueError, match="complex64"):
            optimizer.add_param_group({"params": torch.zeros(2, dtype=torch.complex64)})
    assert_equal(*found, rtol=1e-9, atol=1e-12)


@convention
@each
def test_a_later_group_is_checked_and_treated_as_an_early_one(name, options):
    early, late = tensors(), tensors()
    one = make(name, [{"params": early[:2]}, {"params": early[2:]}], options)
    other = make(name, late[:2], options)
    for twin in (other, copy.deepcopy(other)):
        groups = len(twin.param_groups)
        for argument in ("lr", "weight_decay"):
            if argument in inspect.signature(lbt.optim.get(name)).parameters:
                with pytest.raises(ValueError, match=f"^Invalid {argument}: -1"):
                    twin.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], argument: -1.0})
        assert len(twin.param_groups) == groups
    other.add_param_group({"params": late[2:]})
    assert_equal(walk(one, early), walk(other, late))


@each
def test_mixed_dtypes(name, options):
    kinds = (torch.float64, torch.float32, torch.bfloat16)
    mixed = [tensors(kind)[i % 4] for i, kind in enumerate(kinds * 3)]
    alone = [[p.detach().clone().requires_grad_() for p in mixed if p.dtype == kind] for kind in kinds]
    options = uncoupled(name, options)
    start = [p.detach().clone() for p in mixed]
    walk(make(name, mixed, options), mixed, 1)
    for kind, params in zip(kinds, alone, strict=True):

        def give(kind=kind, params=params):
            generators = [torch.nn.Parameter(p.clone()) for p in start]
            give_gradients(generators, 0)
            for p, q in zip(params, [p for p in generators if p.dtype == kind], strict=True):
                p.grad = q.grad

        take_step(make(name, params, options), give)
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
    structure = {key: options[key] for key in ("decay_1d", "base") if key in options}  # which groups, whose state

    def rebuild(optimizer, params):
        other = make(name, params, structure, lr=9.0)
        other.load_state_dict(saved(optimizer))
        return other

    params = tensors()
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


@convention
@each
def test_older_state_without_newer_keys(name, options):
    params = tensors()
    optimizer = make(name, params, {})
    walk(optimizer, params, 2)
    old = optimizer.state_dict()
    needed = {"params", "lr", "weight_decay", "betas", "momentum", "step", "eps"}
    optional = set(old["param_groups"][0]) - needed
    if not isinstance(optimizer, LayerwiseOptimizer):
        optional &= {"maximize", "foreach", "capturable", "differentiable", "fused", "rho", "adaptive"}
    for group in old["param_groups"]:
        for key in optional:
            del group[key]
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = make(name, others, {})
    other.load_state_dict(copy.deepcopy(old))
    assert_equal(walk(optimizer, params, 2, 2), walk(other, others, 2, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_counters_of_a_resumed_run_matter(name):
    """A counter which were lost on the way would show: fresh state gives other weights."""
    params = tensors()
    optimizer = make(name, params, {})
    walk(optimizer, params, 3)
    if not any("step" in group for group in optimizer.param_groups):
        pytest.skip("keeps no counter in its groups")
    state = saved(optimizer)
    assert all(int(group["step"]) == 3 for group in state["param_groups"])
    for holder in (*state["param_groups"], *state["state"].values()):
        if "step" in holder:
            holder["step"] = holder["step"] * 0
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = make(name, others, {})
    other.load_state_dict(state)
    with_counter, without = walk(optimizer, params, 1, 3), walk(other, others, 1, 3)
    assert not all(torch.equal(a, b) for a, b in zip(with_counter, without, strict=True))


@convention
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

    first = closure()
    seen.clear()
    optimizer.step(closure)
    assert seen == ["before", "closure", "after"]
    for _ in range(20):
        last = optimizer.step(closure)
    assert last < first
    if getattr(optimizer, "needs_closure", False):
        with pytest.raises(RuntimeError, match="closure"):
            optimizer.step()
    else:
        assert optimizer.step() is None


@each
def test_grad_scaler_skips_all_of_a_bad_step(name, options):
    params = tensors(torch.float32)
    optimizer = make(name, params, options)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    walk(optimizer, params, 2)
    before, state = [p.detach().clone() for p in params], copy.deepcopy(flat(optimizer.state_dict()))
    again = [lambda: give_gradients(params, 10)] if getattr(optimizer, "needs_closure", False) else []
    give_gradients(params, 9)
    params[1].grad[0, 0] = float("inf")
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer, *again)
    scaler.update()
    assert_equal(params, before)
    assert_equal(flat(optimizer.state_dict()), state)
    give_gradients(params, 10)
    scaler.step(optimizer, *again)
    assert not torch.equal(params[0], before[0])


@each
def test_maximize_is_the_negated_gradient(name, options):
    skip_without(name, "maximize")
    up, down = tensors(), tensors()
    a = walk(make(name, up, options | {"maximize": True}), up)

    def negate(params):
        for p in params:
            p.grad.neg_()

    assert_equal(a, walk(make(name, down, options), down, change=negate), rtol=1e-9, atol=1e-12)


@each
@pytest.mark.parametrize("maximize", [True, False])
def test_gradients_are_left_alone(name, options, maximize):
    if maximize:
        skip_without(name, "maximize")
    for fast in (True, False):
        params = tensors()
        optimizer = make(name, params, options | ({"maximize": True} if maximize else {}))
        if not fast:
            use_plain_path(optimizer)
        walk(optimizer, params, 2)

        kept = []

        def give(params=params, kept=kept):
            give_gradients(params, 5)
            kept[:] = [(p.grad, p.grad.clone()) for p in params]

        take_step(optimizer, give)
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
        fresh = [torch.nn.Parameter(p.detach().clone()) for p in captured]
        give_gradients(fresh, t)
        for held, new in zip(static, fresh, strict=True):
            held.copy_(new.grad)
        graph.replay()
    assert_equal(walk(plain, eager), captured, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
def test_no_step_waits_for_the_device(name, options):
    params = tensors(torch.float32, device="cuda")
    optimizer = make(name, params, options, lr=torch.tensor(LR, device="cuda"))
    give_gradients(params, 0)
    observe = getattr(optimizer, "observe_micro_batch", lambda share: None)
    for waiting in ("default", "error", "error"):  # the first step makes the state
        with warnings.catch_warnings(action="ignore"):  # the mode calls itself a prototype
            torch.cuda.set_sync_debug_mode(waiting)
        try:
            observe(0.5)
            observe(0.5)
            take_step(optimizer, lambda: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
def test_cuda_equals_cpu(name, options):
    here, there = tensors(), tensors(device="cuda")
    found = walk(make(name, there, options), there)
    assert_equal([p.cpu() for p in found], walk(make(name, here, options), here), rtol=1e-8, atol=1e-10)
