"""Plug-ins: modules from outside the package that bring optimizers, schedules, networks, data sets, tasks and the like.

A plug-in has tables at its top level, as the modules of this package do: `OPTIMIZERS = {"signum": Signum}`, and so on
for every key of `KINDS`. Imported are those that an installed distribution enters in the group `lbt.plugins`, that the
user's folder of configuration lists in its file `lbt.yaml`, or that the setting `plugins` names; nothing else. Whoever
makes things from names calls `load` first; reports read what was recorded and need no plug-in.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from lbt.config import Config, groups
from lbt.config.binding import leaves
from lbt.errors import UserError, did_you_mean, reading, said

GROUP = "lbt.plugins"  # of the entry points of installed distributions; each one names a module
LISTED_IN = "lbt.yaml"  # of a user's folder of configuration: {plugins: [mine]}

# A plug-in's tables, and what an entry of each is called.
KINDS = {
    "OPTIMIZERS": "optimizer", "SCHEDULES": "schedule", "MODELS": "model", "SOURCES": "data set", "TASKS": "task",
    "AUGMENTATIONS": "augmentation", "PROBES": "probe",
}  # fmt: skip


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
    wanted = [(entry.module, f"the installed {entry.dist.name}") for entry in _installed()]
    wanted += [(name, str(folder / LISTED_IN)) for folder in _own_folders() for name in _listed(folder)]
    wanted += [(name, "") for name in names]
    for name, who in wanted:
        where = f"{who}: plug-in {name}" if who else f"plugins={name}"
        module = _imported(name, where)
        if name not in _loaded:
            _loaded[name] = _registered(name, module, where)


def provenance() -> list[dict[str, Any]]:
    """Returns name, version and the source's SHA-256 of every plug-in of this process, for a record."""
    loaded = sorted(_loaded.values(), key=lambda plugin: plugin.name)
    return [{"name": plugin.name, "version": plugin.version, "sha256": plugin.sha256} for plugin in loaded]


def brought(kind: str) -> list[str]:
    """Returns the names that plug-ins brought, sorted; `kind` is a key of `KINDS`."""
    return sorted(name for plugin in _loaded.values() for table, name in plugin.brings if table == kind)


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


@cache
def _installed() -> list[Any]:
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.value)


def _own_folders() -> list[Path]:
    return [folder for folder in groups.folders() if folder != groups.CONFIG_DIR]


def _listed(folder: Path) -> list[str]:
    path = folder / LISTED_IN
    if not path.is_file():
        return []
    with reading(path):
        content = OmegaConf.to_container(OmegaConf.load(path)) or {}
    if not isinstance(content, dict) or not isinstance(names := content.get("plugins", []), list):
        raise UserError(f"{path}: expected a list of modules, plugins: [mine]")
    for key in content:
        if key != "plugins":
            raise UserError(f'{path}: there is no "{key}"{did_you_mean(key, ["plugins"])}')
    return names


def _imported(name: str, where: str) -> ModuleType:
    """Returns a module: of a folder of configuration where one has it, else what `import` finds."""
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise UserError(f"{where}: expected the name of a module, as import has it, without .py")
    try:
        top = name.partition(".")[0]
        found = [file for folder in _own_folders() for file in (folder / top / "__init__.py", folder / f"{top}.py")]
        for file in [file for file in found if file.is_file()][:1]:
            _import_file(top, file.resolve(), where)
        return importlib.import_module(name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: there is no module {error.name} {_looked_in()}") from None
        raise UserError(f"{where}: its import fails: {said(error)}; LBT_DEBUG=1 shows where") from error


def _import_file(name: str, file: Path, where: str) -> None:
    """Imports a file under a name; the folder is not searched for anything else that it imports."""
    if name in sys.modules:
        other = getattr(sys.modules[name], "__file__", None)
        if other is None or Path(other).resolve() != file:
            raise UserError(f"{where}: {file} cannot have this name, {other or 'a part of Python'} has it")
        return
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _looked_in() -> str:
    folders = ", ".join(map(str, _own_folders()))
    return f"in {folders} or on Python's path" if folders else "on Python's path; --config-dir names a folder of yours"


def _registered(name: str, module: ModuleType, where: str) -> Plugin:
    tables = {kind: getattr(module, kind) for kind in KINDS if hasattr(module, kind)}
    if not tables:
        raise UserError(f"{where}: brings nothing; expected a table of {', '.join(KINDS)}")
    known = {kind: _known(kind) for kind in tables}
    for kind, table in tables.items():
        if not isinstance(table, Mapping) or not all(isinstance(key, str) and callable(table[key]) for key in table):
            raise UserError(f"{where}: {kind}: expected names and what makes them, {kind} = {{'name': callable}}")
        for key, made in table.items():
            if key in known[kind] and known[kind][key] is not made:
                owner = _owner(kind, key, known[kind][key])
                raise UserError(f'{where}: its {KINDS[kind]} "{key}" is one of {owner}, too; give it another name')
    made_of = _version(module, name), _sha256(name, module, where)
    for kind, table in tables.items():
        _enter(kind, table)
    return Plugin(name, *made_of, frozenset((kind, key) for kind, table in tables.items() for key in table))


def _known(kind: str) -> Mapping[str, Callable]:
    if kind == "OPTIMIZERS":
        from lbt import optim

        return {name: optim.get(name) for name in optim.names()}
    return _table(kind)


def _enter(kind: str, table: Mapping[str, Callable]) -> None:
    if kind == "OPTIMIZERS":
        from lbt import optim

        for name, factory in table.items():
            optim.register(name, factory)
    else:
        _table(kind).update(table)


def _table(kind: str) -> dict[str, Callable]:
    if kind == "PROBES":
        from lbt.train.probes import PROBES  # a training's, which needs all that makes one

        return PROBES
    from lbt import data, models, schedules, tasks

    tables = {"SCHEDULES": schedules.SCHEDULES, "MODELS": models.MODELS, "SOURCES": data.SOURCES}
    return (tables | {"TASKS": tasks.TASKS, "AUGMENTATIONS": data.AUGMENTATIONS})[kind]


def _owner(kind: str, name: str, made: Callable) -> str:
    plugins = (f"the plug-in {plugin.name}" for plugin in _loaded.values() if (kind, name) in plugin.brings)
    return next(plugins, getattr(getattr(made, "func", made), "__module__", None) or "lbt")


def _version(module: ModuleType, name: str) -> str | None:
    if isinstance(stated := getattr(module, "__version__", None), str):
        return stated
    for distribution in packages_distributions().get(name.partition(".")[0], []):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def _sha256(name: str, module: ModuleType, where: str) -> str:
    """Returns the hash of a module's one file, or of what `sha256sum` lists of all .py files of its package.

    For a package in `folder` the shell has it as
    `cd folder && find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    """
    top = sys.modules[name.partition(".")[0]]
    source = getattr(top, "__file__", None) or getattr(module, "__file__", None)
    try:
        file = Path(source or "")
        if file.name != "__init__.py":
            return hashlib.sha256(file.read_bytes()).hexdigest()
        files = {f"./{path.relative_to(file.parent).as_posix()}": path for path in file.parent.rglob("*.py")}
        lines = [f"{hashlib.sha256(files[key].read_bytes()).hexdigest()}  {key}\n" for key in sorted(files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    except OSError as error:
        raise UserError(f"{where}: its source cannot be read: {said(error)}") from error
