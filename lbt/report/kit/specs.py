"""What tables, figures and the audit's switches are described by: a YAML file each, in a group of `configs`."""

from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from lbt.config import groups
from lbt.config.binding import bind
from lbt.errors import UserError

SHOWN = {"table": ("title", "about"), "figure": ("title", "shows")}  # by the overview of all of them

names = groups.choices


def read(group: str, name: str) -> dict[str, Any]:
    """Returns what a file says; it is not to be changed.

    Raises:
        UserError: there is none of that name, or it says nothing that a page could show; one line that names it.
    """
    path = groups.path_of(group, name)
    return _read(group, name, path, path.stat().st_mtime_ns)


@cache
def _read(group: str, name: str, path: Path, changed: int) -> dict[str, Any]:
    content = groups.load(group, name)
    shown = SHOWN.get(group, ())
    if not isinstance(content, dict):
        raise UserError(f"{group} {name}: expected settings, {': ..., '.join(shown)}: ...")
    for key in shown:
        if key not in content:
            raise UserError(f"{group} {name}: {key} is missing")
    return content


def bound(kind: type, group: str, name: str) -> dict[str, Any]:
    """Returns what a file says, checked against the fields of a dataclass.

    Args:
        kind: the dataclass; fields without a default must be there.
        group: of the file.
        name: of the file.

    Raises:
        UserError: a setting is missing, unknown or of another type; one line that names it.
    """
    content, where = read(group, name), f"{group} {name}"
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    for key in needed:
        if key not in content:
            raise UserError(f"{where}: {key} is missing; it needs {', '.join(needed)}")
    return bind(kind, content, where)
