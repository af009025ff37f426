"""Anybody's images, held in memory or read anew every epoch."""

import hashlib
from pathlib import Path

from lbt.data.cache import Known, cached
from lbt.data.files import said
from lbt.data.folders import decode_splits, folder_reader, formats, labels_of
from lbt.data.imageset import ImageSet
from lbt.data.listing import class_folders
from lbt.data.sources import at_least_one, source
from lbt.data.streaming import Files


@source
def image_folder(root: Path, resolution: int = 32) -> ImageSet:
    """Anybody's images: `root/{train,test}/<class>/**` (or `val` for `test`), scaled and centre-cropped.

    Args:
        root: the folder.
        resolution: height and width in pixels to scale to.

    Raises:
        UserError: a folder is absent or empty, or test has a class that train has not.
    """
    at_least_one(resolution=resolution)
    found, *splits = class_folders(root)
    origin = f"image_folder ({said(root.resolve().name)}, {formats(splits)}, scaled to {resolution}x{resolution})"
    meant = Known(origin, False, *labels_of(splits))

    def build() -> ImageSet:
        return decode_splits("image_folder", root, splits, folder_reader(root), resolution, meant, resize=True)

    return cached("image_folder", root, found.state, build, meant, resolution=resolution)


@source
def image_stream(root: Path, resolution: int = 224) -> ImageSet:
    """Anybody's images as `image_folder`, `root/{train,val|test}/<class>/**`, decoded anew every epoch.

    Its fingerprint is that of the files' names, sizes and the resolution, not of the pixels.

    Args:
        root: the folder.
        resolution: height and width in pixels to scale to.

    Raises:
        UserError: a folder is absent or empty, or the second split has a class that train has not.
    """
    at_least_one(resolution=resolution)
    found, *splits = class_folders(root)
    classes, labels = labels_of(splits)
    digest = hashlib.sha256(f"{resolution}".encode())
    parts = []
    for pairs, numbers in zip(splits, labels, strict=True):
        for name, _ in pairs:
            digest.update(f"\n{name}\t{found.sizes[name]}".encode(errors="surrogateescape"))
        parts += [Files(root, [name for name, _ in pairs], resolution), numbers]
    origin = f"image_stream ({said(root.resolve().name)}, decoded to {resolution}x{resolution} as it is read)"
    return ImageSet("image_stream", *parts, classes, origin, False, digest.hexdigest()[:16])
