"""How far a sweep is, in one line a run: `run 5 of 16 (3 done, 1 diverged; about 4 min left)`."""

import statistics
from collections import Counter
from collections.abc import Sequence

from lbt.config import Config
from lbt.errors import UserError
from lbt.session.outcome import Outcome

ORDER = ("done", "diverged", "oom", "failed", "interrupted", "running", "refused", "not started")

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
        self._left: dict[int, _Kind] = {place: _kind(config) for place, config in enumerate(waiting)}
        self._counts: Counter[str] = Counter()
        self._seconds: dict[tuple[bool, str], list[float]] = {}
        for config, result in zip(configs, results, strict=True):
            if result is not None:
                self._count(_kind(config), result, now=False)

    def end(self, result: Outcome | UserError, place: int | None = None) -> None:
        """Counts a run.

        Args:
            result: what became of it, or what kept it from starting.
            place: among the runs that were left; None: it is the first of those that are left now.
        """
        place = next(iter(self._left)) if place is None else place
        self._count(self._left.pop(place), result, now=True)

    def begins(self) -> str:
        """Returns the line of the run that begins now; there is none in a sweep of one run."""
        return f"run {self._counts.total() + 1} of {self.total}{self._told()}" if self.total > 1 else ""

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

    def _told(self) -> str:
        counts = [f"{self._counts[status]} {status}" for status in ORDER if self._counts[status]]
        parts = [part for part in (", ".join(counts), self._time_left()) if part]
        return f" ({'; '.join(parts)})" if parts else ""

    def _time_left(self) -> str:
        kinds = Counter(self._left.values())
        each = {kind: self._takes(kind) for kind in kinds}
        if not kinds or None in each.values():
            return ""
        return f"about {_in_words(sum(each[kind] * count for kind, count in kinds.items()) / self._at_once)} left"

    def _takes(self, kind: _Kind) -> float | None:
        """Returns the median time of like runs in seconds, None where none has been timed."""
        found = (self._seconds.get((fresh, key)) for fresh in (True, False) for key in kind)
        return next((statistics.median(times) for times in found if times), None)


def _kind(config: Config) -> _Kind:
    alike = repr((config.model, config.data, config.task, config.length))
    return repr((alike, config.optimizer["name"], config.batch, config.micro_batch)), alike


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
