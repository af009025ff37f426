"""The data sets by name: each reader finds its source under a folder and returns it as an `ImageSet`.

A new data set is one function here under `@source` (its keyword arguments are its options) and one YAML in
`configs/data`. A reader that decodes files wraps that work in `cached`.
"""

import os
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from lbt.config.binding import convert
from lbt.data.cache import cached, home, writable
from lbt.data.download import download, verify
from lbt.data.folders import Listing, decode, labelled, listing, scored_split
from lbt.data.imageset import ImageSet, held_out, image_set
from lbt.errors import UserError, did_you_mean

SOURCES: dict[str, Callable[..., ImageSet]] = {}

CIFAR10_COUNTS = (50_000, 10_000)
CIFAR10_CLASSES = 10
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_COUNTS = (100_000, 10_000)
TINY_CLASSES = 200


def source(reader: Callable[..., ImageSet]) -> Callable[..., ImageSet]:
    """Registers a reader under its function's name."""
    SOURCES[reader.__name__] = reader
    return reader


def load(name: str, root: str | Path | None = None, **options: Any) -> ImageSet:
    """Reads a data set, from its cache where its source is unchanged.

    Args:
        name: a key of `SOURCES`.
        root: the folder with the data; None means `$LBT_DATA`, else `~/.cache/lbt`.
        options: the reader's own keyword arguments, e.g. `resolution` (pixels) of `image_folder`.

    Raises:
        UserError: unknown name or option, or data that is absent, truncated or altered; names the file and the remedy.
    """
    if name not in SOURCES:
        raise UserError(f'there is no data set "{name}"{did_you_mean(name, SOURCES)}')
    known = {key: hint for key, hint in get_type_hints(SOURCES[name]).items() if key not in ("root", "return")}
    for option, value in options.items():
        if option not in known:
            raise UserError(f'data set {name} has no option "{option}"{did_you_mean(option, known)}')
        try:
            options[option] = value = convert(value, known[option], option)
            fits = type(value) is not int or value >= 1
        except UserError:
            fits = False
        if not fits:
            hint = known[option]
            kind = "a whole number of at least 1" if hint is int else f"of type {getattr(hint, '__name__', hint)}"
            raise UserError(f"data set {name}: {option} must be {kind}, not {value!r}")
    root = root or os.environ.get("LBT_DATA") or home()
    return SOURCES[name](Path(root).expanduser(), **options)


