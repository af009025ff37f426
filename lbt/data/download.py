"""Official files: downloaded whole or not at all, opened only after their checksum."""

import hashlib
import os
import shutil
import socket
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from lbt.data.files import alone, reading, reason, said
from lbt.errors import UserError
from lbt.files import open_regular, read_regular, remove_left, replacing

TIMEOUT = 30  # seconds a download may stand still
LARGEST = 2 << 30  # bytes: a server may send without an end
_forbidden = ContextVar("_forbidden", default=False)


@contextmanager
def no_downloads() -> Iterator[None]:
    """Has what is not on this machine refused instead of downloaded."""
    before = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(before)


def refuse_where_forbidden(path: Path) -> None:
    """Raises UserError where `no_downloads` has `path` not be downloaded."""
    if _forbidden.get():
        raise UserError(f"{said(path)} is not here")


def _md5(file: BinaryIO) -> str:
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify(path: Path, md5: str, remedy: str = "") -> None:
    """Raises UserError unless the file is there with that checksum."""
    if not path.is_file():
        raise UserError(f"{said(path)} is missing: {remedy or 'put the official file there'}")
    with reading(path, "check its permissions"), open_regular(path) as file:
        _compare(path, _md5(file), md5, remedy)


def verified(path: Path, md5: str, remedy: str = "") -> bytes:
    """Returns a small file's content.

    Raises:
        UserError: it is missing, cannot be read, or has another checksum.
    """
    if not path.is_file():
        raise UserError(f"{said(path)} is missing: {remedy or 'put the official file there'}")
    with reading(path, "check its permissions"):
        content = read_regular(path)
    check(content, path, md5, remedy)
    return content


def check(content: bytes, path: Path, md5: str, remedy: str = "") -> None:
    """Raises UserError unless the content of `path` has that checksum."""
    _compare(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5, remedy)


def _compare(path: Path, found: str, md5: str, remedy: str) -> None:
    if found != md5:
        remedy = remedy or "delete it and run again"
        raise UserError(f"{said(path)} is truncated or not the official file (its MD5 is {found}, not {md5}): {remedy}")


def download(url: str, path: Path, md5: str, remedy: str) -> None:
    """Downloads `url` to `path`, which appears only whole and with the right checksum.

    Raises:
        UserError: no connection, a wrong checksum, or a folder that cannot be written to.
    """
    refuse_where_forbidden(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_name(f".{path.name}.lock")) as locked:
            if path.exists():  # another process fetched it meanwhile
                return
            remove_left(path, locked=locked)
            with replacing(path) as part:
                found = _fetch(url, part)
                if found != md5:
                    raise ValueError(f"what came is truncated or altered: MD5 {found} instead of {md5}")
    except Exception as error:  # a server, a proxy and a disk fail in every way there is
        why = reason(error)
        raise UserError(f"cannot download {url} ({why}): put the archive at {said(path)}, {remedy}") from error


def download_by(fetch: Callable[[Path], object], name: str, root: Path, places: Sequence[str]) -> None:
    """Has a library download a data set; its files and folders appear below `root` together, once all are there.

    Args:
        fetch: downloads into a folder, and checks what came.
        name: of the data set.
        root: where its files are to lie.
        places: these files and folders.

    Raises:
        UserError: no connection, a wrong checksum, or a folder that cannot be written to.
    """
    refuse_where_forbidden(root / places[0])
    patience = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone(root / f".{name}.lock") as locked:
            if any((root / place).exists() for place in places):  # another process fetched it meanwhile
                return
            for left in root.glob(f".{name}-*") if locked else ():
                shutil.rmtree(left, ignore_errors=True)
            socket.setdefaulttimeout(TIMEOUT)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as part:
                fetch(Path(part))
                for place in places:
                    os.replace(Path(part) / place, root / place)
    except Exception as error:  # a server, a proxy and a disk fail in every way there is
        where = " and ".join(said(root / place) for place in places)
        raise UserError(f"cannot download {name} ({reason(error)}): put its files at {where}") from error
    finally:
        socket.setdefaulttimeout(patience)


def _fetch(url: str, part: BinaryIO) -> str:
    """Writes what `url` gives to a file and returns its MD5."""
    digest, left = hashlib.md5(usedforsecurity=False), LARGEST
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        while block := response.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise ValueError(f"more than {LARGEST >> 30} GiB came")
            digest.update(block)
            part.write(block)
    return digest.hexdigest()
