"""The fused kernels of LARS, TVLARS and LAMB: on a GPU, and without one in Triton's interpreter (see conftest.py)."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lbt.optim
from lbt.optim import LAMB, LARS
from lbt.optim.triton import launch, plan

sys.path.insert(0, str(Path(__file__).parent))
import reference
from agreement import CASES, run

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not GPU, reason="no CUDA device")
INTERPRETER = pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="the kernels run on the GPU"))
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, needs_gpu])
devices = pytest.mark.parametrize("device", [INTERPRETER, CUDA])
RULES = {
    "lars": {"eta": 0.02},
    "lars nesterov": {"eta": 0.02, "nesterov": True, "denominator": "joint"},
    "tvlars": {"lam": 0.3, "phi_scope": "adapted", "eta": 0.02},
    "lamb": {"exclude_1d": True},
    "lamb clip": {"exclude_1d": True, "grad_clip": 0.5},
}
rules = pytest.mark.parametrize("rule", RULES)
NEAR = {torch.float64: 1e-12, torch.float32: 3e-6}  # largest error relative to a tensor's largest element


def make(rule, params, fused=True, **more):
    """A rule with kernels, or by torch's foreach functions."""
    optimizer = lbt.optim.get(rule.split()[0])(params, **({"lr": 0.05} | RULES[rule] | {"fused": fused} | more))
    optimizer.cpu_kernels = False
    return optimizer


