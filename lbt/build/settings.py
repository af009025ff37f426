"""Names and settings of a group, bound to what they stand for."""

from collections.abc import Callable
from typing import Any

from lbt.config.binding import bind, defaults, pick
from lbt.errors import UserError

OF_THE_TRAINING = {"lr", "params"}  # what is given besides settings


def named(group: str, settings: dict[str, Any], options: dict[str, Callable]) -> tuple[Callable, dict[str, Any]]:
    """Returns what a group's `name` stands for, and its other settings as that takes them."""
    arguments = {key: value for key, value in settings.items() if key != "name"}
    target = pick(group, settings["name"], options)
    return target, bind(target, arguments, group)


def completed(settings: dict[str, Any], target: Callable) -> dict[str, Any]:
    """Returns a choice's settings with those that a file leaves out and that are on by default.

    An id tells a setting that is off from one that is on, but not from one that is left out.
    """
    given = {f"{key.removesuffix('_epochs')}_steps" if key.endswith("_epochs") else key for key in settings}
    return settings | {key: value for key, value in defaults(target).items() if key not in given | OF_THE_TRAINING}


def construct(group: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Calls `function`; a value it refuses is the user's to mend."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        raise UserError(f"{group}: {error}") from error
