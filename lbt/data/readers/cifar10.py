"""CIFAR-10 (Krizhevsky 2009): the official files or an image folder of all of it."""

from pathlib import Path

from lbt.data import cifar
from lbt.data.cache import Known, cached
from lbt.data.files import said
from lbt.data.folders import decode_splits, folder_reader, formats, labels_of
from lbt.data.imageset import ImageSet
from lbt.data.listing import labelled, listing
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

    found = cifar.folder("cifar10", CIFAR10, root, OFFICIAL, "labels")
    if found is not None:
        return found
    if not (root / CIFAR10.filename).exists():
        for folder in (root / "cifar10", root):
            if (folder / "train").is_dir() or (folder / "test").is_dir():
                return _images(root, folder)
    otherwise = "or point data.root at an image folder {train,test}/<class>/*"
    return cifar.archive("cifar10", CIFAR10, root, OFFICIAL, "labels", otherwise)


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
