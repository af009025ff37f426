"""Time of one optimizer step: ours, the packages', and torch's fused kernels as the floor.

One process, the contenders interleaved round by round, medians; only the mean contains the roots that Shampoo takes at
every tenth step. ``python scripts/bench_optimizers.py --help``.
"""

import argparse
import itertools
import resource
import statistics
import time
import warnings

import torch
import torchvision
from torch import nn

import lbt.optim


class ReleasedStyle(torch.optim.Optimizer):
    """TVLARS as released programs are written: one parameter after another, plain tensor operations."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.count = 0

    @torch.no_grad()
    def step(self):
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                d = p.grad
                if p.ndim > 1:
                    d = d.add(p, alpha=5e-4)
                    nw, nd = p.norm().clamp(0, 10), d.norm().clamp(0, 10)
                    one = torch.ones_like(nw)
                    factor = 1 / (0.1 + torch.exp(torch.tensor(1e-3 * self.count)))
                    ratio = torch.where(nw > 0, torch.where(nd > 0, 1e-3 * factor * nw / nd, one), one)
                    d = d.mul(ratio)
                buffer = self.state[p].setdefault("mu", torch.zeros_like(p))
                buffer.mul_(0.9).add_(d)
                p.add_(buffer, alpha=-group["lr"])


KINDS = ("LAMB", "LARS", "SM3", "Shampoo", "Muon", "SAM")  # "TVLARS" is compared with what ends in "LARS"
COMPARED = (
    "lbt LARS", "lbt TVLARS", "lbt LAMB", "lbt LARS fused", "lbt TVLARS fused", "lbt LAMB fused", "lbt SM3",
    "lbt Shampoo", "lbt Muon", "lbt SAM",
)  # fmt: skip


def torch_muon(params):
    """torch's Muon, which takes matrices alone: convolutions are given as such, the rest is left out."""
    matrices = []
    for p in params:
        if p.ndim > 1:
            matrix = nn.Parameter(p.detach().reshape(len(p), -1))
            matrix.grad = p.grad.reshape(len(p), -1)
            matrices.append(matrix)
    return torch.optim.Muon(matrices, 1e-3, adjust_lr_fn="match_rms_adamw")


def step_of(optimizer):
    """A step as a call; SAM's contains everything but the closure's own work, which is none here."""
    if "SAM" not in type(optimizer).__name__:
        return optimizer.step

    params = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [p.grad for p in params]

    def give():
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.detach()  # a new tensor, as after a backward pass

    def step():
        give()
        optimizer.step(give)

    return step


def contenders(device):
    """Name -> factory over parameters; absent packages are left out with a note."""
    ours = {
        "lbt LARS": lambda p: lbt.optim.LARS(p, 0.01),
        "lbt LARS joint": lambda p: lbt.optim.LARS(p, 0.01, denominator="joint"),
        "lbt TVLARS": lambda p: lbt.optim.TVLARS(p, 0.01),
        "lbt LAMB": lambda p: lbt.optim.LAMB(p, 1e-3),
        "lbt LARC": lambda p: lbt.optim.LARC(p, 0.01),
        "lbt CLARS": lambda p: lbt.optim.CLARS(p, 0.01),
        "lbt SM3": lambda p: lbt.optim.SM3(p, 0.01),
        "lbt Shampoo": lambda p: lbt.optim.Shampoo(p, 0.01),
        "lbt Muon": lambda p: lbt.optim.Muon(p, 1e-3),
        "lbt SAM": lambda p: lbt.optim.SAM(p, 0.01),
    }
    if device == "cuda":
        ours |= {
            "lbt LARS fused": lambda p: lbt.optim.LARS(p, 0.01, fused=True),
            "lbt TVLARS fused": lambda p: lbt.optim.TVLARS(p, 0.01, fused=True),
            "lbt LAMB fused": lambda p: lbt.optim.LAMB(p, 1e-3, fused=True),
        }
    floor = {
        "torch fused SGD": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=5e-4, fused=True),
        "torch fused AdamW": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    }
    peers = {"released-style TVLARS": lambda p: ReleasedStyle(p, 0.01), "torch Muon": torch_muon}
    try:
        import timm.optim

        peers["timm LARS"] = lambda p: timm.optim.Lars(p, 0.01, momentum=0.9, weight_decay=5e-4)
        peers["timm LAMB"] = lambda p: timm.optim.Lamb(p, 1e-3, max_grad_norm=None)
    except ImportError:
        print("timm is not installed: left out")
    try:
        import pytorch_optimizer

        peers["pytorch_optimizer LARS"] = lambda p: pytorch_optimizer.LARS(p, 0.01, weight_decay=5e-4)
        peers["pytorch_optimizer LAMB"] = lambda p: pytorch_optimizer.Lamb(p, 1e-3, weight_decay=0.01)
        peers["pytorch_optimizer SM3"] = lambda p: pytorch_optimizer.SM3(p, 0.01, momentum=0.9)
        peers["pytorch_optimizer Shampoo"] = lambda p: pytorch_optimizer.ScalableShampoo(
            p, 0.01, preconditioning_compute_steps=10, start_preconditioning_step=10, block_size=512
        )
        peers["pytorch_optimizer SAM"] = lambda p: pytorch_optimizer.SAM(
            p, torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True
        )
    except ImportError:
        print("pytorch_optimizer is not installed: left out")
    return floor | ours | peers


