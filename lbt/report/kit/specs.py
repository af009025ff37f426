"""What tables, figures and the audit's switches are described by: a YAML file each, in a group of `configs`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from lbt.config import groups

names = groups.choices


@cache
def read(group: str, name: str) -> dict[str, Any]:
    """Returns what a file says; it is not to be changed."""
    return groups.load(group, name)


def refuse_unknown(group: str, wanted: Sequence[str]) -> None:
    """Raises a `UserError` at the first wanted name that a group does not have."""
    for name in wanted:
        groups.path_of(group, name)
