"""Which settings a composed configuration works out from which others, read from the text of its interpolations."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lbt.config.binding import leaves
from lbt.config.resolution import PLACES

_REFERENCE = re.compile(r"\$\{(\.*[A-Za-z_][\w.]*)\}")  # ${protocol.lr_table}, ${.base.lr}
_CALL = re.compile(r"\$\{([\w.]+):([^${}]*)\}")  # ${lbt.table_lr:...}, once its arguments are without references
_DONE = "\0"


class Derived(NamedTuple):
    """A setting worked out from others: where it stands, and every setting it depends on, directly or not."""

    path: tuple[str, ...]
    sources: frozenset[str]
    same_as: tuple[str, ...] | None  # the one setting, none of these, whose value it has


def derived(plain: Mapping[str, Any]) -> list[Derived] | None:
    """Returns the settings that are interpolations; None where one of them cannot be told from its text."""
    texts = {key: text for key, text in leaves(plain) if isinstance(text, str) and "${" in text}
    direct = {key: _references(text, key) for key, text in texts.items()}
    if any(references is None or "[" in key for key, references in direct.items()):
        return None
    found = []
    for key in direct:
        sources, waiting = set(), [key]
        while waiting:
            for source in direct[waiting.pop()] - sources:
                sources.add(source)
                waiting += [known for known in direct if overlap(known, source)]
        found.append(Derived(tuple(key.split(".")), frozenset(sources), _same(texts[key], key, direct)))
    return found


def _references(text: str, key: str) -> set[str] | None:
    """Returns the settings an interpolation names; None where it names others than by their full key."""
    found: set[str] = set()
    while "${" in text:
        found |= set(_REFERENCE.findall(text))
        shorter = _REFERENCE.sub(_DONE, text)
        for function, arguments in _CALL.findall(shorter):
            if function == "oc.select":  # whose first argument is a key; where it is put together, what it begins with
                name = arguments.split(",")[0]
                found.add(name if _DONE not in name else name.split(_DONE)[0].rpartition(".")[0])
            elif not (function.startswith("lbt.") or (function == "oc.env" and key in PLACES)):
                return None
        shorter = _CALL.sub(_DONE, shorter)
        if shorter == text:
            return None
        text = shorter
    names = {_absolute(name, key) for name in found}
    return None if "" in names else names


def _absolute(name: str, key: str) -> str:
    """Returns the full key of what an interpolation at `key` names; empty where there is none."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    return ".".join([*key.split(".")[:-dots], name[dots:]]) if dots <= key.count(".") else ""


def _same(text: str, key: str, settings: Iterable[str]) -> tuple[str, ...] | None:
    """Returns the path of the setting that an interpolation stands for, if it is that alone and plain itself."""
    if not (alone := _REFERENCE.fullmatch(text)):
        return None
    name = _absolute(alone[1], key)
    return None if any(overlap(name, other) for other in settings) else tuple(name.split("."))


def overlap(one: str, other: str) -> bool:
    """Says whether two keys are one, or one holds the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
