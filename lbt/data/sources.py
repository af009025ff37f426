"""The data sets by name: each reader finds its source under a folder and returns it as an `ImageSet`.

A new data set is one file in `lbt/data/readers` with a function under `@source` (its keyword arguments are its options)
and one YAML in `configs/data`. Its last line is `image_set(...)`; work worth keeping goes through `cached`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lbt.config.binding import bind
from lbt.data.cache import home
from lbt.data.files import reading
from lbt.data.imageset import ImageSet
from lbt.errors import UserError, did_you_mean

SOURCES: dict[str, Callable[..., ImageSet]] = {}


def source(reader: Callable[..., ImageSet]) -> Callable[..., ImageSet]:
    """Registers a reader under its function's name."""
    SOURCES[reader.__name__] = reader
    return reader


def load(name: str, root: str | Path | None = None, **options: Any) -> ImageSet:
    """Reads a data set, from its cache where its source is unchanged.

    Args:
        name: a key of `SOURCES`.
        root: the folder (or file) with the data; None means `$LBT_DATA`, else `~/.cache/lbt`.
        options: the reader's own keyword arguments, e.g. `resolution` (pixels) of `image_folder`.

    Raises:
        UserError: unknown name or option, or data that is absent, truncated or altered; names the file and the remedy.
    """
    if name not in SOURCES:
        raise UserError(f'there is no data set "{name}"{did_you_mean(name, SOURCES)}')
    reader = SOURCES[name]
    options = bind(reader, options, "data")
    folder = _root(root, getattr(reader, "embedded", False))
    with reading(folder, "check data.root and what lies there", f"as data={name}"):
        try:
            return reader(folder, **options)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch's words
                raise
            raise UserError(
                f"data={name} does not fit into this machine's memory: choose less of it, or smaller images; "
                "data=image_stream reads a folder of images and holds none of them"
            ) from None


def _root(root: str | Path | None, embedded: bool) -> Path:
    root = root or os.environ.get("LBT_DATA")
    try:
        return Path(root).expanduser() if root else home()
    except (RuntimeError, UserError) as error:  # nobody of that name, or no home at all
        if embedded:
            return Path()
        raise UserError(f"data.root={root}: {error}" if root else str(error)) from error


def embedded(reader: Callable[..., ImageSet]) -> Callable[..., ImageSet]:
    """Marks a reader that does not look at `root`: it works where there is none."""
    reader.embedded = True
    return reader


def at_least_one(**options: int) -> None:
    """Raises UserError for a reader's option that is to count something and does not."""
    for option, value in options.items():
        if value < 1:
            raise UserError(f"data.{option}={value}: expected a whole number of at least 1")
