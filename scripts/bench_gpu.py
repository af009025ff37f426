"""What a GPU gives: one call, less than nine minutes, one table of times, images/s and shares of the floor.

The floor of a row is the sum over the operations of its updates and evaluations, counted in eager execution, of the
longer of FLOPs by the ceiling of a matrix product and bytes by the ceiling of a copy; both are measured in this call.
Fusion or caches can undercut it. Times are those of the run's own loop: evaluation each epoch, records on.

    python scripts/bench_gpu.py                        # real CIFAR-10 from $LBT_DATA
    python scripts/bench_gpu.py --cifar synthetic      # images of its size where there are none
    python scripts/bench_gpu.py --smoke                # seconds on a CPU: does the script run?
"""

import argparse
import gc
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lbt import build, records, runtime, sweep
from lbt.config import resolve
from lbt.profile import cost, trained
from lbt.train import Training
from lbt.train.graph import GraphedUpdate

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
SYNTHETIC = ["data=synthetic", "data.augment=crop_flip_rotate"]


def rows(options):
    """Name, overrides and target (s per 100 epochs) of each single run."""
    cifar = ["data=cifar10"] if options.cifar == "cifar10" else [*SYNTHETIC, "data.size=50000", "data.test_size=10000"]
    tiny = [*SYNTHETIC, "data.size=100000", "data.test_size=10000", "data.resolution=64", "data.classes=200"]
    if options.smoke:
        cifar, tiny = ([*SYNTHETIC, "data.size=96", "data.test_size=32"] for _ in range(2))
    large, small, more = (32, 16, 48) if options.smoke else (4096, 512, 2048)
    graph = "cuda_graph=true"
    yield f"CIFAR-10, ResNet18, batch {large}", [*cifar, f"batch={large}"], 8
    yield f"CIFAR-10, ResNet18, batch {large}, graph", [*cifar, f"batch={large}", graph], 8
    yield f"CIFAR-10, ResNet18, batch {small}", [*cifar, f"batch={small}"], 12
    yield f"CIFAR-10, ResNet18, batch {small}, graph", [*cifar, f"batch={small}", graph], 12
    twins = [*cifar, "task=barlow_twins", "data.augment=barlow_twins", f"batch={more}"]
    yield f"Barlow Twins, CIFAR-10, ResNet18, batch {more}", twins, 25
    yield f"64x64, ResNet34, batch {more}", [*tiny, "model=resnet34", f"batch={more}"], 100
    yield f"64x64, ResNet34, batch {more}, graph", [*tiny, "model=resnet34", f"batch={more}", graph], 100
    yield f"64x64, ResNet34, batch {more}, compiled", [*tiny, "model=resnet34", f"batch={more}", "compile=true"], 100


def make(overrides, folder):
    words = ["optimizer=tvlars", "protocol=released", *overrides, f"results_dir={folder}"]
    config = runtime.settle(resolve(sweep.compose(words)))
    images = build.images(config)
    GraphedUpdate.last = None  # what the row before keeps for another run of its kind
    gc.collect()
    torch.cuda.empty_cache()
    training = Training(config, images, "benchmark")
    training.begin()
    return training


def per_epoch(training, peaks):
    """Returns the floor of an epoch in seconds: its updates and its evaluation."""
    pixels, labels = next(training.data.batches())
    graph, training.graph = training.graph, None
    executor = training.update.executor
    compiled, executor.compiled = executor.compiled, None
    update = sum(cost.count(lambda: training._update(pixels, labels)).floor(peaks))
    training.graph, executor.compiled = graph, compiled
    counted = cost.count(lambda: executor.evaluate(training.sets, epoch=1, epochs=2))
    return update * len(training.data.images) / len(pixels) + sum(counted.floor(peaks))


def single(overrides, peaks, seconds):
    """Returns seconds an epoch, its floor, images/s, GB at the peak and how the updates were made."""
    with tempfile.TemporaryDirectory() as folder:
        training = make(overrides, folder)
        floor = per_epoch(training, peaks)
        if training.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trained(training, 2)
        one = cost.seconds(lambda: trained(training, 1), training.device)
        count = max(1, min(int(seconds / one), training.config.epochs - 4))
        before = training.progress.epoch
        took = cost.seconds(lambda: trained(training, count), training.device)
        count = training.progress.epoch - before  # fewer where the loss is lost
        epoch = took / count
        memory = torch.cuda.max_memory_allocated() / 1e9 if training.device.type == "cuda" else float("nan")
        ways = training.graph, training.update.executor.compiled
        note = "; ".join([f"{count} epochs", *(way.state for way in ways if way is not None)])
        return epoch, floor, len(training.data.images) / epoch, memory, note


