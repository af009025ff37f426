"""Decoded once: one file a data set, found stale when its source changes, never seen half-written."""

import hashlib
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from lbt.data.imageset import ImageSet, fingerprint
from lbt.errors import flat

FORMAT = 2  # raise it when a reader or this file's layout changes what is stored
log = logging.getLogger(__name__)


def home() -> Path:
    """Returns the folder for data and caches where nothing else is said: `~/.cache/lbt`."""
    return Path.home() / ".cache" / "lbt"


def folders(root: Path) -> list[Path]:
    """Returns where the cache of the sources under `root` may lie, in order of preference."""
    root = Path(os.path.abspath(root))
    mark = hashlib.sha256(os.fspath(root).encode()).hexdigest()[:8]
    return [root / ".lbt-cache", home() / "decoded" / f"{root.name}-{mark}"]


def writable(root: Path) -> Path | None:
    """Makes the first of `folders(root)` that can be written to and returns it; None where there is none."""
    for folder in folders(root):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; on success its file becomes `path`, on any failure it is removed.

    The caller holds a lock on `path`, so what a killed process left under such a name can be removed here too.

    Raises:
        OSError: the folder cannot be written to.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def cached(name: str, root: Path, state: str, build: Callable[[], ImageSet], **options: Any) -> ImageSet:
    """Returns `build()`, from its cache file where that is whole and was made from the same source.

    The file is `<root>/.lbt-cache/<name>[-options].pt` (below `~/.cache/lbt` where `root` is read-only). Its pixels
    are mapped, not read, and compared with the fingerprint stored beside them. Where several processes need it at
    once, one builds and the others wait.

    Args:
        name: the data set's name.
        root: the folder its source lies under.
        state: digest of the source's files (names, sizes, times): another one means another source.
        build: decodes the source.
        options: the reader's arguments that change the result; each combination has its own file.
    """
    key = f"{FORMAT} {state}"
    file = name + "".join(f"-{option}{value}" for option, value in sorted(options.items())) + ".pt"
    for folder in folders(root):
        if (images := _read(folder / file, key)) is not None:
            return images
    folder = writable(root)
    if folder is None:
        log.warning("%s cannot be cached: neither %s nor %s can be written to", name, *folders(root))
        return build()
    with FileLock(folder / f"{file}.lock"):
        images = _read(folder / file, key)  # another process may have built it meanwhile
        if images is None:
            log.info("decoding %s into %s", name, folder / file)
            images = build()
            _write(folder / file, key, images)
    return images


def _read(path: Path, key: str) -> ImageSet | None:
    """Returns the content of a cache file, or None where it is absent, stale or damaged."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if stored.pop("key") != key:
            return None
        stored["classes"] = tuple(json.loads(stored["classes"]))
        images = ImageSet(**stored)
        found = fingerprint(images.train_images, images.train_labels, images.test_images, images.test_labels)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can fail in every way there is; the source is still there
        log.warning("%s is damaged (%s) and is made again", path, type(error).__name__)
        return None
    if found != images.fingerprint:
        log.warning("%s is damaged (its fingerprint differs) and is made again", path)
        return None
    return images


def _write(path: Path, key: str, images: ImageSet) -> None:
    """Writes a cache file; where that fails (disk full) nothing is left behind and the run goes on without it."""
    stored = dict(vars(images), key=key, classes=json.dumps(images.classes))
    try:
        with replacing(path) as temporary:
            torch.save(stored, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        log.warning("%s cannot be written: %s", path, flat(error))