def shapes(model):
    """Parameter shapes of a model by its name."""
    net = torchvision.models.resnet50() if model == "resnet50" else torchvision.models.resnet18()
    if model == "resnet18-projector":
        net.fc = nn.Identity()
        widths = [512, 4096, 4096, 4096]
        layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
        net = nn.Sequential(net, *layers, nn.BatchNorm1d(4096), nn.BatchNorm1d(4096))
    return [p.shape for p in net.parameters()]


def build(make, sizes, device):
    params = [nn.Parameter(torch.randn(s, device=device) * 0.05) for s in sizes]
    for p in params:
        p.grad = torch.randn_like(p) * 0.01
    return make(params)


def measure(optimizers, device, rounds):
    """Seconds of a step by name: the median over interleaved rounds, the fastest, and the mean."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = {name: [] for name in optimizers}
    steps = {name: step_of(optimizer) for name, optimizer in optimizers.items()}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            wait()
            start = time.perf_counter()
            step()
            wait()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return [{n: reduce(v) for n, v in times.items()} for reduce in (statistics.median, min, statistics.mean)]


def extra_memory(optimizer, device):
    """Largest memory in MiB allocated during a step over what was there before it; state exists already."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step_of(optimizer)()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step_of(optimizer)()
    now = top = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            top = max(top, now)
    return top / 2**20


def launches(optimizer):
    """CUDA kernels started by one step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step_of(optimizer)()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not e.name.startswith(("Memcpy", "Memset")) for e in kernels)


def copy_bandwidth():
    """Bytes a second, read and written, of a copy within the GPU's memory."""
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * source.nbytes / statistics.median(times)


def print_targets(times, optimizers, count):
    """Whether the fused steps reach what they are meant to: 1.6 times torch's step plus two passes; 30 launches."""
    bandwidth = copy_bandwidth()
    passes = 2 * 4 * count / bandwidth
    print(f"copy bandwidth {bandwidth / 1e12:.2f} TB/s: two passes over the parameters take {passes * 1e3:.3f} ms")
    for mine in (name for name in times if name.startswith("lbt") and name.endswith("fused")):
        floor = times["torch fused AdamW" if "LAMB" in mine else "torch fused SGD"]
        goal, started = 1.6 * floor + passes, launches(optimizers[mine])
        print(
            f"{mine}: {times[mine] * 1e3:.3f} ms, target 1.6 x {floor * 1e3:.3f} + {passes * 1e3:.3f} = "
            f"{goal * 1e3:.3f} ms: {'met' if times[mine] <= goal else 'missed'}; "
            f"{started} launches, target 30: {'met' if started <= 30 else 'missed'}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50", "resnet18-projector"])
    parser.add_argument("--devices", nargs="+", default=["cpu"] + ["cuda"] * torch.cuda.is_available())
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for device in args.devices:
        where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
        for model in args.models:
            sizes = shapes(model)
            optimizers = {name: build(make, sizes, device) for name, make in contenders(device).items()}
            times, best, mean = measure(optimizers, device, args.rounds)
            count = sum(s.numel() for s in sizes) / 1e6
            print(f"\n{model}, {count:.1f} M parameters, {device} ({where}), torch {torch.__version__}")
            print(
                f"{'':26}{'ms/step':>9}{'fastest':>9}{'mean':>9}{'x floor':>9}{'extra MiB':>11}"
                + f"{'launches':>10}" * (device == "cuda")
            )
            for name, seconds in times.items():
                adam = any(word in name for word in ("LAMB", "Adam"))
                floor = times["torch fused AdamW" if adam else "torch fused SGD"]
                line = (
                    f"{name:26}{seconds * 1e3:9.2f}{best[name] * 1e3:9.2f}{mean[name] * 1e3:9.2f}{seconds / floor:9.2f}"
                )
                line += f"{extra_memory(optimizers[name], device):11.1f}"
                print(line + (f"{launches(optimizers[name]):10d}" if device == "cuda" else ""))
            if device == "cuda":
                print_targets(times, optimizers, sum(s.numel() for s in sizes))
            for mine in COMPARED:
                if mine not in times:
                    continue
                kind = next(kind for kind in KINDS if kind in mine)
                faster = {
                    n: (times[n] / times[mine], best[n] / best[mine])
                    for n in times
                    if n.endswith(kind) and not n.startswith("lbt")
                }
                print(
                    f"{mine} is faster, by medians (by the fastest): "
                    + ", ".join(f"{n} {m:.2f}x ({b:.2f}x)" for n, (m, b) in faster.items())
                )
    print(f"\npeak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
