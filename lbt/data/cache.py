"""Decoded once: one file a data set, found stale when its source changes, never seen half-written.

A cache file is believed in its pixels (of text: its tokens and their vocabulary) alone. What the reader knows without
it (`Known`) comes from the reader, so that nobody's file can call itself official.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lbt.data.files import alone, reason, said, tell
from lbt.data.forms import Tokens
from lbt.data.imageset import ImageSet, image_set, token_set
from lbt.data.vocabulary import vocabulary_of
from lbt.errors import UserError
from lbt.files import irregular, remove_left, replacing

FORMAT = 3  # raise it when a reader or this file's layout changes what is stored
IMAGES = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Known:
    """What a reader knows of its images before it has decoded them.

    Attributes:
        origin: provenance in words, see `ImageSet`; "" means the data set's name.
        official: whether these are the data set's own pixels.
        classes: class names in label order, if they are known.
        labels: int64 [N] and [M] of the training and test images, if they are known.
        text: whether they are sequences of tokens.
    """

    origin: str = ""
    official: bool = False
    classes: tuple[str, ...] | None = None
    labels: tuple[Tensor, Tensor] | None = None
    text: bool = False


def home() -> Path:
    """Returns the folder for data and caches where nothing else is said: `~/.cache/lbt`.

    Raises:
        UserError: this user has no home folder.
    """
    try:
        return Path.home() / ".cache" / "lbt"
    except RuntimeError:
        raise UserError("there is no home folder to look for data in: set data.root, LBT_DATA or HOME") from None


def folders(root: Path) -> list[Path]:
    """Returns where the cache of the sources under `root` may lie, in order of preference."""
    root = Path(os.path.abspath(root))
    mark = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    found = [root / ".lbt-cache"]
    with suppress(UserError):
        found.append(home() / "decoded" / f"{root.name}-{mark}")
    return found


def writable(root: Path) -> Path | None:
    """Makes the first of `folders(root)` that can be written to and returns it; None where there is none."""
    for folder in folders(root):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


def cached(
    name: str, root: Path, state: str, build: Callable[[], ImageSet], known: Known | None = None, **options: Any
) -> ImageSet:
    """Returns `build()`, from its cache file where that is whole and was made from the same source.

    The file is `<root>/.lbt-cache/<name>[-options].pt` (below `~/.cache/lbt` where `root` is read-only). Its pixels
    are mapped, not read, and compared with the fingerprint stored beside them. Where several processes need it at
    once, one builds and the others wait.

    Args:
        name: the data set's name.
        root: the folder its source lies under.
        state: digest of the source's files (names, sizes, times): another one means another source.
        build: decodes the source.
        known: what the file is not asked for; without it the data are not official.
        options: the reader's arguments that change the result; each combination has its own file.
    """
    known = known or Known()
    file = name + "".join(f"-{option}{_short(value)}" for option, value in sorted(options.items())) + ".pt"
    key = f"{FORMAT} {state} {file}"
    for folder in folders(root):
        if (images := _read(folder / file, key, name, known)) is not None:
            return images
    folder = writable(root)
    if folder is None:
        tell(f"{name} cannot be cached: {' and '.join(map(said, folders(root)))} cannot be written to")
        return _as_known(build(), name, known)
    with alone(folder / f"{file}.lock") as locked:
        images = _read(folder / file, key, name, known)  # another process may have built it meanwhile
        if images is None:
            images = _as_known(build(), name, known)
            _write(folder / file, key, images, locked)
    return images


def _short(value: object) -> str:
    """Returns an option's value as a part of a file's name."""
    text = str(value)
    return (
        text if re.fullmatch(r"[\w.+-]{1,40}", text, re.ASCII) else hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    )


def _as_known(images: ImageSet, name: str, known: Known) -> ImageSet:
    return replace(images, origin=known.origin or name, official=known.official)


def _read(path: Path, key: str, name: str, known: Known) -> ImageSet | None:
    """Returns the content of a cache file, or None where it is absent, stale or damaged."""
    try:
        if irregular(path.stat().st_mode) is not None:
            raise ValueError("it is no file")
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if stored["key"] != key:
            return None
        images = _checked(name, stored, known)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can fail in every way there is; the source is still there
        tell(f"{said(path)} is damaged ({reason(error)}) and is made again")
        return None
    return images


def _checked(name: str, stored: dict[str, Any], known: Known) -> ImageSet:
    """Returns the images of a cache file.

    Raises:
        ValueError: they are not those whose fingerprint it has, or not what the reader knows of them.
    """
    parts = [stored[part] for part in IMAGES]
    if not all(isinstance(part, Tensor) and part.is_contiguous() for part in parts):  # repeated ones have no limit
        raise ValueError("its parts are no tensors")
    classes = tuple(json.loads(stored["classes"]))
    if not all(isinstance(cls, str) for cls in classes) or classes != (known.classes or classes):
        raise ValueError("its classes are others")
    for labels, expected in zip(parts[1::2], known.labels or parts[1::2], strict=True):
        if not torch.equal(labels, expected):
            raise ValueError("its labels are others")
    words = {"origin": known.origin or name, "official": known.official}
    if known.text:
        vocabulary = vocabulary_of(stored["tokenizer"])
        images = token_set(name, parts[:2], parts[2:], classes, vocabulary=vocabulary, **words)
    else:
        images = image_set(name, parts[:2], parts[2:], classes, **words)
    if images.fingerprint != stored["fingerprint"]:
        raise ValueError("its fingerprint differs")
    return images


def _write(path: Path, key: str, images: ImageSet, locked: bool) -> None:
    """Writes a cache file; where that fails (disk full) nothing is left behind and the run goes on without it."""
    stored = {part: getattr(images, part) for part in (*IMAGES, "fingerprint")}
    stored |= {"key": key, "classes": json.dumps(images.classes)}
    if isinstance(images.form, Tokens):
        stored["tokenizer"] = images.form.vocabulary.tokenizer
    try:
        remove_left(path, locked=locked)
        with replacing(path) as file:
            torch.save(stored, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        tell(f"{said(path)} cannot be written: {reason(error)}")