def side_by_side(overrides, count, epochs):
    """Returns seconds an epoch of `count` runs side by side, divided by their number, and images/s of all."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = "seed=" + ",".join(map(str, range(count)))
        words = ["optimizer=tvlars", "protocol=released", *overrides, seeds, f"sweep.parallel={count}"]
        command = [sys.executable, "-m", "lbt", "train", "-m", *words, f"epochs={epochs}", f"results_dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        walls, images = [], 0
        for path in records.paths(folder):
            record = records.read(path)
            later = record.epochs[len(record.epochs) // 4 : -(len(record.epochs) // 4) or None]  # all of them run
            walls.append(statistics.median(line["wall_train_seconds"] + line["wall_eval_seconds"] for line in later))
            images = record.run["provenance"]["train_images"]
    effective = statistics.median(walls) / count
    return effective, images / effective


def peak_memory(options):
    """Returns GB at the peak of an update of batch 16384, ResNet34 at 64x64."""
    batch = 32 if options.smoke else 16384
    size = [*SYNTHETIC, f"data.size={batch}", "data.test_size=100", "data.resolution=64", "data.classes=200"]
    with tempfile.TemporaryDirectory() as folder:
        training = make([*size, "model=resnet34", f"batch={batch}"], folder)
        torch.cuda.reset_peak_memory_stats()
        trained(training, 2)
        return torch.cuda.max_memory_allocated() / 1e9


def start_up(options):
    """Returns the seconds from the command to the end of the first update, and of a sweep's later runs."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["data=digits", "batch=1437", "epochs=1", f"results_dir={folder}"]
        command = [sys.executable, "-m", "lbt", "train", "-m", *words, "seed=0,1,2"]
        started = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        ends = sorted(path.stat().st_mtime for path in records.paths(folder))
        return ends[0] - started, ends[2] - ends[1]


def line(name, seconds, target, floor=None, rate=None, memory=None, note=""):
    share = f"{100 * floor / seconds:.0f} %" if floor else ""
    rate, memory = (f"{rate:,.0f}" if rate else ""), (f"{memory:.1f}" if memory else "")
    floor = f"{floor:.2f}" if floor else ""
    print(
        f"{name:44} {seconds:9.2f} {floor:>9} {share:>6} {target or '':>8} {rate:>11} {memory:>7}  {note}", flush=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", choices=["cifar10", "synthetic"], default="cifar10")
    parser.add_argument("--seconds", type=float, default=12, help="of a single run's timing (default: %(default)s)")
    parser.add_argument("--parallel", type=int, nargs="+", default=[8], help="runs side by side")
    parser.add_argument("--minutes", type=float, default=8.5, help="nothing begins later (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="everything at a size that a CPU does in seconds")
    options = parser.parse_args()
    started = time.monotonic()
    if options.smoke:
        options.seconds, options.parallel = 0.1, [2]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peaks = cost.ceilings(device, torch.bfloat16)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}: {peaks[0] / 1e12:.3g} TFLOP/s bf16, {peaks[1] / 1e9:.4g} GB/s")
    head = ("s", 9), ("floor", 9), ("share", 6), ("target", 8), ("images/s", 11), ("GB", 7)
    print(f"{'s of 100 epochs unless stated':44} " + " ".join(f"{text:>{width}}" for text, width in head))

    best: dict[int, float] = {}  # s of 100 epochs at the large (target 8) and the small batch (target 12)

    def attempt(what, function):
        if time.monotonic() - started > 60 * options.minutes:
            print(f"{what:44} not measured: no time left")
            return
        try:
            function()
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{what:44} failed: {str(error).splitlines()[0]}", flush=True)

    def show_single(what, overrides, target):
        epoch, floor, rate, memory, note = single(overrides, peaks, options.seconds)
        line(what, 100 * epoch, target, 100 * floor, rate, memory, note)

    def show_parallel(what, overrides, target, count):
        effective, rate = side_by_side(overrides, count, 4 if options.smoke else 16)
        line(f"  {count} processes", 100 * effective, target, rate=rate, note="time a run, divided by the processes")
        best[target] = min(best.get(target, math.inf), 100 * effective)

    for what, overrides, target in rows(options):
        attempt(what, lambda: show_single(what, overrides, target))  # noqa: B023
        if "64x64" not in what:
            for count in options.parallel:
                attempt(f"  {count} processes", lambda: show_parallel(what, overrides, target, count))  # noqa: B023
    if best.keys() >= {8, 12}:
        whole = 45 * best[8] + 9 * best[12]
        line("Table 1's 54 cells, estimated", whole, 600, note="5 batches as the large one, 1 as the small one")
    if device.type == "cuda":
        memory = "GB at the peak, ResNet34, 64x64, batch 16384"
        attempt(memory, lambda: line(memory, peak_memory(options), 40))

    def show_start_up():
        first, later = start_up(options)
        line("s to the first update of lbt train data=digits", first, 10)
        line("s of a whole later run of one update", later, 0.5)

    attempt("start-up", show_start_up)

    def show_peers():
        words = ["--data", options.cifar, "--rounds", "2"]
        words += ["--images", "64", "--batch", "32", "--workers", "1", "--data", "synthetic"] if options.smoke else []
        command = [sys.executable, HERE / "bench_peers.py", *words]
        print(subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout, end="")

    attempt("bench_peers.py", show_peers)
    print(f"measured in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
