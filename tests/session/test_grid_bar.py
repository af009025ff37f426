"""What a terminal shows of a whole grid, and what anything else does not."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from support import TINY, configure

from lbt.data import PICTURES
from lbt.session.console import ConsoleReporter
from lbt.session.grid_bar import Grid, GridLine, in_words


def drawn(grid, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(GridLine(lambda _: grid))
    return console.file.getvalue()


def test_a_grid_is_one_line_with_its_states_and_time():
    line = drawn(Grid(16, {"running": 1, "diverged": 1, "done": 3, "new": 2}, 240.0))
    assert line.rstrip().endswith("4/16 runs 3 done, 1 diverged, 1 running, 2 new  about 4 min left")
    assert drawn(Grid(2)).rstrip().endswith("0/2 runs") and "left" not in drawn(Grid(2, {"done": 2}))
    for width in (30, 59, 80):
        narrow = drawn(Grid(1600, {"done": 1000, "failed": 300, "running": 12}, 7200.0), width)
        assert narrow.count("\n") == 1 and len(narrow.rstrip()) <= width and "1300/1600 runs" in narrow


def test_durations_have_one_unit():
    assert [in_words(seconds) for seconds in (0.0, 89.0, 91.0, 5000.0, 7200.0)] == [
        "1 s", "89 s", "2 min", "83 min", "2.0 h",
    ]  # fmt: skip


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_of_a_sweep_has_the_grids_bar_below_its_own_on_a_terminal_alone(terminal):
    shares = []

    def now(share):
        shares.append(share)
        return Grid(5, {"done": 2, "running": 1})

    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    reporter = ConsoleReporter(console, heading=lambda: "run 3 of 5", grid=now)
    images = SimpleNamespace(form=PICTURES, origin="made up", train_labels=np.zeros(44))
    reporter.start(configure(*TINY), "abc", images, [3, 3, 3, 3], 0)
    reporter.step(1, 3, 44, 1.0)
    reporter.close()
    said = console.file.getvalue()
    assert "run 3 of 5" in said and ("2/5 runs" in said) == terminal == ("\x1b" in said)
    assert shares[-1:] == ([0.25] if terminal else [])
