"""Where a run's time goes and what limits it: `lbt profile`, by the run's own loop on a small part of its data."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from rich.table import Table

from lbt import build, runtime, sweep
from lbt.config import Config, WandbConfig, network_of, resolve
from lbt.data import ImageSet
from lbt.profile import cost
from lbt.session.console import Page, Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.mirrors import Mirrors
from lbt.train import Training
from lbt.train.regions import REGIONS, Timed

CPU_IMAGES = 2048  # on a CPU an epoch is this long where nothing else is said, or four batches


class Clock(Timed):
    """Time by region. Regions may lie inside each other: time belongs to the innermost, so that the shares add up.

    On a CUDA device it is the device's time between events in its stream, waiting for the host included.
    """

    def __init__(self, device: torch.device):
        self._device, self._runs = device, False
        self._open = ["rest of the loop"]
        self._marks: list[tuple[str, Any]] = []

    def _mark(self) -> None:
        if self._device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._marks.append((self._open[-1], now))

    def region(self, name: str) -> AbstractContextManager[None]:
        """Counts what happens inside as `name`, while the clock runs."""
        return self._inside(name) if self._runs else nullcontext()

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self._open.append(name)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Starts and stops the clock."""
        self._marks.clear()
        self._runs = True
        self._mark()
        yield
        self._mark()
        self._runs = False
        cost.synchronise(self._device)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of every region; their sum is the whole time."""
        found = dict.fromkeys(REGIONS, 0.0)
        for (name, begun), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            found[name] += begun.elapsed_time(ended) / 1000 if self._device.type == "cuda" else ended - begun
        return found


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        config: the run's.
        seconds: by region, over `epochs` epochs.
        wall: seconds of these epochs by the wall clock.
        epochs: timed ones.
        images: of an epoch.
        cost: of one update.
        update: seconds of one update, the device idle before and after.
        enqueue: of these, seconds until the host had handed all of it to the device.
        peaks: measured ceilings, FLOP/s and bytes/s.
    """

    config: Config
    seconds: dict[str, float]
    wall: float
    epochs: int
    images: int
    cost: cost.Cost
    update: float
    enqueue: float
    peaks: tuple[float, float]

    def shares(self) -> dict[str, float]:
        """Returns every region's share of the time, in %."""
        total = sum(self.seconds.values())
        return {name: 100.0 * value / total for name, value in self.seconds.items()}

    def limit(self) -> str:
        """Says what the time of this run hangs on."""
        inside = ("forward", "backward", "optimizer")
        shares = self.shares()
        network = sum(shares[name] for name in inside)
        worst = max((name for name in shares if name not in inside), key=shares.get)
        if network < 50 and shares[worst] > 25:
            return f"{worst}: {shares[worst]:.0f} % of the time, the network and its optimizer {network:.0f} %"
        if self.config.device == "cuda" and self.enqueue > 0.9 * self.update:
            return "the host: launching an update's kernels takes as long as the update; a larger batch costs nothing"
        arithmetic, memory = self.cost.floor(self.peaks)
        kind = "arithmetic" if arithmetic > memory else "memory traffic"
        share = 100 * (arithmetic + memory) / self.update
        return f"{kind} of the network: the floor of an update's operations is {share:.0f} % of its time"


