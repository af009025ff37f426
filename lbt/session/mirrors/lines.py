"""What mirrors take of a record's line."""

from collections.abc import Iterator, Mapping
from typing import Any


def numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields a line's numbers by name, those of a probe as `<probe>/<name>`; lists of them stay in the record."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in numbers(value))
        elif isinstance(value, int | float):
            yield key, value
