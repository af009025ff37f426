"""The modules of plug-ins: which ones a folder of configuration lists, their import, their version and source."""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from lbt.config import groups
from lbt.errors import UserError, did_you_mean, reading, said

LISTED_IN = "lbt.yaml"  # of a user's folder of configuration: {plugins: [mine]}


def folders() -> list[Path]:
    """Returns the user's folders of configuration, in which modules are looked for first."""
    return [folder for folder in groups.folders() if folder != groups.CONFIG_DIR]


def listed() -> Iterator[tuple[Path, Any]]:
    """Yields the plug-ins that the user's folders list, each with the file that does.

    Raises:
        UserError: a file is no such list; one line that names it.
    """
    for path in [folder / LISTED_IN for folder in folders()]:
        if not path.is_file():
            continue
        with reading(path):
            content = OmegaConf.to_container(OmegaConf.load(path)) or {}
        if not isinstance(content, dict) or not isinstance(names := content.get("plugins", []), list):
            raise UserError(f"{path}: expected a list of modules, plugins: [mine]")
        for key in content:
            if key != "plugins":
                raise UserError(f'{path}: there is no "{key}"{did_you_mean(key, ["plugins"])}')
        yield from [(path, name) for name in names]


def imported(name: Any, where: str) -> ModuleType:
    """Returns a module: of a user's folder where one has it, else what `import` finds.

    Args:
        name: as `import` has it.
        where: who named it, for a message.

    Raises:
        UserError: there is none of that name, or it fails; one line.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise UserError(f"{where}: expected the name of a module, as import has it, without .py")
    try:
        top = name.partition(".")[0]
        found = [file for folder in folders() for file in (folder / top / "__init__.py", folder / f"{top}.py")]
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
    where = ", ".join(map(str, folders()))
    return f"in {where} or on Python's path" if where else "on Python's path; --config-dir names a folder of yours"


def version(module: ModuleType, distribution: metadata.Distribution | None) -> str | None:
    """Returns a module's `__version__`, else that of the distribution it lies in; None where it has neither.

    Args:
        module: the plug-in.
        distribution: whose entry point named it; None: the one called like it, if the module lies there.
    """
    if isinstance(stated := getattr(module, "__version__", None), str):
        return stated
    try:
        found = distribution or metadata.distribution(module.__name__.partition(".")[0])
    except metadata.PackageNotFoundError:
        return None
    lies_there = distribution or Path(module.__file__ or "").is_relative_to(found.locate_file(""))
    return found.version if lies_there else None


def sha256(module: ModuleType, where: str) -> str:
    """Returns the hash of a module's one file, or of what `sha256sum` lists of all .py files of its package.

    For a package in `folder` the shell has it as
    `cd folder && find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum`.

    Raises:
        UserError: the source cannot be read.
    """
    top = sys.modules[module.__name__.partition(".")[0]]
    file = Path(getattr(top, "__file__", None) or getattr(module, "__file__", None) or "")
    try:
        if file.name != "__init__.py":
            return hashlib.sha256(file.read_bytes()).hexdigest()
        files = {f"./{path.relative_to(file.parent).as_posix()}": path for path in file.parent.rglob("*.py")}
        lines = [f"{hashlib.sha256(files[key].read_bytes()).hexdigest()}  {key}\n" for key in sorted(files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    except OSError as error:
        raise UserError(f"{where}: its source cannot be read: {said(error)}") from error
