"""Composes the runs of a grid: Hydra once for each combination of choices, the values of each run on top of that."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lbt.config import Config, register_resolvers, resolve, typed
from lbt.config.binding import leaves
from lbt.config.resolution import PLACES

_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")  # ${protocol.lr_table}
_CALL = re.compile(r"\$\{([\w.]+):([^${}]*)\}")  # ${lbt.table_lr:...}, once its arguments are without references
_DONE = "\0"


class Composer:
    """Composes runs from their overrides; what runs have in common is worked out once.

    Args:
        config_loader: Hydra's.
        master: the configuration composed for the sweep.
    """

    def __init__(self, config_loader: Any, master: DictConfig):
        register_resolvers()
        self._loader, self._master = config_loader, master
        self._parse = cache(lambda text: OverridesParser.create(config_loader).parse_override(text))
        self._is_group = cache(lambda key: self._loader.repository.group_exists(key))
        self._composed: dict[tuple[str, ...], _Composition] = {}

    def __call__(self, overrides: Sequence[str]) -> Config:
        """Returns a run's configuration: what `resolve` makes of what Hydra's `load_sweep_config` gives.

        Raises:
            UserError: it is wrong.
        """
        composition, values = self._split(overrides)
        raw = composition.settings(values)
        return resolve(composition.exact(values)) if raw is None else typed(raw)

    def exact(self, overrides: Sequence[str]) -> DictConfig:
        """Returns what Hydra's `load_sweep_config` gives, without the node `hydra`."""
        composition, values = self._split(overrides)
        return composition.exact(values)

    def _split(self, overrides: Sequence[str]) -> tuple["_Composition", list[Override]]:
        parsed = [self._parse(text) for text in overrides if not text.startswith("hydra.")]
        chosen = [override for override in parsed if self._is_group(override.key_or_group)]
        choices = tuple(override.input_line for override in chosen)
        if choices not in self._composed:
            composed = self._loader.load_sweep_config(self._master, list(choices))
            with open_dict(composed):
                del composed["hydra"]
            self._composed[choices] = _Composition(composed, self._loader)
        return self._composed[choices], [one for one in parsed if not self._is_group(one.key_or_group)]


class _Derived(NamedTuple):
    """A setting worked out from others: where it stands, and every setting it depends on, directly or not."""

    path: tuple[str, ...]
    sources: frozenset[str]


class _Composition:
    """One combination of choices, to which values are added.

    Interpolations are what takes time. Each is resolved by OmegaConf once for all runs that agree in what it depends
    on; what cannot be told from its text, or is no plain value, is left to Hydra and OmegaConf (`exact`).
    """

    def __init__(self, composed: DictConfig, loader: Any):
        self._base, self._loader = composed, loader
        self._plain = OmegaConf.to_container(composed, resolve=False)
        self._derived = _derived(self._plain)
        self._known: dict[tuple, Any] = {}
        self._depends = cache(self._dependent)

    def exact(self, values: Sequence[Override]) -> DictConfig:
        """Returns the composition with values, as Hydra has it."""
        composed = copy.deepcopy(self._base)
        self._loader._apply_overrides_to_config(list(values), composed)
        return composed

    def settings(self, values: Sequence[Override]) -> dict[str, Any] | None:
        """Returns the resolved settings, or None where they take Hydra and OmegaConf, whose errors name the mistake."""
        if self._derived is None:
            return None
        raw, texts = _copied(self._plain), {}
        for override in values:
            if not _set(raw, override):
                return None
            texts[override.key_or_group] = override.input_line
        numbers = (raw.get("batch"), raw.get("epochs"), raw.get("seed"))
        if any(type(number) is not int for number in numbers) or isinstance(raw["optimizer"].get("base"), str):
            return None
        composed = None
        for item, depends in self._depends(tuple(texts)):
            state = (item.path, *(texts[key] for key in depends))
            if state not in self._known:
                try:
                    composed = composed or self.exact(values)
                    self._known[state] = _resolved(composed, item.path)
                except (OmegaConfBaseException, HydraException):
                    return None
            node = raw
            for key in item.path[:-1]:
                node = node[key]
            node[item.path[-1]] = _copied(self._known[state])
        return raw

    def _dependent(self, keys: tuple[str, ...]) -> list[tuple[_Derived, tuple[str, ...]]]:
        """Returns the derived settings that are not themselves set, each with the keys that decide it."""
        left = [item for item in self._derived if not any(_overlap(".".join(item.path), key) for key in keys)]
        return [
            (item, tuple(key for key in keys if any(_overlap(source, key) for source in item.sources))) for item in left
        ]


def _resolved(composed: DictConfig, path: Iterable[str]) -> Any:
    found = OmegaConf.select(composed, ".".join(path), throw_on_missing=True)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def _set(raw: dict[str, Any], override: Override) -> bool:
    """Puts a plain value in its place; False: it is none, or has no place of its own."""
    if override.type not in (OverrideType.CHANGE, OverrideType.FORCE_ADD) or override.package is not None:
        return False
    *path, name = override.key_or_group.split(".")
    node: Any = raw
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    value = override.value()
    plain = all(not isinstance(text, str) or ("${" not in text and text != "???") for _, text in leaves(value))
    if not isinstance(node, dict) or name not in node or isinstance(node[name], dict) or not plain:
        return False
    node[name] = value
    return True


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _overlap(one: str, other: str) -> bool:
    """Says whether two keys are one, or one holds the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _derived(plain: Mapping[str, Any]) -> list[_Derived] | None:
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
                waiting += [known for known in direct if _overlap(known, source)]
        found.append(_Derived(tuple(key.split(".")), frozenset(sources)))
    return found


def _references(text: str, key: str) -> set[str] | None:
    """Returns the settings an interpolation names; None where it names others than by their full key."""
    found: set[str] = set()
    while "${" in text:
        found |= set(_REFERENCE.findall(text))
        shorter = _REFERENCE.sub(_DONE, text)
        for function, _ in _CALL.findall(shorter):
            if not (function.startswith("lbt.") or (function == "oc.env" and key in PLACES)):
                return None
        shorter = _CALL.sub(_DONE, shorter)
        if shorter == text:
            return None
        text = shorter
    return found
