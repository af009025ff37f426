"""Finding files below a folder: what lies there, of which class an image is, and what is refused."""

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lbt.data.files import said, tell
from lbt.errors import UserError
from lbt.files import irregular

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
Pairs = list[tuple[str, str]]  # (file, class)


@dataclass(frozen=True)
class Listing:
    """The files below a folder (or the one file `base` itself) as they are now.

    Attributes:
        base: the folder or file.
        sizes: paths relative to `base` with forward slashes, in the order of their code points, and their bytes;
            hidden ones are left out.
        folders: the folders among them, in no order.
        state: digest of names, sizes and modification times: a changed source is a changed state.
    """

    base: Path
    sizes: dict[str, int]
    folders: tuple[str, ...]
    state: str

    @property
    def names(self) -> tuple[str, ...]:
        """The files' paths."""
        return tuple(self.sizes)


@dataclass(frozen=True)
class Wanted:
    """What is looked for below a folder: it must be a file.

    Attributes:
        noun: what it is called.
        endings: how its name ends, in lower case.
        alone: whether other files are left out of a listing.
    """

    noun: str
    endings: tuple[str, ...]
    alone: bool = False

    def fits(self, name: str) -> bool:
        """Tells by the ending whether a file is one."""
        return name.lower().endswith(self.endings)


IMAGES = Wanted("an image", SUFFIXES)


def listing(base: Path, *parts: str, wanted: Wanted = IMAGES) -> Listing:
    """Lists `base`, a file, or everything below its folders `parts` ("" is `base` itself); links are followed.

    Raises:
        UserError: a folder cannot be read, is linked into itself, or holds what is called `wanted` and is no file.
    """
    found: list[tuple[str, int, int]] = []
    folders: list[str] = []
    try:
        if base.is_file():
            status = base.stat()
            found.append((base.name, status.st_size, status.st_mtime_ns))
        waiting: list[tuple[str, tuple[os.stat_result, ...]]] = [(part, ()) for part in parts if (base / part).is_dir()]
        while waiting:
            folder, above = waiting.pop()
            above = (*above, os.stat(base / folder))
            with os.scandir(base / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    status = None if entry.name.startswith(".") else _status(entry, above, wanted)
                    if status is None:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(name)
                        waiting.append((name, above))
                    elif wanted.fits(entry.name) or not wanted.alone:
                        found.append((name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        path = said(error.filename or base)
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    found.sort()
    text = "\n".join(f"{name}\t{size}\t{time}" for name, size, time in found)
    state = hashlib.sha256(f"{base.name}\n{text}".encode(errors="surrogateescape")).hexdigest()
    return Listing(base, {name: size for name, size, _ in found}, tuple(folders), state)


def _status(entry: os.DirEntry, above: Sequence[os.stat_result], wanted: Wanted) -> os.stat_result | None:
    """Returns what an entry is or leads to; None for what is neither a file nor a folder nor called `wanted`."""
    path = said(entry.path)
    try:
        status = entry.stat()
    except FileNotFoundError:
        if wanted.fits(entry.name):
            raise UserError(f"{path} is a link to nothing: mend or remove it") from None
        return None
    if stat.S_ISDIR(status.st_mode):
        if entry.is_symlink() and any(os.path.samestat(os.stat(entry.path), one) for one in above):
            raise UserError(f"{path} is a link to a folder that holds it: remove it")
        return status
    if (wrong := irregular(status.st_mode)) is None:
        return status
    if wanted.fits(entry.name):
        raise UserError(f"{path} cannot be read as {wanted.noun} ({wrong}): remove it")
    return None


def is_image(name: str) -> bool:
    """Tells by the suffix whether a file is an image."""
    return IMAGES.fits(name)


def scored_split(root: Path) -> str:
    """Names the folder that is scored: `val` where `test` has none of the classes of `train`, as in ImageNet."""
    if (root / "val").is_dir() and not _class_folders(root / "test") & _class_folders(root / "train"):
        return "val"
    return "test"


def _class_folders(split: Path) -> set[str]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(split) as entries:
        return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()}
    return set()


def labelled(names: Sequence[str], split: str, below: str = "") -> Pairs:
    """Returns (name, class) of the images below `<split>/<class>/` among `names`, ordered by class, name.

    Args:
        names: paths with forward slashes.
        split: the first folder.
        below: only images right in this folder of the class, e.g. "images", count; "" means all, however deep.
    """
    found = []
    for name in names:
        parts = name.split("/")
        fits = len(parts) == 4 and parts[2] == below if below else len(parts) >= 3
        if fits and parts[0] == split and is_image(name) and not any(part.startswith(".") for part in parts):
            found.append((parts[1], name))
    return [(name, cls) for cls, name in sorted(found)]


def class_folders(root: Path) -> tuple[Listing, Pairs, Pairs]:
    """Returns what lies below `root/{train,test}/<class>/` (or `val` for `test`) and the images of both.

    Folders within a class are the class's, as in torchvision's `ImageFolder`.

    Raises:
        UserError: a folder is absent, unreadable or without images, or test has a class that train has not.
    """
    second = scored_split(root)
    found = listing(root, "train", second)
    train, test = labelled(found.names, "train"), labelled(found.names, second)
    for split, pairs in (("train", train), (second, test)):
        if not pairs:
            place = said(root / split)
            raise UserError(f"{place}/<class>/ has no images: put them there, or set data.root to their folder")
    if strange := sorted({cls for _, cls in test} - {cls for _, cls in train}):
        place, other = said(root / second / strange[0]), said(root / "train")
        raise UserError(f"{place} is a class that {other} lacks: add it there or remove it")
    filled = {f"train/{cls}" for _, cls in train} | {f"{second}/{cls}" for _, cls in test}
    if empty := sorted({folder for folder in found.folders if folder.count("/") == 1} - filled):
        raise UserError(
            f"{said(root / empty[0])} is a class without an image ({', '.join(SUFFIXES)}): add them or remove it"
        )
    for split in ("train", second):
        beside = [name for name in found.sizes if os.path.dirname(name) == split and is_image(name)]
        if beside:
            tell(f"{said(root / beside[0])} is in no class folder and is left out, as are {len(beside) - 1} like it")
    return found, train, test
