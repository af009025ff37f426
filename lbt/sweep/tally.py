"""How far a sweep is, in one line a run: `run 5 of 16 (3 done, 1 diverged; about 4 min left)`."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

from lbt.config import Config
from lbt.errors import UserError
from lbt.session.grid_bar import Grid
from lbt.session.outcome import Outcome

LITTLE = 0.02  # of a run: what comes before its first updates would count too much

# What runs that take as long have in common: all that matters, and model, data and epochs alone.
_Kind = tuple[str, str]


class Tally:
    """Counts a sweep's runs and says how long the others may take, where runs like them have been timed.

    Args:
        configs: of all the sweep's runs.
        results: of those that had come to an end before it began; None for the others.
        at_once: how many are executed side by side.
    """

    def __init__(self, configs: Sequence[Config], results: Sequence[Outcome | None], at_once: int = 1):
        self.total, self._at_once = len(configs), at_once
        waiting = [config for config, result in zip(configs, results, strict=True) if result is None]
        self._running: dict[int, float] = {}  # places of runs, and when they began
        self._whole: dict[int, float] = {}  # and how long they will have taken, by what is made of them
        self._left: dict[int, _Kind] = {place: _kind(config) for place, config in enumerate(waiting)}
        self._counts: Counter[str] = Counter()
        self._seconds: dict[tuple[bool, str], list[float]] = {}
        for config, result in zip(configs, results, strict=True):
            if result is not None:
                self._count(_kind(config), result, now=False)

    def begin(self, place: int | None = None, ago: float = 0.0, share: float = 0.0) -> None:
        """Has a run begin.

        Args:
            place: as of `end`.
            ago: seconds since it did.
            share: of it that was made in so many seconds, from 0 to 1.
        """
        place = next(iter(self._left)) if place is None else place
        self._running[place] = time.monotonic() - ago
        self._measure(place, share)

    def end(self, result: Outcome | UserError, place: int | None = None) -> None:
        """Counts a run.

        Args:
            result: what became of it, or what kept it from starting.
            place: among the runs that were left; None: it is the first of those that are left now.
        """
        place = next(iter(self._left)) if place is None else place
        self._running.pop(place, None)
        self._whole.pop(place, None)
        self._count(self._left.pop(place), result, now=True)

    def left(self) -> int:
        """Returns how many runs have not come to an end."""
        return len(self._left)

    def begins(self) -> str:
        """Has a run begin and returns its line; there is none in a sweep of one run."""
        said = self._told()
        self.begin()
        return f"run {self._counts.total() + 1} of {self.total}{said}" if self.total > 1 else ""

    def ended(self) -> str:
        """Returns the line of a run that has come to an end beside others."""
        return f"{self._counts.total()} of {self.total} runs{self._told()}" if self.total > 1 else ""

    def _count(self, kind: _Kind, result: Outcome | UserError, *, now: bool) -> None:
        status = result.status if isinstance(result, Outcome) else "refused"
        self._counts[status] += 1
        if status == "done" and (took := result.summary.get("wall_seconds")):
            # A run of before may be another machine's: what this command has timed itself goes before that.
            fresh = now and not result.recorded_before
            for key in kind:
                self._seconds.setdefault((fresh, key), []).append(took)

    def shown(self) -> Callable[[float], Grid] | None:
        """Returns what a bar is made of, `now`; None in a sweep of one run, which has none."""
        return self.now if self.total > 1 else None

    def now(self, share: float = 0.0) -> Grid:
        """Returns how far the sweep is, with the runs that are being executed.

        Args:
            share: of the only one that is, from 0 to 1; 0: not known.
        """
        for place in list(self._running) if share else ():
            self._measure(place, share)
        return Grid(self.total, {**self._counts, "running": len(self._running)}, self._seconds_left())

    def _told(self) -> str:
        grid = Grid(self.total, self._counts, self._seconds_left())
        parts = [part for part in (grid.counted(), grid.time_left()) if part]
        return f" ({'; '.join(parts)})" if parts else ""

    def _seconds_left(self) -> float | None:
        """Returns the seconds until the last run may have ended, None where a run like one of those left was not timed.

        Runs share the time of as many as are executed at once, and the longest one has its own.
        """
        left = list(self._left.items())  # a bar is drawn by a thread of its own
        each = {kind: self._takes(kind) for _, kind in left}
        whole = [self._whole.get(place, each[kind]) for place, kind in left]
        if not left or None in whole:
            return None
        began, now = self._running, time.monotonic()
        seconds = [max(0.0, one - (now - began.get(place, now))) for (place, _), one in zip(left, whole, strict=True)]
        return max(max(seconds), sum(seconds) / self._at_once)

    def _measure(self, place: int, share: float) -> None:
        if share > LITTLE:
            self._whole[place] = (time.monotonic() - self._running[place]) / share

    def _takes(self, kind: _Kind) -> float | None:
        """Returns the median time of like runs in seconds; where none has been timed, of what one is made of by now."""
        found = (self._seconds.get((fresh, key)) for fresh in (True, False) for key in kind)
        timed = next((statistics.median(times) for times in found if times), None)
        whole = ((self._left.get(place), seconds) for place, seconds in list(self._whole.items()))
        alike = [seconds for other, seconds in whole if other and other[1] == kind[1]]
        return timed if timed is not None or not alike else statistics.median(alike)


def _kind(config: Config) -> _Kind:
    alike = repr((config.model, config.data, config.task, config.length))
    return repr((alike, config.optimizer["name"], config.batch, config.micro_batch)), alike
