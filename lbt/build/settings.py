"""Names and settings of a group, bound to what they stand for."""

from collections.abc import Callable
from typing import Any

from lbt.config.binding import bind, pick
from lbt.errors import UserError


def named(group: str, settings: dict[str, Any], options: dict[str, Callable]) -> tuple[Callable, dict[str, Any]]:
    """Returns what a group's `name` stands for, and its other settings as that takes them."""
    arguments = {key: value for key, value in settings.items() if key != "name"}
    target = pick(group, settings["name"], options)
    return target, bind(target, arguments, group)


def construct(group: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Calls `function`; a value it refuses is the user's to mend."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        raise UserError(f"{group}: {error}") from error
