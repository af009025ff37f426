"""Checks configuration values against the signature of what they are given to."""

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lbt.config.groups import choices
from lbt.errors import UserError, did_you_mean


def pick(group: str, name: str, options: Mapping[str, Callable]) -> Callable:
    """Returns `options[name]`; an unknown name is a `UserError` with the nearest right spelling."""
    if not isinstance(name, str) or name not in options:
        if name in choices(group):  # a file of the user's own folder
            raise UserError(
                f"{group}={name}: its file is there, its code is not: plugins=[my_module] names the plug-in"
            )
        raise UserError(f'{group}={name}: there is no {group} "{name}"{did_you_mean(name, options)}')
    return options[name]


def bind(target: Callable, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns `values` converted to the annotated types of `target`'s keyword arguments.

    Args:
        target: a function or class (its constructor counts) whose arguments are annotated.
        values: argument name -> value, as configuration files and the command line give them.
        where: the configuration group, for the message.

    Raises:
        UserError: an argument `target` does not have, or a value its annotation does not allow.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}={values}: expected settings, {where}.<name>=<value>")
    known, hints = _arguments(target)
    bound = {}
    for name, value in values.items():
        key = f"{where}.{name}" if where else name
        if name not in known:
            raise UserError(f"{key}: no such setting{did_you_mean(name, known)}")
        bound[name] = convert(value, hints.get(name, Any), key)
    return bound


@cache
def _arguments(target: Callable) -> tuple[frozenset[str], dict[str, Any]]:
    """Returns the names of a target's keyword arguments, and their annotations: read once, asked for by every run."""
    made_by = target.func if isinstance(target, partial) else target
    hints = get_type_hints(made_by.__init__ if inspect.isclass(made_by) else made_by)
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [name for name, parameter in inspect.signature(target).parameters.items() if parameter.kind in kinds]
    return frozenset(known), hints


@cache
def defaults(target: Callable) -> dict[str, Any]:
    """Returns the keyword arguments of a target that are on by default, of those that a record can hold.

    These are finite numbers but 0, texts, true, and tuples of such.
    """
    known, _ = _arguments(target)
    given = {name: inspect.signature(target).parameters[name].default for name in known}
    return {name: value for name, value in given.items() if value and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | str) or _is_number(value)


def convert(value: Any, annotation: Any, key: str) -> Any:
    """Returns `value` as the type `annotation` names, or raises a `UserError` that names `key`."""
    if annotation is Any:
        return value
    origin = get_origin(annotation)
    if origin is Literal:
        return _convert_choice(value, get_args(annotation), key)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(annotation), key)
    if origin in (tuple, list, Sequence):
        return _convert_sequence(value, annotation, key)
    if origin in (dict, Mapping) or annotation is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif annotation is bool:
        if isinstance(value, bool):
            return value
    elif annotation is int:
        if _is_number(value) and value == int(value):
            return int(value)
    elif annotation is float:
        if _is_number(value):
            return float(value)
    elif annotation is str:
        if isinstance(value, str):
            return value
    elif inspect.isclass(annotation) and isinstance(value, annotation):
        return value
    raise UserError(f"{key}={value}: expected {_describe(annotation)}")


def _is_number(value: Any) -> bool:
    """Says whether `value` is a finite number: a record could hold no other."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _convert_choice(value: Any, choices: tuple, key: str) -> Any:
    if value not in choices:
        raise UserError(f"{key}={value}: no such choice{did_you_mean(value, choices)}")
    return value


def _convert_union(value: Any, options: tuple, key: str) -> Any:
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, key)
        except UserError:
            continue
    raise UserError(f"{key}={value}: expected {' or '.join(_describe(option) for option in options)}")


def _convert_sequence(value: Any, annotation: Any, key: str) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if not isinstance(value, list | tuple):
        remedy = f", {key}=[{value}]" if isinstance(value, str) else ""
        raise UserError(f"{key}={value}: expected {_describe(annotation)}{remedy}")
    if origin is tuple and Ellipsis not in inner and len(value) != len(inner):
        raise UserError(f"{key}={value}: expected {len(inner)} values")
    kinds = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(value)
    made = tuple if origin is tuple else list
    return made(convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    kinds = {list: "a list", Sequence: "a list", dict: "settings", Mapping: "settings"}
    return names.get(annotation) or kinds.get(get_origin(annotation) or annotation) or str(annotation)


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the settings below a node as (dotted key, value); the elements of lists one by one."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            yield from leaves(value, f"{key}[{place}]")
    else:
        yield key, node
