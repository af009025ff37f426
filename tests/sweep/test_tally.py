"""What a sweep's console says of the whole grid."""

from dataclasses import replace

import pytest
from support import TINY, configure

from lbt.errors import UserError
from lbt.session.outcome import Outcome
from lbt.sweep.tally import Tally


@pytest.fixture(scope="module")
def config():
    return configure(*TINY)


def outcome(config, status="done", seconds=60.0, before=False):
    return Outcome("id", status, config, summary={"wall_seconds": seconds}, recorded_before=before)


def test_counts_and_the_time_of_like_runs(config):
    grid = [replace(config, seed=seed) for seed in range(16)]
    before = [outcome(grid[0], seconds=1.0, before=True), *[None] * 15]
    tally = Tally(grid, before)
    assert tally.begins() == "run 2 of 16 (1 done; about 15 s left)"
    for seconds in (100.0, 20.0, 60.0):  # what this command has timed goes before that
        tally.end(outcome(config, seconds=seconds))
    tally.end(outcome(config, "diverged", seconds=1.0))
    tally.end(UserError("no data"))
    assert tally.begins() == "run 7 of 16 (4 done, 1 diverged, 1 refused; about 10 min left)"


def test_the_runs_most_alike_are_asked_and_unlike_ones_never(config):
    grid = [config, replace(config, batch=8), replace(config, seed=1), replace(config, batch=8, seed=1)]
    tally = Tally(grid, [None] * 4)
    assert tally.begins() == "run 1 of 4"
    tally.end(outcome(config, seconds=10.0))
    assert tally.begins() == "run 2 of 4 (1 done; about 30 s left)"  # batch 16, for want of better
    tally.end(outcome(grid[1], seconds=30.0))
    assert tally.begins() == "run 3 of 4 (2 done; about 40 s left)"
    longer = Tally([config, replace(config, epochs=400)], [outcome(config, before=True), None])
    assert longer.begins() == "run 2 of 2 (1 done)"


def test_runs_side_by_side_end_in_any_order_and_share_the_time(config):
    tally = Tally([replace(config, seed=seed) for seed in range(5)], [None] * 5, at_once=2)
    tally.end(outcome(config), place=1)
    assert tally.ended() == "1 of 5 runs (1 done; about 2 min left)"
    for place in (0, 2, 3):
        tally.end(outcome(config, "failed"), place)
    tally.end(outcome(config), place=4)
    assert tally.ended() == "5 of 5 runs (2 done, 3 failed)"


def test_the_bar_counts_what_is_running_and_the_time_that_has_passed(config):
    grid = [replace(config, seed=seed) for seed in range(4)]
    tally = Tally(grid, [outcome(config, before=True), *[None] * 3], at_once=2)
    tally.begin(0, ago=50.0)
    tally.begin(1, ago=600.0)  # longer than like runs take
    assert tally.now().counts == {"done": 1, "running": 2} and tally.now().ended == 1
    assert tally.now().left == pytest.approx(60.0, abs=1)  # that of the run that has not begun
    tally.end(outcome(config), 1)
    tally.end(outcome(config, "failed"), 2)
    assert tally.now().left == pytest.approx(10.0, abs=1)


def test_what_is_made_of_a_run_tells_how_long_it_and_like_ones_take(config):
    tally = Tally([replace(config, seed=seed) for seed in range(3)], [None] * 3)
    tally.begin(ago=30.0)
    assert tally.now().left is tally.now(0.01).left is None
    assert tally.now(0.25).left == pytest.approx(90 + 2 * 120, rel=0.01)
    tally.end(outcome(config, seconds=50.0))
    tally.begin()
    assert tally.now().left == pytest.approx(100.0, rel=0.01)


def test_a_sweep_of_one_run_says_nothing(config):
    tally = Tally([config], [None])
    assert tally.begins() == "" and tally.shown() is None
    tally.end(outcome(config))
    assert tally.ended() == ""