def tensors(device, dtype=torch.float64, seed=0):
    """Of no size, of one element, of less and more than a chunk, neither multiples of it nor in the kernels' order."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5,), (70, 130), (1,), (), (2, 0), (8, 3, 3, 3), (4097,), (8, 4, 1, 1), (64, 64)]
    made = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
    made[5] = made[5].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(t) for t in made]


def give(params, seed, missing=()):
    """New gradient tensors, as ``zero_grad(set_to_none=True)`` and a backward pass leave them."""
    fresh = tensors(params[0].device, params[0].dtype, 100 + seed)
    for i, (p, g) in enumerate(zip(params, fresh, strict=True)):
        p.grad = None if i in missing else (1 + seed) * g.detach() + 0.1 * p.detach()


def assert_near(found, expected, near):
    for a, b in zip(found, expected, strict=True):
        if b.numel():
            assert (a.double() - b.double()).abs().max() <= near * b.double().abs().max() + 1e-300


@pytest.fixture
def started(monkeypatch):
    """Names of the kernels that were started, and the parameters each was to work on."""
    seen, start = [], launch._start
    monkeypatch.setattr(launch, "_start", lambda n, p, *a, **k: (seen.append((n, p.params)), start(n, p, *a, **k)))
    return seen


@pytest.fixture
def sent(monkeypatch):
    """What was sent to the device."""
    seen, send = [], plan.send
    monkeypatch.setattr(plan, "send", lambda numbers, *rest: (seen.append(numbers), send(numbers, *rest))[1])
    return seen


ORACLES = [c for c in CASES if c.rule in ("lars", "tvlars", "lamb") and c.oracle == "NumPy"]


@devices
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("case", ORACLES, ids=str)
def test_agrees_with_the_formulas(case, dtype, device, monkeypatch, started):
    monkeypatch.setattr(plan, "CHUNK", 32)
    monkeypatch.setattr(launch, "BLOCK", 2)
    index = ORACLES.index(case)
    if device == "cpu" and dtype == torch.float32 and index % 4:
        pytest.skip("the interpreter is slow: a quarter of the cases in float32")
    problem = reference.problem(steps=4)
    for wd in (0.05,) if device == "cpu" and index % 3 else (0.0, 0.05):
        expected = case.theirs(problem, wd)
        found = run(
            lambda p, lr, wd=wd: lbt.optim.get(case.rule)(p, lr, weight_decay=wd, fused=True, **case.ours),
            *problem, dtype=dtype, device=device,
        )  # fmt: skip
        for a, b, w in zip(found, expected, problem[0], strict=True):
            assert np.abs(a - w).max() > 1e-6
            assert np.abs(a - b).max() <= NEAR[dtype] * np.abs(b).max()
    assert {"lars", "lamb"} & {name for name, _ in started}


@devices
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@rules
def test_equals_foreach(rule, dtype, device):
    """Also with gradients that come and go, a rate of its own for a group, a tensor rate, and zeros."""
    pairs = []
    for fused in (True, False):
        params = tensors(device, dtype)
        with torch.no_grad():
            params[7].zero_()
        groups = [{"params": params[:6]}, {"params": params[6:], "lr": torch.tensor(0.1, dtype=torch.float64)}]
        pairs.append((params, make(rule, groups, fused)))
    for t, missing in enumerate([(), (1,), (1, 6, 7, 8), (0, 1, 2, 3, 4, 5), (), ()]):
        for params, optimizer in pairs:
            give(params, t, missing)
            if t == 5:
                params[1].grad.zero_()
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + t % 3)
            optimizer.param_groups[1]["lr"].fill_(0.1 / (1 + t))
            optimizer.step()
        (params, optimizer), (others, other) = pairs
        ratios, wanted = optimizer.trust_ratios(), other.trust_ratios()
        places = dict(zip(params, others, strict=True))
        assert {places[p] for p in ratios} == set(wanted)
        for p, ratio in ratios.items():
            torch.testing.assert_close(ratio, wanted[places[p]], rtol=NEAR[dtype], atol=0)
        assert_near(params, others, NEAR[dtype])
        for p, q in places.items():
            assert optimizer.state.get(p, {}).keys() == other.state.get(q, {}).keys()
            assert_near(optimizer.state.get(p, {}).values(), other.state.get(q, {}).values(), 2 * NEAR[dtype])


@devices
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rule", ["lars", "lars nesterov", "tvlars"])
def test_low_precision_rounds_once(rule, dtype, device):
    """All is computed in float32, so that a first step differs from the exact one by the rounding of what is stored."""
    coarse = tensors(device, dtype)
    exact = [torch.nn.Parameter(p.detach().double()) for p in coarse]
    give(coarse, 0)
    for p, q in zip(coarse, exact, strict=True):
        q.grad = p.grad.double()
    make(rule, coarse).step()
    make(rule, exact, fused=False).step()
    nearest = 1.0 if (dtype, device) == (torch.bfloat16, "cpu") else 0.5  # the interpreter rounds bfloat16 towards zero
    for p, q in zip(coarse, exact, strict=True):
        assert ((p.double() - q).abs() <= torch.finfo(dtype).eps * (nearest * q.abs() + 1e-3)).all()


@devices
def test_only_what_changed_is_sent(device, sent):
    params = tensors(device)
    optimizer = make("lars", params)
    give(params, 0)
    optimizer.step()
    assert len(sent) == 3  # tables, constants, addresses
    optimizer.step()
    assert len(sent) == 3
    held = [p.grad for p in params]
    give(params, 1)
    optimizer.step()
    assert len(sent) == 4
    assert len(sent[-1]) == 3 * len(params)
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    assert [numbers[-3:] for numbers in sent[4:]] == [[0.5, 5e-4, 5e-4]]
    del held


@pytest.mark.skipif(GPU, reason="counted there by the profiler, below")
@rules
def test_few_launches_whatever_the_number_of_tensors(rule, monkeypatch):
    """Counted without a GPU: torch's operations that compute or copy, and our kernels, which are not run."""
    started, counts = [], []
    monkeypatch.setattr(launch, "_start", lambda name, *rest, **more: started.append(name))
    for copies in (1, 4):
        params = [p for seed in range(copies) for p in tensors("cpu", seed=seed) if p.numel()]
        optimizer = make(rule, params, lr=torch.tensor(0.1))
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        started.clear()
        with Operations() as operations:
            optimizer.step()
        counts.append(len(started) + len(operations.computing))
    assert counts[0] == counts[1] <= 20


class Operations(TorchDispatchMode):
    """Names of the operations that start a kernel on a GPU: neither views nor scratch memory."""

    def __init__(self):
        super().__init__()
        self.computing = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "aten" and not function.is_view and function is not torch.ops.aten.empty.memory_format:
            self.computing.append(function.name())
        return function(*args, **(kwargs or {}))


@devices
def test_tensors_moved_between_steps_are_noticed(device):
    pairs = [(params, make("lars", params, fused)) for fused in (True, False) for params in [tensors(device)]]
    kept = []
    for t in range(5):
        for params, optimizer in pairs:
            give(params, t)
            if t == 1:
                params[8].grad = params[8].grad.T.contiguous().T
            if t == 2:
                kept.append(params[1].data)  # its address is not used again
                params[1].data = params[1].data.clone()
                params[5].data = params[5].data.contiguous()
                params[5].grad = params[5].grad.contiguous()
            if t == 3:
                kept.append(optimizer.state[params[1]].pop("momentum_buffer"))
                optimizer.state[params[8]]["momentum_buffer"] = torch.ones_like(params[8])
            if t == 4:
                params[6].grad = None  # and a vector that grew has the stride that it had
                params[6].data = torch.cat([params[6].data, params[6].data])
                params[6].grad = torch.ones_like(params[6])
                optimizer.state[params[6]].clear()
            optimizer.step()
        assert_near(pairs[0][0], pairs[1][0], 1e-12)


