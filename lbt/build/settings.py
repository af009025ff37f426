"""Names and settings of a group, bound to what they stand for."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from lbt.config.binding import bind, defaults, pick
from lbt.errors import UserError


def named(group: str, settings: dict[str, Any], options: dict[str, Callable]) -> tuple[Callable, dict[str, Any]]:
    """Returns what a group's `name` stands for, and its other settings as that takes them."""
    arguments = {key: value for key, value in settings.items() if key != "name"}
    target = pick(group, settings["name"], options)
    return target, bind(target, arguments, group)


def stated(
    settings: dict[str, Any], target: Callable | None, *, given: int = 0, but: Collection[str] = ()
) -> dict[str, Any]:
    """Returns a group's settings with what its file leaves out and its code has on by default.

    An id tells a setting that is off from one that is on, but not from one that is left out.

    Args:
        settings: of the group.
        target: what its name stands for; None: nothing, which is for others to say.
        given: how many of the target's first arguments are no settings: the training gives them.
        but: further arguments that it gives.
    """
    if target is None:
        return settings
    no_settings = {*list(inspect.signature(target).parameters)[:given], *but}
    return settings | {key: value for key, value in defaults(target).items() if key not in {*settings, *no_settings}}


def construct(group: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Calls `function`; a value it refuses is the user's to mend."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        raise UserError(f"{group}: {error}") from error
