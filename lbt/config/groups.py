"""The configuration files: `configs/<group>/<name>.yaml`, one folder a group, one file a choice.

A folder of one's own, laid out alike, stands beside them: `--config-dir DIR`, or `$LBT_CONFIG_DIR`. It adds choices and
groups, and replaces nothing: a file of the name of one of lbt's is refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from lbt.errors import UserError, did_you_mean, reading

_PACKAGE = Path(__file__).parents[1]
# An installed wheel carries the configuration inside the package, a source tree beside it.
CONFIG_DIR = _PACKAGE / "configs" if (_PACKAGE / "configs" / "train.yaml").exists() else _PACKAGE.parent / "configs"
OWN = "LBT_CONFIG_DIR"  # processes that a command starts find the folder there, too


def own_folder() -> Path | None:
    """Returns the folder of one's own, None where there is none."""
    given = os.environ.get(OWN)
    return Path(given) if given else None


@contextmanager
def using(folder: str | Path | None) -> Iterator[Path | None]:
    """Has a folder of one's own stand beside lbt's, in this process and those it starts; yields its full path.

    Args:
        folder: None: `$LBT_CONFIG_DIR`, where that is set.

    Raises:
        UserError: it is no folder, has a file of the name of one of lbt's, or is not laid out like `configs`.
    """
    before = os.environ.get(OWN)
    name = f"${OWN}={before}" if folder is None else f"--config-dir {folder}"
    found = _checked(before if folder is None else str(folder), name) if before or folder is not None else None
    if found is not None:
        os.environ[OWN] = str(found)
    try:
        yield found
    finally:
        if found is not None:
            os.environ.pop(OWN) if before is None else os.environ.update({OWN: before})


def _checked(given: str, name: str) -> Path:
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    if not given or not folder.is_dir():
        found = "is a file, not a folder" if given and folder.exists() else "no such folder"
        raise UserError(f"{name}: {found}; lbt init DIR writes one to begin with")
    if folder.resolve() == CONFIG_DIR.resolve():
        raise UserError(f"{name}: holds lbt's own files, which are there anyway")
    if same := [file for file in _shipped() if (folder / file).exists()]:
        others = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        raise UserError(f"{name}: {same[0]}{others} would replace lbt's own of that name; call it something else")
    known = sorted({file.parent.name for file in _shipped() if file.parent.name})
    for group in _groups(folder) - {*known, "hydra"}:
        if near := get_close_matches(group, known, n=1, cutoff=0.6):
            raise UserError(f'{name}: {group}: there is no group "{group}"; did you mean "{near[0]}"?')
    for group in known:
        if wrong := sorted((folder / group).glob("*.yml")):
            raise UserError(f"{name}: {group}/{wrong[0].name}: is not read; call it {wrong[0].stem}.yaml")
    return folder


@cache
def _shipped() -> list[Path]:
    """Returns lbt's own files, relative to their folder."""
    return sorted(path.relative_to(CONFIG_DIR) for path in CONFIG_DIR.rglob("*") if path.is_file())


def folders() -> tuple[Path, ...]:
    """Returns the folders that hold groups: lbt's and, where there is one, one's own; no file is in both."""
    own = own_folder()
    return (CONFIG_DIR,) if own is None else (CONFIG_DIR, own)


def groups() -> list[str]:
    """Returns the groups there are."""
    return sorted(set().union(*map(_groups, folders())))


def _groups(folder: Path) -> set[str]:
    """Returns the groups of a folder: what else lies in one's own, such as results, holds no such files."""
    return {path.parent.name for path in folder.glob("*/*.yaml") if not path.parent.name.startswith(".")}


def choices(group: str, pattern: str = "*") -> list[str]:
    """Returns the names of a group's files, sorted; hidden files are none of them.

    Args:
        group: name of its folder.
        pattern: of the names wanted, as in `fnmatch`.
    """
    found = {path.stem for folder in folders() for path in (folder / group).glob(f"{pattern}.yaml")}
    return sorted(name for name in found if not name.startswith("."))


def path_of(group: str, name: str, called: str | None = None) -> Path:
    """Returns the file of a choice.

    Args:
        group: name of its folder.
        name: of the choice.
        called: what a message calls the group's choices; None: as the folder.

    Raises:
        UserError: there is none of that name; the nearest right spelling is named.
    """
    known = choices(group)
    if name not in known:
        raise UserError(f'there is no {called or group} "{name}"{did_you_mean(name, known)}')
    return next(path for folder in folders() if (path := folder / group / f"{name}.yaml").is_file())


def load(group: str, name: str, called: str | None = None) -> Any:
    """Returns what the file of a choice holds, as plain mappings and lists.

    Raises:
        UserError: there is none of that name, or it is no YAML; one line that names it.
    """
    path = path_of(group, name, called)
    with reading(path):
        text = path.read_bytes()
        content = yaml.load(text, Loader=_loader())
        if isinstance(content, dict | list) and b"${" not in text:
            return content
        return OmegaConf.to_container(OmegaConf.create({} if content is None else content), resolve=False)


@cache
def _loader() -> type:
    """Returns OmegaConf's reader of YAML, with libyaml's parser where PyYAML has it: that takes a tenth of the time."""
    theirs = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return theirs

    class Loader(yaml.cyaml.CParser, theirs):
        def __init__(self, stream: bytes):
            yaml.cyaml.CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader


def beside(group: str, file: str) -> Path:
    """Returns a file that lies among a group's and is no choice, such as a table's published figures.

    Raises:
        UserError: there is none.
    """
    for folder in folders():
        if (path := folder / group / file).is_file():
            return path
    raise UserError(f"{folders()[-1] / group / file}: no such file")
