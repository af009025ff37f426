"""Published figures, by the settings they belong to."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from lbt.config import groups
from lbt.errors import reading


class Published:
    """The figures of a CSV file under `configs/table`.

    Args:
        source: `file`, `value` (its column of figures), `source` (the publication) and `keys`, which of its columns
            holds which setting of a run; None: nothing is published.
    """

    def __init__(self, source: Mapping[str, Any] | None):
        self.source = source["source"] if source else ""
        self.keys: list[str] = list(source["keys"].values()) if source else []
        self._values: dict[tuple, float] = {}
        if source:
            path = groups.beside("table", source["file"])
            with reading(path):
                frame = _read(path, path.stat().st_mtime_ns)
                columns = [frame[column].tolist() for column in source["keys"]]
                self._values = dict(zip(zip(*columns, strict=True), frame[source["value"]].tolist(), strict=True))

    def __bool__(self) -> bool:
        return bool(self._values)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields each figure's settings."""
        return (dict(zip(self.keys, place, strict=True)) for place in self._values)

    def value(self, settings: Mapping[str, Any]) -> float | None:
        """Returns the figure published for these settings, None where there is none."""
        return self._values.get(tuple(settings.get(key) for key in self.keys))


@cache
def _read(path: Path, changed: int) -> pd.DataFrame:
    return pd.read_csv(path)
