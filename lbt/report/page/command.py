"""The command that repeats a run: every setting that decides its numbers, as `lbt train` takes it."""

import shlex
from collections.abc import Mapping
from typing import Any

from lbt.identity import NOT_IDENTITY

GROUPS = ("protocol", "data", "model", "task", "schedule", "optimizer")  # of configs, in the order they are said in
_SAID = {"warmup", "plugins"}  # no part of an identity, and yet what it comes of
_SILENT = (NOT_IDENTITY - _SAID) | {"peak_lr"}
# Settings that are younger than some records, in which they had this value whatever their choices say now.
_YOUNGER = {"schedule.lag": "0"}


def word(name: str, value: Any) -> str:
    """Returns the word of a command that gives a setting its value, quoted for a shell; empty where none is needed.

    Args:
        name: of the setting, dotted, as a record has it.
        value: as a record has it.
    """
    first, _, rest = name.partition(".")
    if first in _SILENT or (first == "init_from" and rest not in ("", "run")):
        return ""
    if first in GROUPS and rest == "name":
        return f"{first}={shlex.quote(_text(value))}"
    if first == "data" and rest.startswith("options."):
        name = f"data.{rest.removeprefix('options.')}"
    elif first == "init_from":
        name = "init_from"
    return shlex.quote(f"{name}={_text(value)}")


def missing(config: Mapping[str, Any]) -> list[str]:
    """Returns the words for settings that a record does not have, being older than they are."""
    released = config.get("protocol.name") == "released" and config.get("schedule.name") == "warmup_cosine"
    return [f"{name}={value}" for name, value in _YOUNGER.items() if released and name not in config]


def _text(value: Any) -> str:
    """Returns a value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_text(kept)}' for key, kept in value.items())}}}"
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").replace(".", "").isalnum():
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
