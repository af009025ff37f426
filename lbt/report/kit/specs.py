"""What tables, figures and the audit's switches are described by: a YAML file each, in a group of `configs`."""

from functools import cache
from typing import Any

from lbt.config import groups

names = groups.choices


@cache
def read(group: str, name: str) -> dict[str, Any]:
    """Returns what a file says; it is not to be changed."""
    return groups.load(group, name)
