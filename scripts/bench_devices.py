"""What several devices cost: measured with two processes on this machine, and computed for many GPUs.

    python scripts/bench_devices.py                 # measures: two processes of one thread against one of two
    python scripts/bench_devices.py --expect        # computes: the exchange beyond one machine; draws docs/exchange.png

Measured: images/s of whole trainings, `devices=2` with a thread each against `devices=1` with two threads; and of a
pass of two processes the share of its time that is for the exchange of gradients, after the backward pass or
meanwhile, and for batch norm over both. Other work on the machine disturbs its processor time less, which is told
besides. Computed: the seconds of a gradient exchange by the alpha-beta model of a ring all-reduce, from the bytes and
messages that DistributedDataParallel hands over, which are counted. A computed figure is no measurement: real
networks have hierarchies, other traffic and libraries with other algorithms.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lbt.devices import QUIET
from lbt.devices.norm import spread
from lbt.devices.processes import Processes
from lbt.models import MODELS
from lbt.report.kit import style
from lbt.report.kit.exchange import LATENCY, all_reduce_seconds
from lbt.train.layout import lay_out

NETWORKS = ("resnet18", "resnet34", "resnet50")
GPUS = (8, 64, 512)
GIGABITS = (25, 100, 400)
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "exchange.png"


# --- computed


def sent(name: str) -> tuple[int, int]:
    """Returns the bytes and the messages (buckets) of one update's gradient exchange, counted in DDP's own hook."""
    model = DistributedDataParallel(getattr(torchvision.models, name)(num_classes=10))
    sizes: list[int] = []

    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sizes.append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    model.register_comm_hook(None, hook)
    for _ in range(2):  # DDP orders its buckets anew after the first pass
        sizes.clear()
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    return sum(sizes), len(sizes)


def expect() -> None:
    """Prints the computed seconds of an exchange and draws them."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        counted = {name: sent(name) for name in NETWORKS}
        dist.destroy_process_group()
    print(f"Computed, not measured: ring all-reduce, fp32, {LATENCY * 1e6:.0f} us a message; no overlap, no hierarchy.")
    print("| network | bytes | messages | " + " | ".join(f"{n} GPUs, {g} Gb/s" for g in GIGABITS for n in GPUS) + " |")
    print("|---" * (3 + len(GPUS) * len(GIGABITS)) + "|")
    for name, (size, messages) in counted.items():
        times = [all_reduce_seconds(size, n, g, messages=messages) for g in GIGABITS for n in GPUS]
        print(f"| {name} | {size:,} | {messages} | " + " | ".join(f"{1e3 * t:.1f} ms" for t in times) + " |")
    draw(counted)
    print(f"wrote {FIGURE}")


def draw(counted: dict[str, tuple[int, int]]) -> None:
    """Draws the computed seconds of an exchange by the number of GPUs."""
    with style.context():
        figure, [panels] = style.panels(1, len(GIGABITS), width=2.6, height=2.2)
        numbers = [2**k for k in range(1, 11)]
        for axes, gigabits in zip(panels, GIGABITS, strict=True):
            for index, (name, (size, messages)) in enumerate(counted.items()):
                times = [1e3 * all_reduce_seconds(size, n, gigabits, messages=messages) for n in numbers]
                axes.plot(numbers, times, label=name, **style.line_style(index))
            axes.set(xscale="log", yscale="log", xlabel="GPUs", title=f"{gigabits} Gb/s a link")
            axes.set_xticks([2, 8, 64, 512], ["2", "8", "64", "512"], minor=False)
            axes.minorticks_off()
        panels[0].set_ylabel("one exchange, ms")
        notes = [f"Computed by the alpha-beta model, not measured: fp32 gradients, {LATENCY * 1e6:.0f} us a message."]
        handles = panels[0].get_lines()
        style.finish(figure, "Gradient exchange of one update", notes, handles)
        FIGURE.write_bytes(style.encode(figure, "exchange", notes[0], "scripts/bench_devices.py --expect")["png"])


# --- measured


