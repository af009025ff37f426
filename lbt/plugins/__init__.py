"""Plug-ins: modules from outside the package that bring optimizers, schedules, networks, data sets, tasks and the like.

A plug-in has tables at its top level, as the modules of this package do: `OPTIMIZERS = {"signum": Signum}`, and so on
for every key of `KINDS`. Imported are those that an installed distribution enters in the group `lbt.plugins`, that the
user's folder of configuration lists in its file `lbt.yaml`, or that the setting `plugins` names; nothing else. Whoever
makes things from names calls `load` first; reports read what was recorded and need no plug-in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from lbt.config import Config
from lbt.config.binding import leaves
from lbt.plugins import modules
from lbt.plugins.tables import KINDS, register

__all__ = ["GROUP", "KINDS", "Plugin", "brought", "changed", "load", "names", "provenance"]

GROUP = "lbt.plugins"  # of the entry points of installed distributions; each one names a module


@dataclass(frozen=True)
class Plugin:
    """A plug-in that has been loaded.

    Attributes:
        name: of its module.
        version: its `__version__`, else that of the distribution it came with; None where it has neither.
        sha256: of its source, in hexadecimal.
        brings: what it registered, as (table, name).
    """

    name: str
    version: str | None
    sha256: str
    brings: frozenset[tuple[str, str]]

    def used_by(self, config: Config) -> bool:
        """Says whether a run is made with something that this brings."""
        places = {
            "OPTIMIZERS": config.optimizer, "SCHEDULES": config.schedule, "MODELS": config.model,
            "SOURCES": config.data.name, "TASKS": config.task, "AUGMENTATIONS": [config.data.augment, config.task],
            "PROBES": config.probes,
        }  # fmt: skip
        return any(name == text for kind, name in self.brings for _, text in leaves(places[kind]))


_loaded: dict[str, Plugin] = {}


def load(names: Sequence[str] = ()) -> None:
    """Loads the plug-ins that are installed or listed in a folder of configuration, and those of `names`.

    One that has been loaded is left alone, and one that cannot be loaded leaves nothing behind but its imports.

    Args:
        names: modules, as `import` has them.

    Raises:
        UserError: there is no such module, it fails, brings nothing, or something under a name that is taken.
    """
    installed = {entry.module: entry.dist for entry in _installed()}
    wanted = [(name, f"the installed {dist.name}: plug-in {name}") for name, dist in installed.items()]
    wanted += [(name, f"{file}: plug-in {name}") for file, name in modules.listed()]
    wanted += [(name, f"plugins={name}") for name in names]
    for name, where in wanted:
        module = modules.imported(name, where)
        if name not in _loaded:
            made_of = modules.version(module, installed.get(name)), modules.sha256(module, where)
            brings = register(module, where, {plugin.name: plugin.brings for plugin in _loaded.values()})
            _loaded[name] = Plugin(name, *made_of, brings)


@cache
def _installed() -> list[metadata.EntryPoint]:
    return sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.value)


def names() -> list[str]:
    """Returns the plug-ins of this process, sorted."""
    return sorted(_loaded)


def brought(kind: str, modules: Sequence[str] = ()) -> list[str]:
    """Returns the names that plug-ins brought, sorted.

    Args:
        kind: a key of `KINDS`.
        modules: plug-ins that are meant; none: all of them.
    """
    meant = [_loaded[name] for name in modules or _loaded]
    return sorted(name for plugin in meant for table, name in plugin.brings if table == kind)


def provenance() -> list[dict[str, Any]]:
    """Returns name, version and the source's SHA-256 of every plug-in of this process, for a record."""
    loaded = [_loaded[name] for name in names()]
    return [{"name": plugin.name, "version": plugin.version, "sha256": plugin.sha256} for plugin in loaded]


def changed(recorded: Iterable[Mapping[str, Any]], config: Config) -> list[str]:
    """Returns a text for each plug-in that a run uses and that is not what it was when the run was recorded.

    Args:
        recorded: the plug-ins in the record's provenance.
        config: of the run.
    """
    then = {entry["name"]: entry["sha256"] for entry in recorded}
    return [
        f"the plug-in {name} has changed (SHA-256 {_short(then.get(name))} then, {_short(plugin.sha256)} now)"
        for name, plugin in sorted(_loaded.items())
        if plugin.sha256 != then.get(name) and plugin.used_by(config)
    ]


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}..." if sha256 else "not recorded"
