"""CIFAR-10 (Krizhevsky 2009): the official files or an image folder of all of it."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lbt.data.cache import Known, cached
from lbt.data.download import check, download, verified, verify
from lbt.data.files import reading, said
from lbt.data.folders import decode_splits, folder_reader, formats, labels_of
from lbt.data.imageset import ImageSet, image_set
from lbt.data.listing import labelled, listing
from lbt.data.pickles import arrays
from lbt.data.sources import source
from lbt.errors import UserError

COUNTS = (50_000, 10_000)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OFFICIAL = Known("cifar10 (official)", official=True, classes=CLASSES)


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
    if batches.is_dir():
        return cached("cifar10", root, listing(root, CIFAR10.base_folder).state, lambda: _folder(batches), OFFICIAL)
    if not archive.exists():
        for folder in (root / "cifar10", root):
            if (folder / "train").is_dir() or (folder / "test").is_dir():
                return _images(root, folder)
        remedy = "or point data.root at an image folder {train,test}/<class>/*"
        download(CIFAR10.url, archive, CIFAR10.tgz_md5, remedy)
    return cached("cifar10", root, listing(archive).state, lambda: _archive(archive), OFFICIAL)


def _folder(batches: Path) -> ImageSet:
    remedy = f"delete the folder {said(batches)} and run again"
    return _batches(batches, lambda name, md5: verified(batches / name, md5, remedy), remedy)


def _archive(archive: Path) -> ImageSet:
    """Reads the batches out of the official archive without unpacking it, its checksum first."""
    from torchvision.datasets import CIFAR10

    verify(archive, CIFAR10.tgz_md5)
    with reading(archive, remedy := "delete it and run again"), tarfile.open(archive) as tar:

        def read(name: str, md5: str) -> bytes:
            member = tar.extractfile(f"{CIFAR10.base_folder}/{name}")
            if member is None:
                raise ValueError(f"{name} in it is no file")
            check(content := member.read(), archive / name, md5, remedy)
            return content

        return _batches(archive, read, remedy)


def _batches(base: Path, read: Callable[[str, str], bytes], remedy: str) -> ImageSet:
    """Makes the set of the official batches.

    Args:
        base: where they lie, for messages.
        read: gives the content of a batch by name and MD5.
        remedy: for messages.
    """
    from torchvision.datasets import CIFAR10

    contents = [[(name, read(name, md5)) for name, md5 in part] for part in (CIFAR10.train_list, CIFAR10.test_list)]
    pairs = []
    for part in contents:
        pixels, labels = [], []
        for name, content in part:
            with reading(base / name, remedy):
                batch = arrays(content)
                pixels.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
                labels += [int(label) for label in batch["labels"]]
        pairs.append((torch.from_numpy(np.concatenate(pixels)), torch.tensor(labels)))
    return image_set("cifar10", *pairs, CLASSES, origin=OFFICIAL.origin, official=True)


def _images(root: Path, folder: Path) -> ImageSet:
    """Reads a complete `folder/{train,test}/<class>/*` of 32x32 images."""
    found = listing(folder, "train", "test")
    splits = labelled(found.names, "train"), labelled(found.names, "test")
    classes = {cls for split in splits for _, cls in split}
    counts = tuple(len(split) for split in splits)
    if (counts, len(classes)) != (COUNTS, len(CLASSES)):
        raise UserError(
            f"{said(folder)} has {counts[0]:,} training and {counts[1]:,} test images of {len(classes)} classes, "
            f"CIFAR-10 has {COUNTS[0]:,} and {COUNTS[1]:,} of {len(CLASSES)}: complete or remove the folder, "
            f"or train on it as data=image_folder"
        )
    if missing := sorted(classes - {cls for _, cls in splits[0]}):
        raise UserError(f"{said(folder / 'train')} lacks the class {said(missing[0])}: complete the folder")
    known = Known(f"cifar10 (unofficial: image folder, {formats(splits)})", False, *labels_of(splits))

    def build() -> ImageSet:
        return decode_splits("cifar10", folder, splits, folder_reader(folder), 32, known)

    return cached("cifar10", root, found.state, build, known)
