"""CIFAR's official files (Krizhevsky 2009): a folder of pickles, or the archive of it, read without running either."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from lbt.data.cache import Known, cached
from lbt.data.download import check, download, verified, verify
from lbt.data.files import reading, said
from lbt.data.imageset import ImageSet, image_set
from lbt.data.listing import listing
from lbt.data.pickles import arrays

Read = Callable[[str, str], bytes]  # gives the content of a file by name and MD5


def folder(name: str, kind: type[CIFAR10], root: Path, known: Known, labels: str) -> ImageSet | None:
    """Returns the set of the official folder below `root`, None where there is none.

    Args:
        name: the data set's.
        kind: torchvision's class, which knows the files and their checksums.
        root: the folder of the data.
        known: of its images, the classes included.
        labels: what the files call the labels.

    Raises:
        UserError: a file is missing, damaged, or another than the official one.
    """
    batches = root / kind.base_folder
    if not batches.is_dir():
        return None
    remedy = f"delete the folder {said(batches)} and run again"

    def build() -> ImageSet:
        return _set(name, kind, known, labels, batches, lambda file, md5: verified(batches / file, md5, remedy), remedy)

    return cached(name, root, listing(root, kind.base_folder).state, build, known)


def archive(name: str, kind: type[CIFAR10], root: Path, known: Known, labels: str, otherwise: str) -> ImageSet:
    """Returns the set of the official archive below `root`, which is downloaded where there is none.

    It is not unpacked; its checksum is compared first.

    Args:
        name: the data set's.
        kind: torchvision's class, which knows the archive, its files and their checksums.
        root: the folder of the data.
        known: of its images, the classes included.
        labels: what the files call the labels.
        otherwise: what can be done where the archive cannot be downloaded, for the message.

    Raises:
        UserError: a failed download, or an archive that is damaged or another than the official one.
    """
    path = root / kind.filename
    if not path.exists():
        download(kind.url, path, kind.tgz_md5, otherwise)

    def build() -> ImageSet:
        verify(path, kind.tgz_md5)
        with reading(path, remedy := "delete it and run again"), tarfile.open(path) as tar:

            def read(file: str, md5: str) -> bytes:
                member = tar.extractfile(f"{kind.base_folder}/{file}")
                if member is None:
                    raise ValueError(f"{file} in it is no file")
                check(content := member.read(), path / file, md5, remedy)
                return content

            return _set(name, kind, known, labels, path, read, remedy)

    return cached(name, root, listing(path).state, build, known)


def _set(name: str, kind: type[CIFAR10], known: Known, labels: str, base: Path, read: Read, remedy: str) -> ImageSet:
    """Makes the set of the official files; `base` is where they lie, for messages."""
    contents = [[(file, read(file, md5)) for file, md5 in part] for part in (kind.train_list, kind.test_list)]
    pairs = []
    for part in contents:
        pixels, numbers = [], []
        for file, content in part:
            with reading(base / file, remedy):
                batch = arrays(content)
                pixels.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
                numbers += [int(label) for label in batch[labels]]
        pairs.append((torch.from_numpy(np.concatenate(pixels)), torch.tensor(numbers)))
    return image_set(name, *pairs, known.classes, origin=known.origin, official=known.official)
