"""What rules that send less cost and save, on one core.

    python scripts/bench_communication.py              # all of it
    python scripts/bench_communication.py --only bytes

bytes: sent by a worker in an update, counted from the buffers of 8 virtual workers, against an fp32 all-reduce.
signs: adding ResNet50's momentum to what was not sent before, compressing and packing, a scale for each of its
tensors, against a copy of it. backward: an update of JointSpar with half of the layers against one with all. Times
are of this process' CPU, so that other work on the machine counts little; each kind in turn, the median of some
rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn

import lbt.optim
from lbt.models import MODELS
from lbt.optim import onebit

WORKERS = 8


def network() -> nn.Module:
    """Returns the ResNet18 for CIFAR-10."""
    torch.manual_seed(0)
    return MODELS["resnet18"](10, stem="cifar")


def medians(kinds: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns each function's median seconds of CPU time; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, function in kinds.items():
            began = time.process_time()
            function()
            if turn:
                times[name].append(time.process_time() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def sent_by(name: str, steps: int, **options: object) -> list[int]:
    """Returns the bytes that a worker sends in each of some updates of ResNet18."""
    parameters = [nn.Parameter(torch.zeros_like(p)) for p in network().parameters()]
    optimizer = lbt.optim.get(name)(parameters, 0.01, workers=WORKERS, **options)
    found = []
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        for worker in range(WORKERS):
            optimizer.collect(worker)
        optimizer.step()
        found.append(optimizer.bytes_sent)
    return found


def count() -> None:
    """Prints the bytes of an update."""
    size = 4 * sum(p.numel() for p in network().parameters())
    full = 2 * (WORKERS - 1) / WORKERS * size
    print(f"ResNet18, {WORKERS} workers: an fp32 all-reduce sends {full:,.0f} bytes a worker and update")
    for name in ("onebit_adam", "onebit_lamb"):
        *_, frozen = sent_by(name, 2, freeze_steps=1)
        print(f"{name}, after the freeze: {frozen:,} bytes, 1/{full / frozen:.1f} of it")
    plain, averaging = sent_by("slamb", 2, k=0.1, average_steps=2)
    mean = plain + (averaging - plain) / 50
    print(f"slamb, k=0.1, weights averaged every 50 updates: {mean:,.0f} bytes, 1/{full / mean:.2f} of it")


def signs(rounds: int) -> None:
    """Prints what compressing ResNet50's momentum takes."""
    lengths = [p.numel() for p in torchvision.models.resnet50().parameters()]
    size = -(-sum(lengths) // 8) * 8
    momentum, error, copied = torch.randn(sum(lengths)), torch.zeros(size), torch.empty(sum(lengths))
    kinds = {
        "copy": lambda: copied.copy_(momentum),
        "added": lambda: copied.add_(momentum),
        "signs": lambda: onebit.compress(error, momentum, lengths),
    }
    copy, added, packed = (1e3 * seconds for seconds in medians(kinds, rounds).values())
    print(
        f"ResNet50's momentum, {len(lengths)} tensors, {sum(lengths):,} elements: added, compressed and packed in "
        f"{packed:.1f} ms, {packed / copy:.2f} times a copy of it ({copy:.1f} ms); without adding ({added:.1f} ms) "
        f"{packed - added:.1f} ms, {(packed - added) / copy:.2f} times"
    )


def backward(batch: int, rounds: int) -> None:
    """Prints what JointSpar's drawn layers save of forward and backward pass."""
    model = network().to(memory_format=torch.channels_last)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    shares = {"all": 1.0, "half": 0.5}
    rules = {name: lbt.optim.JointSpar(model.parameters(), 0.0, share=share) for name, share in shares.items()}

    def update(rule: lbt.optim.JointSpar) -> None:
        rule.zero_grad()
        rule.begin_update()
        nn.functional.cross_entropy(model(images), labels).backward()
        rule.step()

    kinds = {name: partial(update, rule) for name, rule in rules.items()}
    found = medians({"forward": lambda: model(images), **kinds}, rounds)
    whole, part = (found[name] - found["forward"] for name in ("all", "half"))
    print(
        f"ResNet18, batch {batch}: an update with half of the layers in {found['half'] / found['all']:.2f} of the time "
        f"of one with all ({1e3 * found['all']:,.0f} ms), without the forward pass in {part / whole:.2f} of it"
    )


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["bytes", "signs", "backward"])
    parser.add_argument("--batch", type=int, default=64, help="images of the passes")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only in (None, "bytes"):
        count()
    if options.only in (None, "signs"):
        signs(options.rounds)
    if options.only in (None, "backward"):
        backward(options.batch, options.rounds)


if __name__ == "__main__":
    main()
