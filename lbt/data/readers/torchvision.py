"""The data sets of torchvision that have class labels, a training and a test part."""

import hashlib
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets

from lbt.data.cache import Known, cached
from lbt.data.download import download_by
from lbt.data.files import reading, said
from lbt.data.folders import decode, folder_reader, opened
from lbt.data.imageset import ImageSet, image_set
from lbt.data.listing import listing
from lbt.data.sources import at_least_one, source
from lbt.data.torchvision_parts import NO_TEST_PART, PARTS, Parts
from lbt.errors import UserError, did_you_mean
from lbt.files import read_regular


@source
def torchvision(
    root: Path, dataset: str | None = None, resolution: int | None = None, split: str | None = None
) -> ImageSet:
    """One of torchvision's data sets, from its files below `root` as torchvision lays them out, else its download.

    Images of one channel become three equal ones. Those of files are decoded as every image file is, see `decode`.

    Args:
        root: what torchvision calls `root`.
        dataset: the name of torchvision's class, e.g. "SVHN".
        resolution: height and width in pixels to scale and crop to; None: as they are, if they are all of one size.
        split: which of EMNIST's sets.

    Raises:
        UserError: a name there is not, a set without classes or a test part, files that are missing or damaged, a
            failed download, or images of several sizes without a `resolution`.
    """
    parts = _parts(dataset, split)
    if resolution is not None:
        at_least_one(resolution=resolution)
    kind = getattr(datasets, dataset)
    chosen = {} if split is None else {"split": split}
    if not any((root / place).exists() for place in parts.places):
        download_by(
            lambda folder: [kind(str(folder), download=True, **chosen, **part) for part in parts.arguments],
            dataset,
            root,
            parts.places,
        )
    scaled = "" if resolution is None else f", scaled to {resolution}x{resolution}"
    name = dataset if split is None else f"{dataset} {split}"
    unchecked = "" if parts.checked else "unofficial: files not checked, "
    origin = f"{name} ({unchecked}torchvision's {parts.said}{scaled})"
    known = Known(origin, official=parts.checked and resolution is None)

    def build() -> ImageSet:
        return _build(dataset, root, parts, chosen, resolution, known)

    options = chosen | ({} if resolution is None else {"resolution": resolution})
    return cached(f"torchvision-{dataset}", root, _state(root, parts.places), build, known, **options)


def _parts(dataset: str | None, split: str | None) -> Parts:
    """Returns what is known of a data set.

    Raises:
        UserError: it is none that can be trained on by its name alone.
    """
    if dataset is None:
        raise UserError(f"data.dataset=null: name one of torchvision's data sets, {', '.join(PARTS)}")
    if dataset in NO_TEST_PART:
        raise UserError(
            f"data.dataset={dataset}: torchvision gives it no test part; sort it into folders {{train,test}}/<class>/* "
            "and train on these by data=image_folder"
        )
    if dataset not in PARTS:
        there = "has no class labels, or is no data set by its name alone" if dataset in datasets.__all__ else "unknown"
        raise UserError(f"data.dataset={dataset}: {there}{did_you_mean(dataset, PARTS)}")
    if dataset == "EMNIST":
        if split not in datasets.EMNIST.splits:
            raise UserError(f"data.split={split}: EMNIST is several sets{did_you_mean(split, datasets.EMNIST.splits)}")
    elif split is not None:
        raise UserError(f"data.split={split}: {dataset} is one set, of which {PARTS[dataset].said} are taken")
    return PARTS[dataset]


def _state(root: Path, places: Sequence[str]) -> str:
    """Returns a digest of the names, sizes and times of a data set's files and folders."""
    found = [listing(root / place) if (root / place).is_file() else listing(root, place) for place in places]
    return hashlib.sha256(" ".join(one.state for one in found).encode()).hexdigest()


def _build(
    dataset: str, root: Path, parts: Parts, chosen: dict[str, Any], resolution: int | None, known: Known
) -> ImageSet:
    """Reads both parts of a data set."""
    kind, pairs, classes = getattr(datasets, dataset), [], None
    as_paths = {"loader": str} if "loader" in inspect.signature(kind.__init__).parameters else {}
    for part in parts.arguments:
        found = _opened(kind, root, parts.places, chosen | part | as_paths)
        if not len(found):
            raise UserError(f"{said(root / parts.places[0])} has no images of {dataset}: complete it")
        if as_paths or parts.samples is not None:
            samples = [found[index] for index in range(len(found))] if as_paths else list(parts.samples(found))
            names = [os.path.relpath(path, root) for path, _ in samples]
            images = _decoded(dataset, root, names, resolution)
            labels = torch.tensor([int(label) for _, label in samples])
        else:
            images, labels = _of_arrays(found, resolution)
        pairs.append((images, labels))
        classes = classes or getattr(found, "classes", None)
    count = 1 + max(int(labels.max()) for _, labels in pairs)
    if classes is None or len(classes) < count:
        classes = map(str, range(count))
    return image_set(dataset, *pairs, tuple(classes), origin=known.origin, official=known.official)


def _opened(kind: type, root: Path, places: Sequence[str], arguments: dict[str, Any]) -> Any:
    """Returns torchvision's data set of files that are there."""
    where = " and ".join(said(root / place) for place in places)
    remedy = f"delete {'it' if len(places) == 1 else 'them'} and run again, which downloads {kind.__name__}"
    with reading(root / places[0], remedy, f"as {kind.__name__}"):
        try:
            return kind(str(root), **arguments)
        except RuntimeError as error:
            if "download" not in str(error):
                raise
            raise UserError(f"{where}: incomplete, damaged, or not the official files: {remedy}") from error


def _decoded(dataset: str, root: Path, names: Sequence[str], resolution: int | None) -> Tensor:
    """Decodes image files, uint8 [N, 3, resolution, resolution]."""
    if resolution is not None:
        return decode(root, names, folder_reader(root), resolution, resize=True)
    sizes: set[tuple[int, int]] = set()
    for name in names:
        with reading(root / name, "replace the file", "as an image"), opened(read_regular(root / name)) as image:
            sizes.add(image.size)
        if len(sizes) > 1 or image.width != image.height:
            told = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
            raise UserError(f"data.dataset={dataset}: has images of {told} pixels: set data.resolution to scale to")
    return decode(root, names, folder_reader(root), sizes.pop()[0])


def _of_arrays(found: Any, resolution: int | None) -> tuple[Tensor, Tensor]:
    """Returns the images, uint8 [N, 3, H, W], and labels of a data set that holds all of them."""
    pixels, labels = None, torch.empty(len(found), dtype=torch.int64)
    for index in range(len(found)):
        image, labels[index] = found[index]
        image = image.convert("RGB")
        if resolution is not None:
            image = ImageOps.fit(image, (resolution, resolution), method=Image.Resampling.BILINEAR)
        if pixels is None:
            pixels = np.empty((len(found), 3, image.height, image.width), np.uint8)
        pixels[index] = np.asarray(image).transpose(2, 0, 1)
    return torch.from_numpy(pixels), labels
