"""Image files decoded to one tensor, from wherever their bytes come."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lbt.data.cache import Known
from lbt.data.files import reading
from lbt.data.imageset import ImageSet, image_set
from lbt.data.listing import Pairs
from lbt.files import read_regular

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # Pillow knows others, some of which start programs
MOST_PIXELS = 178_956_970  # of one image: half a gigabyte in colour, and what Pillow refuses unless told otherwise
CHUNK = 256  # images a task of the decoding threads
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # its value -> what puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow finds odd in a file it tells without the file's name; where it matters the decoding fails and names it.
warnings.filterwarnings("ignore", module=r"PIL\.")


def labels_of(splits: Sequence[Pairs]) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Returns the classes of the first split, sorted by name, and of each split its labels: int64 [N]."""
    classes = sorted({cls for _, cls in splits[0]})
    label = {cls: index for index, cls in enumerate(classes)}
    return tuple(classes), tuple(torch.tensor([label[cls] for _, cls in split]) for split in splits)


def decode_splits(
    name: str,
    base: Path,
    splits: Sequence[Pairs],
    read: Callable[[str], bytes],
    resolution: int,
    known: Known,
    *,
    resize: bool = False,
) -> ImageSet:
    """Decodes a training and a test split; arguments as of `decode`, labels and classes as of `labels_of`."""
    classes, labels = labels_of(splits)
    images = [decode(base, [file for file, _ in split], read, resolution, resize=resize) for split in splits]
    pairs = zip(images, labels, strict=True)
    return image_set(name, *pairs, classes, origin=known.origin or name, official=known.official)


def folder_reader(base: Path) -> Callable[[str], bytes]:
    """Returns what gives the bytes of a file below a folder."""
    return lambda name: read_regular(base / name)


def formats(splits: Sequence[Pairs]) -> str:
    """Names the file formats by their suffixes, e.g. "JPEG"."""
    suffixes = {os.path.splitext(file)[1][1:].upper() for split in splits for file, _ in split}
    return " and ".join(sorted({"JPEG" if suffix == "JPG" else suffix for suffix in suffixes}))


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
            with reading(os.path.join(base, names[index]), "replace the file", "as an image"):
                out[index] = decode_one(read(names[index]), resolution, resize).transpose(2, 0, 1)

    pool = ThreadPoolExecutor(min(16, cores()))
    try:
        for _ in pool.map(work, range(0, len(names), CHUNK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.from_numpy(out)


def opened(data: bytes) -> Image.Image:
    """Returns an image of which only the head has been read.

    Raises:
        ValueError: it is of none of `FORMATS`, whatever its name is, or of more pixels than a picture has.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}, or damaged") from None
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it claims {image.width}x{image.height} pixels")
    return image


def decode_one(data: bytes, resolution: int, resize: bool) -> np.ndarray:
    """Decodes one image to uint8 [resolution, resolution, 3]; see `decode`.

    Raises:
        Exception: of any kind: decoders of damaged images fail in many ways.
    """
    size = (resolution, resolution)
    with opened(data) as image:
        if not resize and image.size != size:
            raise ValueError(f"it is {image.width}x{image.height} pixels instead of {resolution}x{resolution}")
        image.load()
        rgb = _rgb(image)
        if resize:
            rgb = ImageOps.fit(_upright(rgb), size, method=Image.Resampling.BILINEAR)
        return np.asarray(rgb)


def decode_whole(data: bytes) -> np.ndarray:
    """Decodes one image, or an animation's first, to uint8 [H, W, 3], turned as EXIF says.

    Raises:
        Exception: as `decode_one`.
    """
    with opened(data) as image:
        image.load()
        return np.array(_upright(_rgb(image)))


def _upright(image: Image.Image) -> Image.Image:
    """Turns an image as its EXIF says; what is damaged there says nothing, and the pixels are whole all the same."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


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
