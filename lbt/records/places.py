"""Where the files of a run besides its record lie: checkpoint, lock and weights; and how the first two go."""

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lbt import files

_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def work_folder(results_dir: str | Path) -> Path:
    """Returns the folder of checkpoints and locks; nothing in it is a result."""
    return Path(results_dir) / "work"


def checkpoint_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns where a run's checkpoint lies."""
    return work_folder(results_dir) / f"{run_id}.pt"


def trunks_folder(results_dir: str | Path) -> Path:
    """Returns the folder of the states that branches of a training begin from (`lbt.train.trunk`)."""
    return work_folder(results_dir) / "trunks"


def weights_folder(results_dir: str | Path) -> Path:
    """Returns the folder of the weights that runs have kept."""
    return Path(results_dir) / "weights"


def weights_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns where a run's weights lie, if it has kept them (`lbt.weights`)."""
    return weights_folder(results_dir) / f"{run_id}.safetensors"


def lock_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns the file whose lock a process holds while it executes the run."""
    return work_folder(results_dir) / f"{run_id}.lock"


def tidy(results_dir: str | Path, run_id: str) -> None:
    """Removes what a killed process left half-written; the caller holds the run's lock."""
    files.remove_left(checkpoint_of(results_dir, run_id), locked=True)


def clear(results_dir: str | Path, run_ids: Iterable[str]) -> None:
    """Removes what runs needed that have come to an end: checkpoint, lock, and what was left half-written.

    The caller has seen their final records, and so does whoever takes a lock anew. What a process holds stays.
    """
    ended = set(run_ids)
    with suppress(OSError), os.scandir(work_folder(results_dir)) as entries:
        found = [name for name in sorted(entry.name for entry in entries) if _run_of(name) in ended]
        held_ids = {run for run in map(_run_of, found) if held(lock_of(results_dir, run))}
        for name in found:
            if _run_of(name) not in held_ids:
                with suppress(OSError):
                    (work_folder(results_dir) / name).unlink()


def _run_of(name: str) -> str | None:
    """Returns the id of the run that a file of the work folder belongs to."""
    found = re.fullmatch(r"\.?([^.]+)\.(pt|lock|taken|pt\.[\w.]+)", name)
    return found[1] if found else None


def held(lock: Path) -> bool:
    """Says whether a process holds a lock; a reader of the folder may ask, too, who could not take the lock himself.

    On a file system without `flock` a file `<id>.taken` beside it, or a text in it, says that it is held, and by whom.
    """
    try:
        opened = files.open_regular(lock)
    except OSError:  # there is none, or it tells nothing
        return False
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            return error.errno in _NO_FLOCK and (_names_holder(lock, False) or _names_holder(_taken(lock), True))
    return False


def _taken(lock: Path) -> Path:
    return lock.with_suffix(".taken")


def _names_holder(path: Path, empty: bool) -> bool:
    """Says whether a file names a process that may live: not one that is gone from this machine.

    Args:
        path: of the file.
        empty: what a file without a text says; where flock is known, a lock file has none.
    """
    try:
        content = files.read_regular(path).decode(errors="replace")
    except OSError:
        return False
    process = re.search(r"^(?:pid=)?(\d+)$", content, re.MULTILINE)
    host = re.search(r"^host=(.*)$", content, re.MULTILINE) or re.search(r"^\d+\n(.*)$", content, re.MULTILINE)
    if process is None:
        return empty or bool(content.strip())
    if host is None or host[1] != socket.gethostname():
        return True
    try:
        os.kill(int(process[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
