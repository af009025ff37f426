"""What Hydra and OmegaConf say of a command's settings, in one line that names the setting and the remedy."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lbt.config.groups import choices, groups
from lbt.errors import UserError, did_you_mean, flat


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turns what Hydra and OmegaConf say of a command's overrides into a `UserError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(one_line(error)) from error


def refuse_removals(words: Iterable[str]) -> None:
    """Raises a `UserError` for a word that takes a setting away: a default would take its place, unknown to the id."""
    for word in words:
        if word.startswith("~"):
            raise UserError(f"{word}: a setting cannot be taken away; set it to what means off: null, false or 0")


def one_line(error: Exception) -> str:
    """Returns a Hydra or OmegaConf error as one line that names the mistake and the nearest right spelling."""
    if isinstance(error, OverrideParseException):
        return _ungrammatical(error.override)
    text = str(error)
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown[1].split("@")[0]
        if key == "experiment":
            value = (re.search(r"\+experiment=(\S+)", text) or ["", "<name>"])[1]
            return (
                f"experiment={value}: name={value} names a sweep of your own; "
                f"add an experiment with a plus sign, +experiment={value}"
            )
        if key.startswith("optimizer.base."):
            return f"{key}: not an argument of what is inside, which optimizer@optimizer.base=<optimizer> chooses"
        group = key.split(".")[0]
        if key in (known := _known_keys(group)):
            return f"{key}: not a setting of the {group} that is chosen"
        return f"{key}: no such setting{did_you_mean(key, known)}"
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, choice = missing[1], missing[2]
        return f'{group}={choice}: there is no {group} "{choice}"{did_you_mean(choice, choices(group))}'
    if twice := re.search(r"Multiple values for ([^.]+)\. To override a value use 'override [^:]+: (\S+)'", text):
        return f"+{twice[1]}={twice[2]}: one is chosen already; {twice[1]}={twice[2]} takes its place"
    if again := re.search(r"^(\S+) appears more than once in the final defaults list", text):
        return f"+{again[1]}: one is chosen already; {again[1]}=<name>, without the plus sign, takes its place"
    if ambiguous := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{ambiguous[1]}: several values are a sweep, lbt train -m ...; one value with a comma needs quotes"
    return flat(text.split("\n")[0])


def _ungrammatical(word: str) -> str:
    """Returns what is wrong with a word that Hydra's grammar does not take."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word}: expected a setting, {word}=<value>"
    if value.endswith(","):
        return f"{word}: a value is missing after the last comma"
    if '"' in value or "'" in value:
        return f"{word}: its quotes do not close, or something stands outside of them"
    return f"""{word}: has characters that stand only in quotes; quote twice, '{key}="{value}"'"""


def _known_keys(group: str) -> list[str]:
    """Returns the settings there are, of a group those of all its choices."""
    from lbt.sweep.hydra_session import compose

    keys = list(_walk(OmegaConf.to_container(compose([])), ""))
    keys += [name for name in groups() if name not in keys]
    for choice in choices(group) if "." not in group and group in groups() else ():
        with suppress(Exception):  # one that needs another choice, or a broken file of one's own
            chosen = compose([f"{group}={choice}"])
            keys += [key for key in _walk({group: OmegaConf.to_container(chosen[group])}, "") if key not in keys]
    return keys


def _walk(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _walk(value, f"{prefix}{key}.")
