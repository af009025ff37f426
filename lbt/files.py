"""Files are written as a whole or not at all, and only what is a file is read.

A file grows under a temporary name beside its own, `.<name>.tmp`, which one writer at a time holds a lock on. What a
killed process leaves there, the next one to write the same file takes over. Where that name is not to be had (another
writer at the same time, no `flock`, another user's file) it has 32 more digits, and what is left under such a name goes
once it is an hour old, or when the run it belongs to goes on or is found finished.
"""

import errno
import fcntl
import os
import re
import stat
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ABANDONED_SECONDS = 3600.0  # no write takes as long
LARGEST = 2 << 30  # bytes of a file that is read at once: no record, image or pickled batch has as many
_NEW = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Writes `content` to `path` as a whole or not at all; the file has the permissions the user's umask leaves.

    Raises:
        OSError: it cannot be written; what was there before still is, and nothing else.
    """
    with replacing(path) as file:
        file.write(content)


class Appended:
    """A file that begins with `content` and grows; what it is told goes to that file, whatever has its name by then.

    Args:
        path: where it is made, in the place of what is there.
        content: its beginning, written as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, content: bytes):
        self._path = path
        with replacing(path) as file:
            file.write(content)
            file.flush()
            handle = os.dup(file.fileno())
        self._close = weakref.finalize(self, os.close, handle)
        self._handle = handle

    def append(self, content: bytes) -> None:
        """Adds to its end."""
        while content:
            content = content[os.write(self._handle, content) :]

    def in_place(self) -> bool:
        """Says whether the path still names this file."""
        return _is(self._path, self._handle)

    def close(self) -> None:
        """Waits until it is on the disk, and lets go of it."""
        os.fsync(self._handle)
        self._close()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to; on success it is synced and becomes `path`, on any failure it is removed.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    temporary, handle = _open(path)
    with os.fdopen(handle, "wb") as file:  # its lock is held until the file has its name
        try:
            yield file
            file.flush()
            os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                if _is(temporary, handle):  # and not what another writer has there by now
                    os.unlink(temporary)
            raise


def _open(path: Path) -> tuple[Path, int]:
    """Returns a temporary file beside `path` and a descriptor of it, empty."""
    shared = _shared(path)
    while True:
        try:
            handle = os.open(shared, _NEW | os.O_NONBLOCK, 0o666)
        except FileNotFoundError:  # the folder is missing
            raise
        except OSError:  # another user's, a link
            break
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                os.close(handle)
                break
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(shared, handle):
                os.ftruncate(handle, 0)
                return shared, handle
        except BlockingIOError:  # another process writes the same file; whoever ends last has written it
            os.close(handle)
            break
        except OSError:  # no flock on this file system
            if _is(shared, handle):
                os.unlink(shared)
            os.close(handle)
            break
        os.close(handle)  # it has become what another process wrote
    remove_left(path)
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    return own, os.open(own, _NEW | os.O_EXCL, 0o666)


def _is(path: Path, handle: int) -> bool:
    """Says whether `path` still names the file that was opened."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def left(path: Path) -> list[Path]:
    """Returns the temporary files beside `path` that writing it has made, whatever became of their writers."""
    # Earlier versions had eight letters where `tmp` stands now.
    kind = re.compile(rf"\.{re.escape(path.name)}\.(([0-9a-f]{{32}}\.)?tmp|[a-z0-9_]{{8}})")
    with suppress(OSError), os.scandir(path.parent) as entries:
        return [Path(entry.path) for entry in entries if kind.fullmatch(entry.name)]
    return []


def remove_left(path: Path, *, locked: bool = False) -> None:
    """Removes the temporary files beside `path` that killed processes have left.

    Args:
        path: the file they were to become.
        locked: the caller holds a lock without which nobody writes `path`: all of them are left.
    """
    for file in left(path):
        with suppress(OSError):
            if not locked and file == _shared(path) and stat.S_ISREG(file.stat(follow_symlinks=False).st_mode):
                _remove_abandoned(file)
            elif locked or time.time() - file.stat(follow_symlinks=False).st_mtime > ABANDONED_SECONDS:
                file.unlink()


def _shared(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _remove_abandoned(shared: Path) -> None:
    """Removes the file whose writer holds a lock on it, unless that writer lives: then it raises OSError."""
    with open(shared, "rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(shared, opened.fileno()):
            shared.unlink()  # under the lock: a writer that has opened it by now finds it gone, and makes another


class UnreadableError(OSError):
    """What bears a file's name is none, or is too large to be one of ours; its text is the path and why."""

    def __init__(self, path: str | Path, why: str):
        super().__init__(errno.EINVAL, why, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def read_regular(path: str | Path) -> bytes:
    """Returns a file's content; never waits for a pipe's other end or reads a device.

    Raises:
        OSError: there is none, it is no regular file, or larger than `LARGEST`.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise UnreadableError(path, f"it has more than {LARGEST >> 30} GiB")
        return file.read()


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading, or what a link leads to.

    Raises:
        OSError: there is none, or it is something else.
    """
    if (wrong := irregular(os.stat(path).st_mode)) is not None:  # before it is opened: that can do things to a device
        raise UnreadableError(path, wrong)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if (wrong := irregular(os.fstat(handle).st_mode)) is not None:
        os.close(handle)
        raise UnreadableError(path, wrong)
    return os.fdopen(handle, "rb")


def irregular(mode: int) -> str | None:
    """Says what a file's mode makes it that cannot be read as one; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"
