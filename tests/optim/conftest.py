"""Triton's interpreter is prepared once a process: its own way, at each call of a function, takes half of the time."""

import os
from importlib.util import find_spec

import pytest


class Kept:
    """What the interpreter did to triton's language, and does not undo."""

    def restore(self):
        pass


@pytest.fixture(scope="session", autouse=True)
def prepared_once():
    """Leaves triton's functions as its interpreter has them; a version without this step is used as it is."""
    if os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    if (prepare := getattr(interpreter, "_patch_lang", None)) is None:
        return
    prepared = set()

    def once(function):
        if (module := function.__module__) not in prepared:
            prepare(function)
            prepared.add(module)
        return Kept()

    interpreter._patch_lang = once
