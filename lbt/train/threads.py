"""How many CPU threads a run computes with: the number it is given, or one where more of them are slower.

The CPU kernels' threads wait for each other many times an update, and they wait by spinning. Where something else uses
the cores, one of them is always late, and several threads can be fifty times as slow as one. So `threads=auto` times
passes before the first update, and again when a run has fallen far below the speed it had.

The number of threads decides how sums are rounded. Hence a run keeps it, over interruptions as well, with two
exceptions, both said on the console and kept in the record: it is gone on with elsewhere or with another `threads`, or
its speed collapsed. `threads=N` and `deterministic=true` never change by themselves.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from lbt import runtime
from lbt.config import Config
from lbt.data.resident import ResidentData
from lbt.train.progress import Progress
from lbt.train.update import Update

FIRST = 2  # images of the first pass; it tells how long others take
GLANCE = 0.02  # seconds of one thread's pass that shows whether several are much slower: those may take a second
LOOK = 0.1  # of one that shows which of them is faster
PAIRS = 5  # passes of each kind
LONGEST = 2.0  # seconds in all, but for the last passes begun
WORTH_IT = 20.0  # expected seconds of a run, from which it is timed
DECIDED = 8.0  # so many times slower at a glance needs no look; small passes suffer more than a whole batch's
MARGIN = 1.5  # several threads are left for one where that is so many times as fast: before the first update,
COLLAPSED = 4.0  # and within a run, which has to be so many times slower than it was, and
GAIN = 2.0  # so many times as fast with one thread
WINDOW = 10.0  # seconds over which a run's speed is taken
AGAIN = 300.0  # seconds until a run that remained slow is timed again, doubled each time

Seconds = Callable[[int, int], float]  # of a pass with so many threads, of so many images


@dataclass(frozen=True)
class Rates:
    """Images/s of a forward and backward pass with one thread and with `threads`."""

    threads: int
    one: float
    several: float

    def to_json(self) -> dict[str, float]:
        """Returns images/s by the number of threads."""
        return {"1": float(f"{self.one:.4g}"), str(self.threads): float(f"{self.several:.4g}")}

    def __str__(self) -> str:
        return f"{self.one / self.several:.1f} times as fast as {self.threads} here and now"


def compare(seconds: Seconds, threads: int, largest: int, images: float) -> Rates | None:
    """Times passes with one thread and with several in turn, small ones first.

    Args:
        seconds: makes a pass.
        threads: how many are several.
        largest: images of a pass at most.
        images: that are still to be trained on.

    Returns:
        Their rates; None where what is left of the run is too short to be worth it.
    """
    size = min(FIRST, largest)
    seconds(1, size)  # the first one of a kind chooses its kernels
    once = seconds(1, size)
    if images * once / size < WORTH_IT:
        return None
    spent = seconds(threads, size)
    if spent > max(DECIDED * once, LONGEST / 2):  # no choice of kernels takes a second
        return Rates(threads, size / once, size / spent)
    for wanted in (GLANCE, LOOK):
        size = max(size, min(largest, int(size * wanted / once) // 2 * 2))  # ghost norm divides it: none is left alone
        times: list[tuple[float, float]] = []
        while len(times) < PAIRS and (spent < LONGEST or not times):
            times.append((seconds(1, size), seconds(threads, size)))
            spent += sum(times[-1])
        once, several = (median(kind) for kind in zip(*times, strict=True))
        if several > DECIDED * once or spent >= LONGEST or size == largest:
            break
    return Rates(threads, size / once, size / several)


def pass_timer(update: Update, data: ResidentData) -> Seconds:
    """Returns what makes and times a forward and backward pass on a copy of the model: the training does not notice.

    Args:
        update: of the training.
        data: its training set.
    """
    executor, examples = update.executor.copied(), torch.empty(0)

    def seconds(threads: int, images: int) -> float:
        nonlocal examples
        with runtime.own_threads(), torch.random.fork_rng(devices=[]):
            if len(examples) != images:
                examples = data.examples(images)
            labels = data.labels[:images]
            executor.model.zero_grad(set_to_none=True)
            runtime.use_threads(threads)
            started = time.perf_counter()
            executor.backward(examples, labels)
            return time.perf_counter() - started

    return seconds


class Pace:
    """Tells when a training has become much slower than it was.

    Args:
        best: images/s that it has had.
        clock: gives seconds.
    """

    def __init__(self, best: float = 0.0, clock: Callable[[], float] = time.monotonic):
        self._best, self._clock = best, clock
        self._pause, self._not_before = AGAIN, -float("inf")
        self._images, self._seconds = 0, 0.0  # of the present window
        self.mark()

    def mark(self) -> None:
        """Leaves out what has been since the last update: it was not training."""
        self._last = self._clock()

    def leave_out(self, seconds: float) -> None:
        """Leaves out seconds since the last update."""
        self._last += seconds

    def collapsed(self, images: int) -> bool:
        """Counts an update with so many images and says whether the speed has collapsed; rarely so again."""
        now = self._clock()
        self._images, self._seconds, self._last = self._images + images, self._seconds + now - self._last, now
        if self._seconds < WINDOW:
            return False
        rate = self._images / self._seconds
        self._images, self._seconds = 0, 0.0
        self._best = max(self._best, rate)
        if rate * COLLAPSED > self._best or now < self._not_before:
            return False
        self._not_before, self._pause = now + self._pause, 2 * self._pause
        return True


class Threads:
    """The threads of one run: chosen at its beginning, kept when it goes on, changed where its speed collapses.

    Args:
        config: settled configuration.
        update: of the training.
        data: its training set.
        progress: of the training; keeps which updates were made with how many.
        images: that the whole run trains on.
    """

    def __init__(self, config: Config, update: Update, data: ResidentData, progress: Progress, images: int):
        self._config, self._update, self._data, self._progress = config, update, data, progress
        self._images = images
        self._pace: Pace | None = None
        self.said: list[str] = []  # for the console

    def begin(self) -> dict[str, Any]:
        """Chooses the number of a run's first update; returns what was timed, for the provenance."""
        rates = self._timed(self._images) if self._may_change() else None
        if rates is not None and rates.one > MARGIN * rates.several:
            runtime.use_threads(1)
            self.said.append(f"one CPU thread, {rates}; threads={rates.threads} takes {rates.threads} all the same")
        self._changed_to(torch.get_num_threads())
        self._watch()
        return {"threads_timed": rates.to_json()} if rates is not None else {}

    def go_on(self, lines: list[str]) -> None:
        """Takes up the number that the run has had, as far as it may.

        Args:
            lines: of its record so far.
        """
        if self._config.device != "cpu":
            return
        made_by, changes = json.loads(lines[0])["provenance"], self._progress.threads
        if not changes:  # a checkpoint of a version that did not keep them
            changes.append((0, made_by.get("threads", torch.get_num_threads())))
        before, most = changes[-1][1], torch.get_num_threads()
        number = min(before, most) if self._config.threads == "auto" else most
        runtime.use_threads(number)
        if number != before:
            self._changed_to(number)
            self.said.append(f"on {_count(number)}, before on {before}: equal to an uninterrupted run but for rounding")
        self._watch(max((json.loads(line).get("wall_images_per_second", 0.0) for line in lines[1:]), default=0.0))

    def mark(self) -> None:
        """Is called before the first update after something else."""
        if self._pace is not None:
            self._pace.mark()

    def leave_out(self, seconds: float) -> None:
        """Is told of seconds between the last call of `after` or `mark` and the next that were no training."""
        if self._pace is not None:
            self._pace.leave_out(seconds)

    def after(self, images: int) -> str | None:
        """Is called after an update with so many images; returns what is to be said if it has changed the number."""
        if self._pace is None or not self._pace.collapsed(images):
            return None
        rates = self._timed(float("inf"))
        self.mark()
        if rates is None or rates.one < GAIN * rates.several:
            return None
        runtime.use_threads(1)
        self._changed_to(1)
        self._pace = None  # it remains so
        return f"one CPU thread from update {self._progress.step + 1} on, {rates}; the record says so"

    def now(self) -> dict[str, int]:
        """Returns the present number for an epoch's line, where the run had another one before."""
        changes = self._progress.threads
        return {"wall_threads": changes[-1][1]} if len(changes) > 1 else {}

    def history(self) -> dict[str, list[list[int]]]:
        """Returns, where the number changed, after how many updates to which, for the record's end."""
        changes = self._progress.threads
        return {"threads": [list(change) for change in changes]} if len(changes) > 1 else {}

    def _changed_to(self, number: int) -> None:
        self._progress.threads.append((self._progress.step, number))

    def _watch(self, best: float = 0.0) -> None:
        if self._may_change():
            self._pace = Pace(best)

    def _may_change(self) -> bool:
        config, several = self._config, torch.get_num_threads() > 1
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())  # all decide alike
        return config.device == "cpu" and config.threads == "auto" and not config.deterministic and several and alone

    def _timed(self, images: float) -> Rates | None:
        largest = min(self._config.micro_batch or self._config.batch, len(self._data.images))
        try:
            return compare(pass_timer(self._update, self._data), torch.get_num_threads(), largest, images)
        except (ValueError, RuntimeError):  # too few images for the model, no memory: the run may go on without
            return None


def _count(threads: int) -> str:
    return "one CPU thread" if threads == 1 else f"{threads} CPU threads"
