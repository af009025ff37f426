"""Composes the runs of a grid: Hydra once for each combination of choices, the values of each run on top of that."""

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lbt.config import Config, register_resolvers, resolve, typed
from lbt.config.binding import leaves
from lbt.sweep.interpolations import Derived, derived, overlap


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


class _Composition:
    """One combination of choices, to which values are added.

    Interpolations are what takes time. Each is resolved by OmegaConf once for all runs that agree in what it depends
    on; what cannot be told from its text, or is no plain value, is left to Hydra and OmegaConf (`exact`).
    """

    def __init__(self, composed: DictConfig, loader: Any):
        self._base, self._loader = composed, loader
        self._plain = OmegaConf.to_container(composed, resolve=False)
        self._derived = derived(self._plain)
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
        if any(type(number) is not int for number in numbers) or not isinstance(raw["optimizer"], dict):
            return None
        if isinstance(raw["optimizer"].get("base"), str):
            return None
        composed = None
        for item, depends in self._depends(tuple(texts)):
            if item.same_as is not None:
                try:
                    value = _at(raw, item.same_as)
                except (KeyError, TypeError):
                    return None
                if value == "???":
                    return None
                _at(raw, item.path[:-1])[item.path[-1]] = _copied(value)
                continue
            state = (item.path, *(texts[key] for key in depends))
            if state not in self._known:
                try:
                    composed = composed or self.exact(values)
                    self._known[state] = _resolved(composed, item.path)
                except (OmegaConfBaseException, HydraException):
                    return None
            _at(raw, item.path[:-1])[item.path[-1]] = _copied(self._known[state])
        return raw

    def _dependent(self, keys: tuple[str, ...]) -> list[tuple[Derived, tuple[str, ...]]]:
        """Returns the derived settings that are not themselves set, each with the keys that decide it."""
        left = [item for item in self._derived if not any(overlap(".".join(item.path), key) for key in keys)]
        return [
            (item, tuple(key for key in keys if any(overlap(source, key) for source in item.sources))) for item in left
        ]


def _resolved(composed: DictConfig, path: Iterable[str]) -> Any:
    found = OmegaConf.select(composed, ".".join(path), throw_on_missing=True)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def _set(raw: dict[str, Any], override: Override) -> bool:
    """Puts a value in its place; False: it is not a plain one, or has no place of its own."""
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


def _at(node: Any, path: Iterable[str]) -> Any:
    for key in path:
        node = node[key]
    return node


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node
