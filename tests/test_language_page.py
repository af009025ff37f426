"""The commands of docs/language.md are ones that lbt takes: settings and names exist, and every run can be built."""

import re
import shlex

import pytest
from support import REPOSITORY

from lbt import build, sweep
from lbt.config import resolve
from lbt.config.groups import choices

BLOCKS = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "docs" / "language.md").read_text(), flags=re.DOTALL)
COMMANDS = [shlex.split(line, comments=True)[1:] for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "train"], ids=" ".join)
def test_every_training_of_the_page_builds(words):
    """Of a sweep, what its axes vary; its whole grid is a test of the experiments'."""
    one = [word.replace("RUN,RUN", "RUN") for word in words if word not in ("train", "-m")]
    build.validate(resolve(sweep.compose(one)))


def test_every_other_command_names_what_there_is():
    groups = {"tables": "table", "plots": "figure", "reality": "reality"}
    others = [words for words in COMMANDS if words[0] != "train"]
    assert len(others) > 4
    for verb, *words in others:
        assert words[-1] in choices(groups[verb]), words