@source
def digits(root: Path) -> ImageSet:
    """scikit-learn's embedded 8x8 digits: 1,437 + 360 images, a fixed stratified split; `root` is not looked at."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy(((data.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8))  # 0..16 to 0..255
    images = grey[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(data.target.astype(np.int64))
    test = held_out(labels, 360, seed=0)
    pairs = (images[~test], labels[~test]), (images[test], labels[test])
    return image_set("digits", *pairs, tuple("0123456789"), origin="digits (scikit-learn)", official=True)


@source
def synthetic(root: Path, size: int = 4096, test_size: int = 1024, classes: int = 10, resolution: int = 32) -> ImageSet:
    """Seeded images of any number and size, for benchmarks: a pattern of 8x8 tiles a class under as much noise.

    Args:
        root: not looked at; nothing is cached.
        size: training images.
        test_size: test images.
        classes: number of classes; the labels go round.
        resolution: height and width in pixels.
    """
    random = np.random.RandomState(0)  # a frozen stream: the same pixels on every platform
    tiles = random.randint(0, 128, (classes, 3, 8, 8), dtype=np.uint8)
    place = np.arange(resolution) * 8 // resolution
    patterns = torch.from_numpy(tiles[:, :, place][..., place])

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = random.randint(0, 128, (count, 3, resolution, resolution), dtype=np.uint8)
        return torch.from_numpy(noise).add_(patterns[labels]), labels

    names = tuple(map(str, range(classes)))
    origin = f"synthetic ({size}+{test_size} images of {classes} classes, {resolution}x{resolution})"
    return image_set("synthetic", draw(size), draw(test_size), names, origin=origin, official=True)


@source
def cifar10(root: Path) -> ImageSet:
    """CIFAR-10: the official files under `root`, else an image folder there, else the official download over HTTPS.

    Official are `cifar-10-batches-py/` and `cifar-10-python.tar.gz`, their checksums verified before they are opened;
    unofficial is `[cifar10/]{train,test}/<class>/*`, which must be complete: class folders sorted by name are the
    labels.

    Raises:
        UserError: a damaged file, an incomplete folder, or a failed download.
    """
    from torchvision.datasets import CIFAR10

    batches, archive = root / CIFAR10.base_folder, root / CIFAR10.filename
    if not batches.is_dir() and not archive.exists():
        for folder in (root / "cifar10", root):
            if (folder / "train").is_dir() or (folder / "test").is_dir():
                return _cifar10_folder(root, folder)
        remedy = "or point data.root at an image folder {train,test}/<class>/*"
        download(CIFAR10.url, archive, CIFAR10.tgz_md5, remedy)
    found = listing(root, CIFAR10.base_folder) if batches.is_dir() else listing(archive)
    return cached("cifar10", root, found.state, lambda: _cifar10_official(root, archive))


def _cifar10_official(root: Path, archive: Path) -> ImageSet:
    """Reads the official batches from their folder, or out of the archive by way of a temporary folder."""
    from torchvision.datasets import CIFAR10

    if (root / CIFAR10.base_folder).is_dir():
        return _cifar10_batches(root)
    verify(archive, CIFAR10.tgz_md5)
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list] + [CIFAR10.meta["filename"]]
    with tempfile.TemporaryDirectory(dir=writable(root)) as folder, tarfile.open(archive) as tar:
        target = Path(folder) / CIFAR10.base_folder
        target.mkdir()
        for name in names:
            content = tar.extractfile(f"{CIFAR10.base_folder}/{name}")
            (target / name).write_bytes(content.read())
        return _cifar10_batches(Path(folder))


def _cifar10_batches(root: Path) -> ImageSet:
    """Reads `root/cifar-10-batches-py` through torchvision, each file's checksum first (they are pickles)."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]:
        verify(folder / name, md5, remedy=f"delete the folder {folder} and run again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the age of the pickles
        parts = [CIFAR10(root, train=train) for train in (True, False)]
    pairs = [(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts]
    return image_set("cifar10", *pairs, tuple(parts[0].classes), origin="cifar10 (official)", official=True)


def _cifar10_folder(root: Path, folder: Path) -> ImageSet:
    """Reads a complete `folder/{train,test}/<class>/*` of 32x32 images."""
    found = listing(folder, "train", "test")
    train, test = labelled(found.names, "train"), labelled(found.names, "test")
    classes = sorted({cls for _, cls in train + test})
    if (len(train), len(test), len(classes)) != (*CIFAR10_COUNTS, CIFAR10_CLASSES):
        raise UserError(
            f"{folder} has {len(train):,} training and {len(test):,} test images of {len(classes)} classes, CIFAR-10 "
            f"has {CIFAR10_COUNTS[0]:,} and {CIFAR10_COUNTS[1]:,} of {CIFAR10_CLASSES}: complete or remove the folder, "
            f"or train on it as data=image_folder"
        )
    origin = f"cifar10 (unofficial: image folder, {_formats(train + test)})"
    return cached("cifar10", root, found.state, lambda: _from_folder("cifar10", found, (train, test), 32, origin))


@source
def tiny_imagenet(root: Path) -> ImageSet:
    """Tiny ImageNet, 64x64: the official folder or zip under `root` (or `root` itself), else the official download.

    The test set is the official `val`, labelled by `val_annotations.txt`; the classes are the WordNet ids in order.

    Raises:
        UserError: a damaged or incomplete source, or a failed download.
    """
    archive = root / "tiny-imagenet-200.zip"
    folder = next((base for base in (root / "tiny-imagenet-200", root) if (base / "train").is_dir()), None)
    if folder and not (folder == root and archive.exists()):
        found = listing(folder, "train", "val")
        how = "official files: folder, counts checked"
        return cached("tiny_imagenet", root, found.state, lambda: _tiny(folder, found.names, _reader(folder), how))
    if not archive.exists():
        download(TINY_URL, archive, TINY_MD5, "or point data.root at the unpacked folder")
    return cached("tiny_imagenet", root, listing(archive).state, lambda: _tiny_zip(archive))


def _tiny_zip(archive: Path) -> ImageSet:
    """Reads the official zip without unpacking it, its checksum first."""
    verify(archive, TINY_MD5)
    inside = "tiny-imagenet-200/"
    with zipfile.ZipFile(archive) as file:
        names = sorted(name.removeprefix(inside) for name in file.namelist() if name.startswith(inside))
        how = "official files: zip, checksum verified"
        return _tiny(archive, names, lambda name: file.read(inside + name), how)


def _tiny(base: Path, names: list[str] | tuple[str, ...], read: Callable[[str], bytes], how: str) -> ImageSet:
    """Reads `train/<wnid>/images/*` and `val/images/*` out of a folder or zip."""
    train = labelled(names, "train", below="images")
    notes = "val/val_annotations.txt"
    rows = [line.split() for line in read(notes).decode().splitlines()] if notes in names else []
    present = set(names)
    test = sorted((f"val/images/{row[0]}", row[1]) for row in rows if len(row) > 1)
    test = [pair for pair in test if pair[0] in present]
    classes = {cls for _, cls in train}
    if (len(train), len(test), len(classes)) != (*TINY_COUNTS, TINY_CLASSES) or {cls for _, cls in test} - classes:
        raise UserError(
            f"{base} has {len(train):,} training and {len(test):,} annotated val images of {len(classes)} classes, "
            f"Tiny ImageNet has {TINY_COUNTS[0]:,} and {TINY_COUNTS[1]:,} of {TINY_CLASSES}: "
            f"unpack {TINY_URL} again"
        )
    return _decoded("tiny_imagenet", base, (train, test), read, 64, f"tiny_imagenet ({how})", official=True)


@source
def image_folder(root: Path, resolution: int = 32) -> ImageSet:
    """Anybody's images: `root/{train,test}/<class>/*` (or `val` for `test`), scaled and centre-cropped.

    Args:
        root: the folder.
        resolution: height and width in pixels to scale to.

    Raises:
        UserError: a folder is absent or empty, or test has a class that train has not.
    """
    second = scored_split(root)
    found = listing(root, "train", second)
    train, test = labelled(found.names, "train"), labelled(found.names, second)
    for split, pairs in (("train", train), (second, test)):
        if not pairs:
            raise UserError(f"{root / split}/<class>/ has no images: put them there, or set data.root to their folder")
    if strange := sorted({cls for _, cls in test} - {cls for _, cls in train}):
        raise UserError(
            f"{root / second / strange[0]} is a class that {root / 'train'} lacks: add it there or remove it"
        )
    origin = f"image_folder ({root.resolve().name}, {_formats(train + test)}, scaled to {resolution}x{resolution})"

    def build() -> ImageSet:
        return _from_folder("image_folder", found, (train, test), resolution, origin, resize=True)

    return cached("image_folder", root, found.state, build, resolution=resolution)


Pairs = list[tuple[str, str]]  # (file, class)


def _from_folder(
    name: str, found: Listing, splits: tuple[Pairs, Pairs], resolution: int, origin: str, *, resize: bool = False
) -> ImageSet:
    read = _reader(found.base)
    return _decoded(name, found.base, splits, read, resolution, origin, official=False, resize=resize)


def _decoded(
    name: str,
    base: Path,
    splits: tuple[Pairs, Pairs],
    read: Callable[[str], bytes],
    resolution: int,
    origin: str,
    *,
    official: bool,
    resize: bool = False,
) -> ImageSet:
    """Decodes both splits; the classes are those of the first, sorted by name."""
    classes = sorted({cls for _, cls in splits[0]})
    label = {cls: index for index, cls in enumerate(classes)}
    pairs = [
        (
            decode(base, [file for file, _ in split], read, resolution, resize=resize),
            torch.tensor([label[cls] for _, cls in split]),
        )
        for split in splits
    ]
    return image_set(name, *pairs, tuple(classes), origin=origin, official=official)


def _reader(base: Path) -> Callable[[str], bytes]:
    return lambda name: (base / name).read_bytes()


def _formats(pairs: Pairs) -> str:
    """Names the file formats by their suffixes, e.g. "JPEG"."""
    suffixes = {os.path.splitext(file)[1][1:].upper() for file, _ in pairs}
    return " and ".join(sorted({"JPEG" if suffix == "JPG" else suffix for suffix in suffixes}))
