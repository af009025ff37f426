"""Reading and writing single files: only what is a file is read, whole or not at all is written, and errors name it."""

import os
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # no POSIX: nobody waits for anybody
    fcntl = None

from lbt.errors import UserError, flat

LARGEST = 2 << 30  # bytes of one file that is read at once: no image and no pickled batch has as many
ABANDONED = 3600.0  # seconds after which nobody is still writing a file


def said(path: object) -> str:
    """Returns a path as messages and records show it: in one line, and without what UTF-8 cannot hold."""
    text = os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else str(path)
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def tell(text: str) -> None:
    """Says what a user is to know of the data and what stops no run; the command keeps the log to itself."""
    print(f"lbt: {text}", file=sys.stderr)


@contextmanager
def reading(path: object, remedy: str, what: str = "") -> Iterator[None]:
    """Turns whatever goes wrong inside into one line about the file at hand.

    Decoders and archives fail in every way there is, so that no list of exceptions would be complete. Two kinds pass:
    `UserError`, which says what to do already, and `MemoryError`, which says nothing about the file.

    Args:
        path: the file or folder that is read inside.
        remedy: what the user can do about it.
        what: what it is read as, e.g. "as an image".

    Raises:
        UserError: in the place of the exception.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            path = error.filename  # nearer than what the caller knows
        raise UserError(f"{said(path)} cannot be read{what and ' '}{what} ({reason(error)}): {remedy}") from error


def reason(error: Exception) -> str:
    """Returns in a few words what went wrong, without the path, which the message names already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text, kind = said(flat(error)), type(error).__name__
    if isinstance(error, OSError | ValueError | SyntaxError | RuntimeError):  # their words stand for themselves
        return text or kind
    return f"{kind}: {text}" if text else kind


def read_regular(path: Path) -> bytes:
    """Returns a file's content.

    Raises:
        OSError: there is none, it is larger than `LARGEST`, or it is a folder, pipe or device: opening one of those
            may wait for ever.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise OSError(f"it has more than {LARGEST >> 30} GiB")
        return file.read()


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, or what a link leads to.

    Raises:
        OSError: as `read_regular`, save for the size.
    """
    if (wrong := irregular(os.stat(path).st_mode)) is not None:  # before it is opened: that can do things to a device
        raise OSError(wrong)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if (wrong := irregular(os.fstat(handle).st_mode)) is not None:
        os.close(handle)
        raise OSError(wrong)
    return os.fdopen(handle, "rb")


def irregular(mode: int) -> str | None:
    """Says what a file's mode makes it that cannot be read as one; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Waits until no other process is inside with the same lock file, which is removed at the end.

    Gives whether the lock is held. Where the folder or its file system does not allow locks nobody waits: what is
    written is whole all the same.
    """
    handle, locked = _lock(path)
    try:
        yield locked
    finally:
        if locked:
            with suppress(OSError):
                os.unlink(path)  # while it is held: who waits for it sees that it is gone, and makes another
        if handle is not None:
            os.close(handle)


def _lock(path: Path) -> tuple[int | None, bool]:
    """Returns a descriptor of the lock file and whether it is locked."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # a pipe of that name is opened, too
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | nonblocking, 0o666)
        except OSError:
            return None, False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (OSError, AttributeError):
            return handle, False
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle, True
        os.close(handle)


@contextmanager
def replacing(path: Path, *, locked: bool) -> Iterator[BinaryIO]:
    """Gives a file to write to, which becomes `path` on success and is removed on any failure.

    Args:
        path: the file to make or replace.
        locked: the caller holds a lock without which nobody writes `path`: what a killed process left under a
            temporary name goes at once, not only when it is an hour old.

    Raises:
        OSError: the folder cannot be written to.
    """
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.name.endswith(".tmp"):
            with suppress(OSError):
                if locked or time.time() - left.lstat().st_mtime > ABANDONED:
                    left.unlink()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
