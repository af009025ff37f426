"""What the records' epochs hold, packed for the page: each curve once, thinned where there are many.

A value has 15 bits of mantissa (relative error below 2e-5) and is three bytes, four letters of base64. Curves of equal
values are stored once: the rates of all seeds are.
"""

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lbt.records import RunRecord
from lbt.records.variation import by_name

LETTERS = 12_000_000  # that the curves of a page may have
MOST, FEWEST = 400, 8  # points of a curve
SECONDS = "seconds"  # of training, summed over the epochs
_LEFT_OUT = {"kind", "epoch", "wall_eval_seconds"}


def keep(record: RunRecord) -> dict[str, Any]:
    """Returns what the page needs of a record beyond a row of a frame: its configuration, and its curves.

    Returns:
        `config`: settings under dotted names; `curves`: name -> float32 [epoch], NaN where an epoch has no such figure.
    """
    return {"config": by_name(record.run["config"]), "curves": dict(_curves(record.epochs))}


def _curves(lines: Sequence[dict[str, Any]], before: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and values of each figure that is a number; those of a probe as `<probe>.<name>`."""
    for name in dict.fromkeys(itertools.chain.from_iterable(lines)):
        if name in _LEFT_OUT:
            continue
        values = [line.get(name) for line in lines]
        kind = next((type(value) for value in values if value is not None), None)
        if kind is dict:
            parts = [value if isinstance(value, dict) else {} for value in values]
            yield from _curves(parts, f"{before}{name}.")
        elif kind in (int, float):
            try:
                found = np.array(values, dtype=float)
            except (TypeError, ValueError):  # of some epochs something else than a number
                continue
            if name == "wall_train_seconds":
                name, found = SECONDS, np.cumsum(found)
            with np.errstate(over="ignore"):
                yield f"{before}{name}", found.astype(np.float32)


def island(curves: Sequence[dict[str, np.ndarray]], letters: int = LETTERS) -> dict[str, Any]:
    """Returns all curves for the page's script.

    Returns:
        `names`: of curves; `lengths`: epochs of each run; `runs`: name and place in `packed`, in turn, for each run;
        `packed`: the curves; `epochs`: length -> the epochs, from 1, that are shown of so long a run; `thinned`:
        whether any run has more.
    """
    places: dict[bytes, int] = {}
    names: dict[str, int] = {}
    runs: list[list[int]] = []
    for of_run in curves:
        line: list[int] = []
        for name, values in of_run.items():
            line += [names.setdefault(name, len(names)), places.setdefault(values.tobytes(), len(places))]
        runs.append(line)
    whole = [np.frombuffer(values, np.float32) for values in places]
    points = _points(np.array([len(values) for values in whole]), letters)
    shown = {length: positions(length, points) for length in sorted({len(values) for values in whole})}
    return {
        "names": list(names),
        "lengths": [max(map(len, of_run.values()), default=0) for of_run in curves],
        "runs": runs,
        "packed": [pack(values[shown[len(values)]]) for values in whole],
        "epochs": {str(length): (kept + 1).tolist() for length, kept in shown.items()},
        "thinned": any(len(kept) < length for length, kept in shown.items()),
        "points": points,
    }


def _points(lengths: np.ndarray, letters: int) -> int:
    """Returns the most points a curve may have for all of them to stay within so many letters."""
    points = MOST
    while points > FEWEST and 4 * int(np.minimum(lengths, points).sum()) > letters:
        points -= 1
    return points


def positions(length: int, points: int) -> np.ndarray:
    """Returns which of a curve's epochs are shown, from 0: evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, points)).round().astype(int))


def pack(values: np.ndarray) -> str:
    """Returns the upper three bytes of float32 values, rounded, in base64."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = np.minimum((bits + 0x80) >> 8, 0xFFFFFF).astype(">u4")
    return base64.b64encode(rounded.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()).decode()
