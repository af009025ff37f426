"""Images/s of a training with as many CPU threads as torch would use and with one, alone and beside a busy process.

The kernels' threads wait for each other by spinning. Beside other work one of them is always late, and a training with
several may become many times slower than with one; `threads=auto` then takes one. Passes of both kinds alternate, and
quiet and busy rounds do, so that what else runs on the machine meets all four alike; what is told are medians.

    python scripts/bench_threads.py                       # ResNet18 at 32x32, batch 512; a minute on a quiet machine
    python scripts/bench_threads.py --batch 64 --busy 2   # quicker; two processes that compute for nothing
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch

from lbt import build, runtime, sweep
from lbt.config import resolve
from lbt.train import Training
from lbt.train.threads import compare, pass_timer


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps so many cores busy."""
    begun = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in begun:
            process.kill()
            process.wait()


def main() -> None:
    """Prints medians, their ratios and what `threads=auto` would choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="several; default: %(default)s")
    parser.add_argument("--busy", type=int, default=1, help="processes beside it; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of passes, quiet and busy; default: %(default)s")
    options = parser.parse_args()

    words = [f"model={options.model}", f"batch={options.batch}", f"data.size={options.batch}", "data.test_size=16"]
    config = runtime.settle(resolve(sweep.compose(["data=synthetic", "data.resolution=32", "device=cpu", *words])))
    training = Training(config, build.images(config), "benchmark")
    seconds = pass_timer(training.update, training.data)
    print(f"torch {torch.__version__}, {options.model}, batch {options.batch}, {config.precision}")

    kinds, beside = (1, options.threads), {"alone": 0, f"beside {options.busy} busy": options.busy}
    for number in kinds:
        seconds(number, options.batch)  # chooses the kernels
    times: dict[tuple[str, int], list[float]] = {(name, number): [] for name in beside for number in kinds}
    for _ in range(options.rounds):
        for name, processes in beside.items():
            print(f"load {os.getloadavg()[0]:.1f}, {name}:", end="", flush=True)
            with busy(processes):
                for number in kinds:
                    times[name, number].append(seconds(number, options.batch))
                    print(f"  {number} threads {times[name, number][-1]:.3g} s", end="", flush=True)
            print()
    for name, processes in beside.items():
        one, several = (options.batch / median(times[name, number]) for number in kinds)
        print(
            f"{name}: {one:,.1f} images/s with one thread, {several:,.1f} with {options.threads} ({several / one:.2g})"
        )
        with busy(processes):
            started = time.perf_counter()
            rates = compare(seconds, options.threads, options.batch, float("inf"))
            print(f"  as threads=auto times it, in {time.perf_counter() - started:.1f} s: {rates}")


if __name__ == "__main__":
    main()
