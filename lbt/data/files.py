"""What is said of the data's files, and the lock of those that several processes make."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX: nobody waits for anybody
    fcntl = None

from lbt.errors import UserError, flat


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
