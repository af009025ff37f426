"""Tiny ImageNet (Stanford's CS231n): the official folder or zip."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lbt.data.cache import Known, cached
from lbt.data.download import download, verify
from lbt.data.files import reading, said
from lbt.data.folders import decode_splits, folder_reader, labels_of
from lbt.data.imageset import ImageSet
from lbt.data.listing import Pairs, labelled, listing
from lbt.data.sources import source
from lbt.errors import UserError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
COUNTS = (100_000, 10_000)
CLASSES = 200
NOTES = "val/val_annotations.txt"


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
        return _folder(root, folder)
    if not archive.exists():
        download(URL, archive, MD5, "or point data.root at the unpacked folder")
    known = Known("tiny_imagenet (official files: zip, checksum verified)", official=True)
    return cached("tiny_imagenet", root, listing(archive).state, lambda: _zip(archive, known), known)


def _folder(root: Path, folder: Path) -> ImageSet:
    found, read = listing(folder, "train", "val"), folder_reader(folder)
    splits = _splits(folder, found.names, read)
    known = Known("tiny_imagenet (official files: folder, counts checked)", True, *labels_of(splits))

    def build() -> ImageSet:
        return decode_splits("tiny_imagenet", folder, splits, read, 64, known)

    return cached("tiny_imagenet", root, found.state, build, known)


def _zip(archive: Path, known: Known) -> ImageSet:
    """Reads the official zip without unpacking it, its checksum first."""
    verify(archive, MD5)
    inside = "tiny-imagenet-200/"
    with reading(archive, "delete it and run again"), zipfile.ZipFile(archive) as file:
        names = sorted(name.removeprefix(inside) for name in file.namelist() if name.startswith(inside))

        def read(name: str) -> bytes:
            return file.read(inside + name)

        return decode_splits("tiny_imagenet", archive, _splits(archive, names, read), read, 64, known)


def _splits(base: Path, names: Sequence[str], read: Callable[[str], bytes]) -> tuple[Pairs, Pairs]:
    """Returns the images of `train/<wnid>/images/*` and `val/images/*` in a folder or zip, with their classes."""
    train, present = labelled(names, "train", below="images"), set(names)
    rows = []
    if NOTES in present:
        with reading(base / NOTES, f"unpack {URL} again"):
            rows = [line.split() for line in read(NOTES).decode().splitlines()]
    test = sorted((f"val/images/{row[0]}", row[1]) for row in rows if len(row) > 1)
    test = [pair for pair in test if pair[0] in present]
    classes = {cls for _, cls in train}
    if (len(train), len(test), len(classes)) != (*COUNTS, CLASSES) or {cls for _, cls in test} - classes:
        raise UserError(
            f"{said(base)} has {len(train):,} training and {len(test):,} annotated val images of {len(classes)} "
            f"classes, Tiny ImageNet has {COUNTS[0]:,} and {COUNTS[1]:,} of {CLASSES}: unpack {URL} again"
        )
    return train, test
