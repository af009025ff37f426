"""Which settings tell the runs of a sweep apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FIRST = ("optimizer.name", "batch", "data.name", "task.name", "model.name", "epochs")
_SEED = "seed"  # tells repetitions of one configuration apart


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yields (dotted name, value); lists become tuples, so that values can be compared and counted."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value


def by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record's configuration under dotted names, `init_from` by ten digits of what it means as well.

    In an identity it is one setting, and in a configuration two: these weights, and whose they are.
    """
    found = dict(flatten(config))
    if "init_from.sha256" in found:
        found["init_from"] = found["init_from.sha256"][:10]
    return found


def telling(runs: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> list[str]:
    """Returns the settings, seeds aside, that tell the runs apart once those of `first` are known.

    One that follows from others (an optimizer's own rate, its schedule) is none of them: choices by name are looked at
    before the learning rate, and that before the rest.

    Args:
        runs: the settings of each under dotted names, those left out that are off.
        first: settings that are known.
    """
    known = sorted({name for run in runs for name in run} - {_SEED, *first}, key=_weight)
    places, found = [0] * len(runs), []
    for name in [*first, *known]:
        finer = [(place, repr(run.get(name))) for place, run in zip(places, runs, strict=True)]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(finer))}
        if len(numbers) > len(set(places)):
            places = [numbers[pair] for pair in finer]
            found.append(name)
    return [name for name in found if name not in first]


def _weight(name: str) -> tuple:
    order = _FIRST.index(name) if name in _FIRST else len(_FIRST)
    return order, not name.endswith(".name"), name != "lr", name


def distinct(runs: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """Returns a setting's values in the order of numbers, then of texts; None is that of runs that do not have it."""
    values = {repr(value): value for run in runs for value in [run.get(name)]}
    return sorted(values.values(), key=order)


def order(value: Any) -> tuple:
    """Returns what settings' values are sorted by; nothing, numbers and other values are kept apart."""
    number = isinstance(value, int | float)
    return value is not None, not number, value if number else str(value)