def profile(config: Config, *, images: int | None = None, epochs: int = 1) -> Profile:
    """Runs one epoch untimed and `epochs` timed ones through the run's own loop; nothing is left on the disk.

    The batch does not grow, and scores are those of a training as long as the run's: what is taken after its last epoch
    alone (a linear probe) is not timed unless that epoch is.

    Args:
        config: resolved configuration.
        images: length of an epoch; the test set is shortened in proportion. None: all on a GPU, few on a CPU.
        epochs: timed ones.
    """
    schedule = {key: value for key, value in config.schedule.items() if key != "batch"}
    length = max(config.epochs, epochs + 1)
    off = {"cuda_graph": False, "devices": 1, "mirror": [], "wandb": WandbConfig(), "branch": None}
    config = replace(runtime.settle(config), epochs=length, schedule=schedule, **off)
    build.validate(config)
    data = _shortened(config, build.images(config), images)
    clock = Clock(torch.device(config.device))
    with tempfile.TemporaryDirectory() as folder, runtime.own_threads():
        config = replace(config, results_dir=folder)
        training = Training(config, data, "profile", clock)
        training.begin()
        for text in training.threads.said:
            Page().print(text, highlight=False, markup=False, soft_wrap=True)
        pixels, labels = next(training.data.batches())
        spent = cost.count(lambda: training._update(pixels, labels))
        training.update.readings()  # a probe has room for those of an epoch
        trained(training, 1)
        update, enqueue = _one_update(training, pixels, labels)
        with clock.running():
            wall = cost.seconds(lambda: trained(training, epochs), training.device)
        timed = training.progress.epoch - 1  # fewer than asked for where the training diverges
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    peaks = cost.ceilings(training.device, dtype)
    return Profile(config, clock.seconds(), wall, timed, len(data.train_labels), spent, update, enqueue, peaks)


def _shortened(config: Config, data: ImageSet, images: int | None) -> ImageSet:
    if images is None and config.device == "cpu":
        images = max(4 * config.batch, CPU_IMAGES)
    length = len(data.train_labels)
    images = min(images or length, length)
    tested = max(1, round(len(data.test_labels) * images / length))
    train = {"train_images": data.train_images[:images], "train_labels": data.train_labels[:images]}
    return replace(data, **train, test_images=data.test_images[:tested], test_labels=data.test_labels[:tested])


def trained(training: Training, count: int) -> None:
    """Lets a training that has begun go on for `count` epochs of its own, as its own loop does."""
    training.go_on(training.progress.epoch + count, Interrupt(), Reporter(), Mirrors({}))


def _one_update(training: Training, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Returns the median seconds of an update on an idle device, and of these until the host was done with it."""
    times: list[tuple[float, float]] = []
    handed: list[float] = []
    for _ in range(3):
        whole = cost.seconds(lambda: handed.append(_elapsed(training._update, pixels, labels)), training.device)
        times.append((whole, handed.pop()))
        training.update.readings()
    return median(whole for whole, _ in times), median(handed for _, handed in times)


def _elapsed(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def show(overrides: Sequence[str], images: int | None, epochs: int) -> int:
    """Prints the profile of one run as a table; returns the exit code."""
    found = profile(resolve(sweep.compose(overrides)), images=images, epochs=epochs)
    config, shares = found.config, found.shares()
    table = Table(
        title=f"{config.optimizer['name']}, {network_of(config.model)}, batch {config.batch}, {config.precision}"
    )
    for header in ("", "ms an epoch", "share"):
        table.add_column(header, justify="left" if not header else "right")
    for name in REGIONS:
        table.add_row(name, f"{1000 * found.seconds[name] / found.epochs:,.1f}", f"{shares[name]:.1f} %")
    table.add_row("all", f"{1000 * sum(found.seconds.values()) / found.epochs:,.1f}", f"{sum(shares.values()):.1f} %")
    console = Page(highlight=False)
    console.print(table)
    rate, peaks = found.images * found.epochs / found.wall, found.peaks
    console.print(
        f"{found.images:,} images an epoch, {rate:,.0f} images/s; an update {1000 * found.update:,.1f} ms: "
        f"{found.cost.flops / found.update / 1e12:.3g} TFLOP/s of {peaks[0] / 1e12:.3g} measured in a matrix product, "
        f"{found.cost.bytes / found.update / 1e9:.3g} GB/s of {peaks[1] / 1e9:.3g} in a copy",
        soft_wrap=True,
    )
    console.print(f"limited by {found.limit()}", soft_wrap=True)
    return 0
