"""The words of `lbt train`, and those of a line that a shell asks to complete."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from lbt.errors import UserError

SETTINGS = ("train", "status", "profile")  # verbs whose words are settings
GROUPS = {"tables": "table", "plots": "figure", "reality": "reality"}  # verb -> the group that its words are choices of
WEIGHTS = ("evaluate", "landscape")  # verbs whose words are runs that have kept their weights
_FOLDER = ("--config-dir", "-cd")
_SWEEP = ("-m", "--multirun")


def parted(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the folder of one's own that a command names, and its words without that, `-m` first.

    Hydra's parser takes no setting behind a flag that stands among settings.

    Raises:
        UserError: the flag is there, and no folder.
    """
    folder, others, left = None, [], list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in _FOLDER:
            others.append(word)
        elif not equals and not left:
            raise UserError(f"{word}: expected a folder, {word} DIR")
        else:
            folder = value if equals else left.pop(0)
    flags = [word for word in others if word in _SWEEP]
    return folder, flags[:1] + [word for word in others if word not in flags]


class Line(NamedTuple):
    """A line that is being typed.

    Attributes:
        group: that the word being typed is a choice of; None: it is a setting, which Hydra knows to complete.
        word: the one being typed.
        folder: of one's own, that the line names.
        settings: the line as Hydra takes it, which knows no verbs.
        runs: the folder of the results among whose kept weights the word may be; None: it is something else.
    """

    group: str | None
    word: str
    folder: str | None
    settings: str
    runs: str | None = None


def typed(line: str) -> Line | None:
    """Returns what a line is about, None where the shell completes it: a file's name, or a verb without names."""
    words = line.split()
    word = words.pop() if words and not line[-1].isspace() else ""
    app, verb, *words = words if len(words) > 1 else ("", "")
    if verb not in (*SETTINGS, *GROUPS, *WEIGHTS) or word.startswith("-") or words[-1:] in ([flag] for flag in _FOLDER):
        return None
    folder, others = parted(words)
    if folder is not None:
        folder = os.path.expandvars(folder)  # the shell has not done it yet
    if verb in WEIGHTS:
        place = words.index("--results-dir") + 1 if "--results-dir" in words else len(words)
        known = os.path.expandvars(words[place]) if place < len(words) else "results"
        return None if words[-1:] == ["--results-dir"] else Line(None, word, folder, "", known)
    return Line(GROUPS.get(verb), word, folder, " ".join([app, *others, word]))
