"""The lock a process holds while it executes a run, also where the file system has none of the system's."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from lbt.errors import UserError
from lbt.files import open_regular
from lbt.records import places

LOOKED_AT = 0.5  # seconds; who only looks whether the lock is held (`lbt status`) has it for an instant


@contextmanager
def held(results_dir: str | Path, name: str) -> Iterator[None]:
    """Holds the lock of a run.

    Some file systems (Lustre mounted without it, some FUSE mounts) do not know `flock`. There a second file beside the
    lock says by its existence that the run is executed; it may outlive a process that was killed.

    Args:
        results_dir: where results lie.
        name: the run's id.

    Raises:
        filelock.Timeout: another process has it.
        UserError: the folder cannot be written to, or the second file is there.
    """
    path = places.lock_of(results_dir, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        known = _knows_flock(path)
    except OSError as error:
        raise UserError(f"results_dir={results_dir}: cannot be written to ({error.strerror})") from error
    taken = path.with_suffix(".taken")
    lock = FileLock(path) if known else SoftFileLock(taken)
    try:
        lock.acquire(timeout=LOOKED_AT if known else 0, poll_interval=0.02)
    except Timeout:
        if known:
            raise
        raise UserError(
            f"{taken}: another process executes run {name}, or one was killed: this file system has no locks that "
            f"tell; delete the file if none does"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _knows_flock(path: Path) -> bool:
    with open_regular(path) as file:  # a pipe of that name would be waited for
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