def images_per_second(devices: int, threads: int, batch: int, options: argparse.Namespace) -> float:
    """Returns the images/s of the last epoch of a training in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"devices={devices}", f"batch={batch}", "data=cifar10", f"data.subset={max(options.images, batch)}",
            "epochs=2", f"precision={options.precision}", "device=cpu", f"results_dir={folder}", "optimizer=nesterov",
            "data.test_every=50", f"threads={threads}",
        ]  # fmt: skip
        if options.micro_batch is not None and options.micro_batch < batch:
            words.append(f"micro_batch={options.micro_batch}")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, "-m", "lbt", "train", *words], env=environment, check=True, capture_output=True)
        [record] = Path(folder).glob("runs/*/*.jsonl")
        epochs = [line for line in map(json.loads, record.read_text().splitlines()) if line["kind"] == "epoch"]
    return epochs[-1]["wall_images_per_second"]


def throughput(options: argparse.Namespace) -> None:
    """Prints the ratio of the images/s of two processes to those of one, in turn."""
    for batch in options.batches:
        ratios, speeds = [], []
        for turn in range(options.rounds):
            ways = ((1, 2), (2, 1))  # devices and the threads of each
            found = {way: images_per_second(*way, batch, options) for way in (ways[::-1] if turn % 2 else ways)}
            ratios.append(found[2, 1] / found[1, 2])
            speeds.append(found[1, 2])
        ratio, speed = statistics.median(ratios), statistics.median(speeds)
        turns = ", ".join(f"{each:.3f}" for each in ratios)
        print(f"batch {batch}: devices=2 of one thread at {ratio:.3f} (in turn {turns}) of devices=1 of two", end="")
        print(f" ({speed:,.0f} images/s)", flush=True)


def passes(rank: int, path: str, batch: int, rounds: int) -> None:
    """Prints what a pass of two processes takes for its exchanges; the body of one of them."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["LOCAL_WORLD_SIZE"] = "2"  # both are of this machine
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    group = Processes("cpu")
    plain = lay_out(MODELS["resnet18"](10), torch.device("cpu"), "winograd")
    normed = copy.deepcopy(plain)
    spread(normed, group)
    networks = {"alone": plain, "exchanged after": plain, "exchanged meanwhile": group.exchange(copy.deepcopy(plain))}
    networks["and batch norm over both"] = group.exchange(normed)
    images = torch.randn(batch // 2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch // 2,))

    def seconds(kind: str, count: int) -> tuple[float, float]:
        dist.barrier()
        network, started, processor = networks[kind], time.perf_counter(), time.process_time()
        network.zero_grad(set_to_none=True)
        with group.computing(group.parts(2 * count)[0]):
            nn.functional.cross_entropy(network(images[:count]), labels[:count]).backward()
        if kind == "exchanged after":
            dist.all_reduce(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
        return time.perf_counter() - started, time.process_time() - processor

    for kind in networks:
        seconds(kind, 2)
    turns = [list(networks)[:: 1 if turn % 2 else -1] for turn in range(rounds)]
    times = [{kind: seconds(kind, len(labels)) for kind in turn} for turn in turns]
    wall, processor = ({kind: statistics.median(one[kind][n] for one in times) for kind in networks} for n in range(2))
    for kind in networks if rank == 0 else ():
        share, work = 1 - wall["alone"] / wall[kind], processor[kind] / processor["alone"]
        print(f"batch {batch}, gradients {kind}: {1e3 * wall[kind]:,.0f} ms a pass, {share:.1%} of them for it", end="")
        print(f"; {work:.3f} of its processor time", flush=True)
    group.wait()
    dist.destroy_process_group()


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", action="store_true", help="compute instead of measuring")
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--images", type=int, default=4096, help="of CIFAR-10, an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--micro-batch", type=int, help="for batches that are larger")
    parser.add_argument("--only-trainings", action="store_true", help="measure no pass by itself")
    options = parser.parse_args()
    if options.expect:
        return expect()
    for batch in [] if options.only_trainings else options.batches:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.setdefault(*QUIET)
            arguments = (f"{folder}/store", min(batch, options.micro_batch or batch), max(options.rounds, 3))
            torch.multiprocessing.spawn(passes, arguments, nprocs=2)
    return throughput(options)


if __name__ == "__main__":
    main()
