"""The one exception for mistakes a user can mend, the spelling help that goes with it, and what a library says."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the command, the configuration or the data; its text is one line that says what to do."""


def flat(error: BaseException | str) -> str:
    """Returns what an error says, in one line."""
    return " ".join(str(error).split())


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `'; did you mean "lars"?'` for the option nearest to `word`, or the options where none is near."""
    options = sorted(map(str, options))
    near = get_close_matches(str(word), options, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; choose from {', '.join(options)}" if options else ""


@contextmanager
def reading(path: str | os.PathLike, remedy: str = "") -> Iterator[None]:
    """Names the file at hand in whatever goes wrong while it is read.

    Args:
        path: of the file.
        remedy: what to do about it.

    Raises:
        UserError: anything but a `UserError` was raised within; one line that names the file.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read: {said(error)}{remedy and '; '}{remedy}") from error


def said(error: BaseException) -> str:
    """Returns an error in one line, for a reader who does not know the code; its kind where its text is none."""
    if isinstance(error, UnicodeError):
        at_hand = getattr(error, "object", "")
        return f"not UTF-8: {at_hand[:200]!r}" if len(at_hand) <= 200 else "not UTF-8"
    if isinstance(error, OSError | ValueError) and (text := flat(error)):
        return text
    return f"{type(error).__name__}: {flat(error)}".removesuffix(": ")
