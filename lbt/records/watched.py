"""Records that are being written, looked at again and again: each is read anew only where its file has changed.

Nothing is written and no lock is held; files may be half-written, replaced, or gone between two looks.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt import records
from lbt.files import read_regular
from lbt.records import places
from lbt.records.index import key_of
from lbt.records.index_cache import state_of

NEEDED = {"optimizer", "batch", "lr", "seed", "epochs", "model", "data", "task"}  # settings that are looked at
COUNTS = ("batch", "epochs")
QUIET_SECONDS = 60.0  # an unfinished record that has grown more recently is being written, whoever holds its lock
QUIET_EPOCHS = 3.0  # or one whose last epoch came less than so many epochs' time ago


@dataclass(frozen=True)
class Seen:
    """A record at one look.

    Attributes:
        path: of its file.
        id: of the run.
        key: of its identity (`lbt.records.index.key`), None where this version does not know its settings.
        config: its settings, as recorded.
        status: as the record has it; of one without an end `running` where it is being written, else `interrupted`.
        epochs: how many are recorded.
        seconds: that these took.
        summary: of its end, empty where it has none.
        grew: when it was last seen to have changed, by `time.monotonic`.
    """

    path: Path
    id: str
    key: str | None
    config: Mapping[str, Any]
    status: str
    epochs: int
    seconds: float
    summary: Mapping[str, Any]
    grew: float


class Watched:
    """The records below a folder.

    Args:
        results_dir: where results lie; it need not be there yet.
        clock: as `time.monotonic`.
    """

    def __init__(self, results_dir: str | Path, clock: Callable[[], float] = time.monotonic):
        self.results_dir, self._clock = results_dir, clock
        self._known: dict[Path, tuple[tuple[int, ...], Seen]] = {}
        self._unreadable: dict[Path, tuple[int, ...]] = {}

    def look(self) -> tuple[list[Seen], list[Path]]:
        """Returns the records there are, and the paths of those that were as unreadable at the last look.

        One that cannot be read now (it is being replaced) is as it was when it could.
        """
        found, unreadable, damaged = {}, {}, []
        for path in records.paths(self.results_dir):
            before, state = self._known.get(path), ()
            try:
                state = state_of(path)
                if before is None or before[0] != state:
                    before = state, self._read(path, before)
            except FileNotFoundError:
                continue
            except Exception:  # what a file may hold is not known
                unreadable[path] = state
                if before is None:
                    damaged += [path] if self._unreadable.get(path) == state else []
                    continue
            found[path] = before
        self._known, self._unreadable = found, unreadable
        return [self._now(seen) for _, seen in found.values()], damaged

    def _read(self, path: Path, before: tuple[tuple[int, ...], Seen] | None) -> Seen:
        content = read_regular(path)
        run, epochs, end = records.outline(path, content)
        config = run["config"]
        if not config.keys() >= NEEDED or not all(type(config[key]) is int and config[key] > 0 for key in COUNTS):
            raise records.RecordError(f"{path}: not the settings of a run")
        if end is None:
            lines = records.parse(path, content).epochs
            seconds = sum(line.get(key, 0.0) for line in lines for key in ("wall_train_seconds", "wall_eval_seconds"))
            status, summary = "unfinished", {}
        else:
            status, summary = end["status"], end["summary"]
            seconds = summary.get("wall_seconds") or 0.0
        ago = time.time() - path.stat().st_mtime if before is None else 0.0  # another machine's clock may be ahead
        grew = self._clock() - max(0.0, ago)
        return Seen(path, run["id"], _key(config), config, status, epochs, seconds, summary, grew)

    def _now(self, seen: Seen) -> Seen:
        """Returns a record with what is being done to it."""
        if seen.status != "unfinished":
            return seen
        pace = seen.seconds / seen.epochs if seen.epochs else 0.0
        written = self._clock() - seen.grew < max(QUIET_SECONDS, QUIET_EPOCHS * pace)
        held = written or places.held(places.lock_of(self.results_dir, seen.id))
        return Seen(**{**vars(seen), "status": "running" if held else "interrupted"})


def _key(config: Mapping[str, Any]) -> str | None:
    try:
        return key_of(config)
    except Exception:  # settings of another version, or a plug-in's
        return None
