"""Image files: listing them, reading them from a folder or a zip, decoding them to one tensor."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lbt.errors import UserError, flat

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
CHUNK = 256  # images a task of the decoding threads
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class Listing:
    """The files below a folder (or the one file `base` itself) as they are now.

    Attributes:
        base: the folder or file.
        names: paths relative to `base` with forward slashes, sorted by code point; hidden ones are left out.
        state: digest of names, sizes and modification times: a changed source is a changed state.
    """

    base: Path
    names: tuple[str, ...]
    state: str


def listing(base: Path, *parts: str) -> Listing:
    """Lists `base`, a file, or everything below its folders `parts`.

    Raises:
        UserError: a folder cannot be read.
    """
    found: list[tuple[str, int, int]] = []
    try:
        if base.is_file():
            _add(found, base.name, base.stat())
        waiting = [part for part in parts if (base / part).is_dir()]
        while waiting:
            folder = waiting.pop()
            with os.scandir(base / folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(f"{folder}/{entry.name}")
                    else:
                        _add(found, f"{folder}/{entry.name}", entry.stat())
    except OSError as error:
        raise UserError(f"{error.filename or base} cannot be read ({error.strerror}): check its permissions") from error
    found.sort()
    text = "\n".join(f"{name}\t{size}\t{time}" for name, size, time in found)
    state = hashlib.sha256(f"{base.name}\n{text}".encode(errors="surrogateescape")).hexdigest()
    return Listing(base, tuple(name for name, _, _ in found), state)


def _add(found: list[tuple[str, int, int]], name: str, stat: os.stat_result) -> None:
    found.append((name, stat.st_size, stat.st_mtime_ns))


def is_image(name: str) -> bool:
    """Tells by the suffix whether a file is an image."""
    return name.lower().endswith(SUFFIXES)


def scored_split(root: Path) -> str:
    """Names the folder that is scored: `test` if it has class folders (ImageNet's does not), else `val`, if any."""
    return "val" if (root / "val").is_dir() and not any((root / "test").glob("[!.]*/")) else "test"


def labelled(names: Sequence[str], split: str, below: str = "") -> list[tuple[str, str]]:
    """Returns (name, class) of the images `<split>/<class>/[<below>/]<file>` among `names`, ordered by class, name."""
    depth = 4 if below else 3
    found = []
    for name in names:
        parts = name.split("/")
        if len(parts) == depth and parts[0] == split and (not below or parts[2] == below) and is_image(name):
            found.append((parts[1], name))
    return [(name, cls) for cls, name in sorted(found)]


def decode(
    base: Path | str, names: Sequence[str], read: Callable[[str], bytes], resolution: int, *, resize: bool = False
) -> Tensor:
    """Decodes images to RGB by Pillow, in one thread a core (Pillow decodes outside the interpreter lock).

    Args:
        base: where the names lie, for messages.
        names: what to decode, in order.
        read: gives the bytes of a name.
        resolution: height and width in pixels.
        resize: whether to scale the shorter side to `resolution` (bilinear, anti-aliased), turn as EXIF says and
            cut out the centre; else an image of another size is an error.

    Returns:
        uint8 [len(names), 3, resolution, resolution].

    Raises:
        UserError: an image is truncated, unreadable or of another size; names the file.
    """
    out = np.empty((len(names), 3, resolution, resolution), np.uint8)

    def work(start: int) -> None:
        for index in range(start, min(start + CHUNK, len(names))):
            try:
                pixels = decode_one(read(names[index]), resolution, resize)
            except UNREADABLE as error:
                raise UserError(
                    f"{os.path.join(base, names[index])} cannot be read as an image ({flat(error)}): replace the file"
                ) from error
            out[index] = pixels.transpose(2, 0, 1)

    pool = ThreadPoolExecutor(min(16, cores()))
    try:
        for _ in pool.map(work, range(0, len(names), CHUNK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.from_numpy(out)


def decode_one(data: bytes, resolution: int, resize: bool) -> np.ndarray:
    """Decodes one image to uint8 [resolution, resolution, 3]."""
    size = (resolution, resolution)
    with Image.open(BytesIO(data)) as image:
        if not resize and image.size != size:
            raise ValueError(f"it is {image.width}x{image.height} pixels instead of {resolution}x{resolution}")
        image.load()
        rgb = _rgb(image)
        if resize:
            rgb = ImageOps.fit(ImageOps.exif_transpose(rgb), size, method=Image.Resampling.BILINEAR)
        return np.asarray(rgb)


def _rgb(image: Image.Image) -> Image.Image:
    """Converts to 8 bits a channel; of 16 bits the upper 8 are kept, where Pillow cuts greys off at 255."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("its pixels are 32-bit numbers, which have no white")
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda grey: grey / 256)
    return image if image.mode == "RGB" else image.convert("RGB")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