@devices
def test_what_the_kernels_cannot_take_goes_by_foreach(device, started):
    params = tensors(device)
    square = torch.nn.Parameter(torch.randn(6, 6, device=device, dtype=torch.float64))
    slices = torch.nn.Parameter(torch.randn(6, 6, 2, device=device, dtype=torch.float64)[..., 0])
    params[8:] = [square, slices]
    optimizer = make("lars", params, momentum=0.0)
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.randn_like(p)
    params[7].grad = params[7].grad.contiguous()  # strides differ where the size is 1 alone
    params[7].data = params[7].data.to(memory_format=torch.channels_last)
    square.grad = square.grad.T
    slices.grad = torch.randn(6, 6, 2, device=device, dtype=torch.float64)[..., 0]
    optimizer.step()
    taken = {id(p) for _, these in started for p in these}
    assert {i for i, p in enumerate(params) if id(p) not in taken} == {8, 9}
    assert all((p != b).any() for p, b in zip(params, before, strict=True) if p.numel())
    assert {square, slices, params[1]} <= set(optimizer.trust_ratios())


@devices
@pytest.mark.parametrize("shift", [0, 1])
def test_addresses_that_are_no_multiples_of_16(device, shift):
    """Parameters in one flat buffer, as some wrappers keep them."""
    flat = torch.randn(2, 500, device=device)
    params = [torch.nn.Parameter(flat[0, shift : shift + 400].view(20, 20))]
    others = [torch.nn.Parameter(params[0].detach().clone())]
    params[0].grad = flat[1, shift : shift + 400].view(20, 20)
    others[0].grad = params[0].grad.clone()
    fast, slow = make("lamb", params), make("lamb", others, fused=False)
    fast.step(), slow.step()
    ((known, _),) = fast._planner._known[id(fast.param_groups[0])].plans
    assert known.aligned == (shift == 0)
    assert_near(params, others, 3e-6)


def test_on_a_cpu_it_is_the_cpu_path(monkeypatch, started):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    weights = []
    for fused in (True, False):
        params = tensors("cpu", torch.float32)
        optimizer = LARS(params, 0.1, fused=fused)
        give(params, 0)
        optimizer.step()
        weights.append(params)
    assert not started
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    LAMB(tensors("cpu"), 0.1, fused=True)
    with pytest.raises(ValueError, match=r"^Invalid fused: True .*package triton"):
        plan.check_triton([SimpleNamespace(is_cuda=True)])


@devices
def test_a_state_from_before_and_a_rule_without_kernels(device, started):
    """An older state has no "fused"; what is loaded decides, except for rules that have no kernels."""
    params = tensors(device)
    optimizer = make("lars", params)
    old = make("lars", params, fused=False).state_dict()
    del old["param_groups"][0]["fused"]
    optimizer.load_state_dict(old)
    give(params, 0)
    optimizer.step()
    assert started
    started.clear()
    larc = lbt.optim.LARC(params, 0.1)
    larc.load_state_dict(optimizer.state_dict())
    larc.step()
    assert not started


def test_in_a_graph_numbers_become_arguments(monkeypatch):
    """What a capture does differently, but for the capture."""
    cpu = torch.device("cpu")
    mirror = plan.Mirror(torch.int64, cpu)
    numbers = (2**47 - 16, 0, 16, 2**53 + 1)
    first = mirror(numbers)
    monkeypatch.setattr(plan, "capturing", lambda device: True)
    assert mirror(numbers) is first
    assert any(t is first for t in mirror.captured)
    other = mirror((1, 2, 3))
    assert other.tolist() == [1, 2, 3]
    assert plan.send(numbers, torch.int64, cpu).tolist() == list(numbers)
    assert plan.send([0.1, 1e-300], torch.float64, cpu).tolist() == [0.1, 1e-300]
    monkeypatch.setattr(plan, "capturing", lambda device: False)
    assert mirror(numbers) is first  # `other` has its numbers only once the graph was replayed
    params = tensors("cpu")
    optimizer = make("lars", params)
    give(params, 0)
    optimizer.state_tensors(params, "momentum_buffer")
    monkeypatch.setattr(plan, "capturing", lambda device: True)
    with pytest.raises(RuntimeError, match="take one step before capturing"):
        optimizer.step()


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lbt.optim.triton import kernels
tl = triton.language
types = dict(table="*i64", owner="*i64", first="*i64", numel="*i64", hyper="*fp64", sums="*fp32", found="*fp32",
    ratios="*fp32", scales="*fp32", rate="*fp32", clip="*fp64", first_by="*fp64", second_by="*fp64")
