"""What the tests of the data share: folders of pictures, and what a mistake is told as."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lbt.data import load
from lbt.errors import UserError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BOTH = ("image_folder", "image_stream")


def error_line(name, root, **options) -> str:
    """Returns the one line that loading a data set fails with."""
    with pytest.raises(UserError) as caught:
        load(name, root, **options)
    return one_line(str(caught.value))


def one_line(text: str) -> str:
    """Returns a message that is one line which UTF-8 can hold."""
    assert "\n" not in text
    text.encode()
    return text


def first_read(name, root, resolution=8):
    """Returns the training images, decoded whenever they are: uint8 [N, 3, H, W]."""
    images = load(name, root, resolution=resolution).train_images
    return next(iter(images.split(len(images))))


def save(path: Path, pixels: np.ndarray, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(root: Path, *names: str) -> None:
    """Saves a small picture of its own under each name."""
    for name in names:
        save(root / name, noise(len(name), 8, 8, 3))


def exif(*tags: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """Returns a block of EXIF with tags (number, type, count, four bytes), whose values are not checked."""
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + tail


def left_behind(root: Path) -> list[str]:
    """Half-written and temporary files and folders, and locks, below `root`."""
    found = [path for path in root.rglob("*") if path.suffix in (".tmp", ".part", ".lock")]
    return [str(path) for path in [*found, *(path for path in root.rglob("tmp*") if path.is_dir())]]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
