"""The one exception for mistakes a user can mend, and the spelling help that goes with it."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the command, the configuration or the data; its text is one line that says what to do."""


def flat(error: BaseException) -> str:
    """Returns what an error says, in one line."""
    return " ".join(str(error).split())


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `'; did you mean "lars"?'` for the option nearest to `word`, or the options where none is near."""
    options = sorted(map(str, options))
    near = get_close_matches(str(word), options, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; choose from {', '.join(options)}" if options else ""