types |= dict.fromkeys(["n", "chunks", "adapted", "decayed"], "i32")
constants = dict(CHUNK=4096, TYPE=tl.float32, ACC=tl.float32, ALIGNED=True, MAXIMIZE=False, BLOCK=1024, CLIP=True,
    WEIGHTS=True, JOINT=True, MOMENTUM=True, INSIDE=False, NESTEROV=True)
for name in ("square", "norms", "trust", "lars", "moments", "lamb"):
    kernel = getattr(kernels, name)
    signature = {a: types.get(a, "constexpr") for a in kernel.arg_names}
    given = {(i,): constants[a] for i, a in enumerate(kernel.arg_names) if a in constants}
    source = ASTSource(kernel, signature, given)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    print(name, sum("ld.global" in line and ".v4." in line for line in made.asm["ptx"].splitlines()))
"""


def test_kernels_compile_for_a_gpu_and_move_16_bytes_at_a_time(tmp_path):
    if "nvidia" not in __import__("triton").backends.backends:
        pytest.skip("triton without its NVIDIA backend")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wide = dict(line.split() for line in done.stdout.splitlines())
    wanted = {"square": "8", "norms": "0", "trust": "0", "lars": "12", "moments": "16", "lamb": "12"}  # 4 a tensor
    assert wide == wanted


def resnet50_like():
    """161 tensors, of which 54 have more than one dimension, with 25 million elements."""
    return [torch.nn.Parameter(torch.randn(s, device="cuda") * 0.05) for s in [(680, 680)] * 54 + [(512,)] * 107]


@pytest.mark.cuda
@needs_gpu
@rules
def test_few_launches_little_memory_no_waiting(rule):
    params = resnet50_like()
    optimizer = make(rule, params, lr=torch.tensor(0.1, device="cuda"))
    for t in range(3):
        for p in params:
            p.grad = torch.randn_like(p)
        with warnings.catch_warnings(action="ignore"):  # the mode calls itself a prototype
            torch.cuda.set_sync_debug_mode("error" if t else "default")  # the first step compiles and makes the state
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        optimizer.step()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    assert 3 <= sum(not e.name.startswith(("Memcpy", "Memset")) for e in kernels) <= 30
    assert torch.cuda.max_memory_allocated() - before < 2**20


@pytest.mark.cuda
@needs_gpu
@rules
def test_graph_of_backward_and_step_equals_eager(rule):
    """The graph's gradients lie where no eager step saw them; eager steps between replays have others again."""

    def setting():
        params = tensors("cuda", torch.float32)
        return params, make(rule, params, lr=torch.tensor(0.05, device="cuda"))

    def work(params, optimizer, x):  # elementwise, so that its gradients do not depend on where they are computed
        optimizer.zero_grad(set_to_none=True)
        sum((p * x).square().sum() for p in params).backward()
        optimizer.step()

    inputs = [torch.tensor(0.5 + t, device="cuda") for t in range(8)]
    (params, optimizer), (others, eager) = setting(), setting()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work(params, optimizer, inputs[0])
    torch.cuda.current_stream().wait_stream(stream)
    static = inputs[1].clone()
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work(params, optimizer, static)
    inside = [p.grad for p in params]
    for t, x in enumerate(inputs[1:]):
        if t in (2, 5):
            work(params, optimizer, x)
            for p, g in zip(params, inside, strict=True):
                p.grad = g
        else:
            static.copy_(x)
            graph.replay()
    for x in inputs:
        work(others, eager, x)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)


@pytest.mark.cuda
@needs_gpu
@rules
def test_steps_are_reproducible_bit_for_bit(rule):
    weights = []
    for _ in range(3):
        torch.manual_seed(0)
        params = resnet50_like()
        optimizer = make(rule, params)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        weights.append(params)
    for others in weights[1:]:
        assert all(torch.equal(p, q) for p, q in zip(weights[0], others, strict=True))
