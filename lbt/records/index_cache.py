"""The index of a folder's records, kept in a file that is only ever a cache: `index.json` in the work folder.

An entry holds as long as its record has the size, the times and the place on the disk it had when it was read. The
file is made anew wherever it is missing, damaged or of another version, and is done without where it cannot be written.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from lbt.files import UnreadableError, irregular, read_regular, replace_file
from lbt.records.places import work_folder

VERSION = 3  # raise it when an entry's fields or the meaning of a key changes
WORTHWHILE = 500  # records read anew, from which on the file is written


@dataclass(slots=True)
class Entry:
    """What is needed of a record without its epochs.

    Attributes:
        path: the record's.
        state: of its file, `state_of`.
        id: of the run.
        key: of its identity (`lbt.records.index.key`).
        status: as `lbt.records.RunRecord` has it.
        epochs: how many are recorded.
        summary: figures of the last epoch and the run's length; empty where it has no end.
        probes: what was measured besides.
        plugins: name and the source's SHA-256 of each plug-in it was made with.
    """

    path: Path
    state: tuple[int, ...]
    id: str
    key: str
    status: str
    epochs: int
    summary: dict[str, Any]
    probes: list[str]
    plugins: list[dict[str, Any]]


def state_of(path: Path) -> tuple[int, ...]:
    """Returns size, times and place of a file.

    Raises:
        OSError: it is none.
    """
    found = os.stat(path)
    if (wrong := irregular(found.st_mode)) is not None:
        raise UnreadableError(path, wrong)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def path_of(results_dir: str | Path) -> Path:
    """Returns where the cache lies."""
    return work_folder(results_dir) / "index.json"


def load(results_dir: str | Path) -> dict[str, Entry]:
    """Returns the entries by `<experiment>/<id>.jsonl`; none where there is no cache that can be used."""
    runs = Path(results_dir) / "runs"
    with suppress(Exception):  # whatever is wrong with it, the records are there
        digest, _, text = read_regular(path_of(results_dir)).partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() == digest:
            content = orjson.loads(text)
            if content["version"] == VERSION:
                return {name: Entry(runs / name, tuple(state), *rest) for name, state, *rest in content["entries"]}
    return {}


def save(results_dir: str | Path, entries: Mapping[str, Entry], read: int) -> None:
    """Writes the cache, where so many records were read anew that the next look is faster for it."""
    if read < max(WORTHWHILE, len(entries) // 50):
        return
    rows = [
        [name, one.state, one.id, one.key, one.status, one.epochs, one.summary, one.probes, one.plugins]
        for name, one in entries.items()
    ]
    with suppress(OSError, TypeError):
        text = orjson.dumps({"version": VERSION, "entries": rows})
        path_of(results_dir).parent.mkdir(parents=True, exist_ok=True)
        replace_file(path_of(results_dir), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
