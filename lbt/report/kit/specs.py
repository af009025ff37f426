"""What tables, figures and the audit's switches are described by: a YAML file each, in a folder of `configs`."""

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from lbt.config import CONFIG_DIR
from lbt.errors import UserError, did_you_mean


def names(group: str) -> list[str]:
    """Returns the names of a group's files, `table` for instance, in a stable order."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


@cache
def read(group: str, name: str) -> dict[str, Any]:
    """Returns what a file says; it is not to be changed."""
    return OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml"), resolve=False)


def refuse_unknown(group: str, wanted: list[str]) -> None:
    """Raises a `UserError` at the first wanted name that a group does not have."""
    for name in wanted:
        if name not in names(group):
            raise UserError(f'there is no {group} "{name}"{did_you_mean(name, names(group))}')
