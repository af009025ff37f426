"""How far grids are by the records alone, for who looks again and again (`lbt.sweep.watch`)."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from lbt.config import Config, length_of
from lbt.records import FINAL, index
from lbt.records.watched import Seen, Watched
from lbt.session.grid_bar import ENDED, Grid
from lbt.session.outcome import Outcome
from lbt.sweep.tally import Tally


@dataclass
class View:
    """What one look has shown.

    Attributes:
        grids: by their names.
        running: what is being executed.
        ended: the latest first.
        over: whether it is at its end.
    """

    grids: dict[str, Grid] = field(default_factory=dict)
    running: list[Seen] = field(default_factory=list)
    ended: list[Seen] = field(default_factory=list)
    over: bool = False

    @property
    def complete(self) -> bool:
        """Whether every run is done or has diverged."""
        return all(one.total == sum(one.counts.get(status, 0) for status in FINAL) for one in self.grids.values())

    def lines(self) -> list[str]:
        """Returns a line a grid, for a log."""
        parts = ((name, f"{one.total} runs: {one.counted()}", one.time_left()) for name, one in self.grids.items())
        return [f"{name}: {said}{f'; {left}' if left else ''}" for name, said, left in parts]


class Names:
    """The records under some names.

    Args:
        names: of sweeps or experiments; none: all there are, also those that come later.
        results_dir: where results lie.
    """

    def __init__(self, names: Sequence[str], results_dir: str):
        self._names, self._watched = names, Watched(results_dir)

    def look(self) -> View:
        """Returns what there is now; it is never over, as more may come."""
        seen, damaged = self._watched.look()
        of_name: dict[str, list[Seen]] = {name: [] for name in self._names}
        for one in seen:
            if not self._names or one.path.parent.name in of_name:
                of_name.setdefault(one.path.parent.name, []).append(one)
        grids = {}
        for name, found in of_name.items():
            broken = sum(path.parent.name == name for path in damaged)
            grids[name] = _grid([(_config(one), one) for one in found], {"damaged": broken})
        return _view(grids, [one for found in of_name.values() for one in found])


class Runs:
    """The runs of a grid, wherever below their results' folders their records lie.

    Args:
        name: what it is called.
        configs: of its runs, as settled.
    """

    def __init__(self, name: str, configs: Sequence[Config]):
        self._name = name
        self._places = [(str(config.results_dir), index.key(config), config) for config in configs]
        self._watched = [Watched(folder) for folder in dict.fromkeys(folder for folder, _, _ in self._places)]

    def look(self) -> View:
        """Returns what there is now; it is over once every run has come to an end."""
        known: dict[tuple[str, str | None], Seen] = {}
        for watched in self._watched:
            for one in watched.look()[0]:
                where = str(watched.results_dir), one.key
                known[where] = max(known.get(where, one), one, key=_furthest)
        found = [(config, known.get((folder, key))) for folder, key, config in self._places]
        missing = sum(one is None for _, one in found)
        view = _view({self._name: _grid(found, {"missing": missing})}, [one for _, one in found if one is not None])
        view.over = all(one is not None and one.status in ENDED for _, one in found)
        return view


def _config(seen: Seen) -> SimpleNamespace:
    return SimpleNamespace(**{"micro_batch": None, **seen.config, "length": length_of(seen.config)})


def _furthest(seen: Seen) -> tuple:
    return seen.status in FINAL, seen.status == "running", seen.epochs


def _grid(found: Sequence[tuple[Any, Seen | None]], others: dict[str, int]) -> Grid:
    """Returns how far a grid is.

    Args:
        found: each run's configuration, and its record if there is one.
        others: further states and how many are in each, of runs that are none of `found` or have no record.
    """
    outcomes = [
        Outcome(one.id, one.status, config, summary=dict(one.summary)) if one and one.status in ENDED else None
        for config, one in found
    ]
    running = sum(one is not None and one.status == "running" for _, one in found)
    tally = Tally([config for config, _ in found], outcomes, max(1, running))
    left = [one for (_, one), outcome in zip(found, outcomes, strict=True) if outcome is None]
    for place, one in enumerate(left):
        if one is not None and one.status == "running":
            since = time.monotonic() - one.grew
            pace = one.epochs / one.seconds if one.seconds else 0.0  # epochs a second
            share = min(1.0, pace * (one.seconds + since) / length_of(one.config))
            tally.begin(place, ago=one.seconds + since, share=share)
    now = tally.now()
    states = Counter(one.status for one in left if one is not None and one.status != "running")
    known = {status: count for status, count in {**now.counts, **states, **others}.items() if count}
    waits = running or any(one is None for one in left)
    return Grid(now.total + others.get("damaged", 0), known, now.left if waits else None)


def _view(grids: dict[str, Grid], seen: Sequence[Seen]) -> View:
    running = sorted((one for one in seen if one.status == "running"), key=lambda one: (-one.epochs, one.id))
    ended = sorted((one for one in seen if one.status in ENDED), key=lambda one: (-one.grew, one.id))
    return View(grids, list({one.id: one for one in running}.values()), list({one.id: one for one in ended}.values()))
