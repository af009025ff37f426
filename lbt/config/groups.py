"""The configuration files: `configs/<group>/<name>.yaml`, one folder a group, one file a choice."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lbt.errors import UserError, did_you_mean, reading

_PACKAGE = Path(__file__).parents[1]
# An installed wheel carries the configuration inside the package, a source tree beside it.
CONFIG_DIR = _PACKAGE / "configs" if (_PACKAGE / "configs" / "train.yaml").exists() else _PACKAGE.parent / "configs"


def folders() -> tuple[Path, ...]:
    """Returns the folders that hold groups; of files of one name the first folder's counts."""
    return (CONFIG_DIR,)


def groups() -> list[str]:
    """Returns the groups there are."""
    return sorted({path.name for folder in folders() for path in folder.iterdir() if path.is_dir()})


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
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
