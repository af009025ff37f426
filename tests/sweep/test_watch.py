"""`lbt status --watch`: what a look shows, when it ends, and what is left where there is no terminal."""

import io
import signal
from dataclasses import replace

import pytest
from planted import plant
from rich.console import Console
from support import TINY, configure

from lbt.cli import main
from lbt.session.grid_bar import Grid
from lbt.sweep import watch
from lbt.sweep.following import Names, Runs, View


@pytest.fixture(scope="module")
def config():
    return configure(*TINY, "name=mine", "results_dir=results")


@pytest.fixture
def grid(tmp_path, monkeypatch, config):
    """Four runs, of which one is done, one diverged, one is being made and one is not there yet."""
    monkeypatch.chdir(tmp_path)
    found = [replace(config, seed=seed) for seed in range(4)]
    plant("results", found[0], 50.0)
    plant("results", found[1], None, status="diverged")
    plant("results", found[2], [10.0, 20.0], status=None, lines=[{"wall_train_seconds": 100.0}] * 2)
    return found


def test_a_look_at_a_grid_counts_also_what_is_missing(grid):
    look = Runs("mine", grid)
    view = look.look()
    assert view.grids["mine"] == Grid(
        4, {"done": 1, "diverged": 1, "running": 1, "missing": 1}, pytest.approx(201, 0.1)
    )
    assert [one.config["seed"] for one in view.running] == [2] and not view.over
    for config in grid[2:]:
        plant("results", replace(config, experiment="other"), 50.0)  # wherever it is made
    assert look.look().over and look.look().complete


def test_a_grid_is_over_with_its_failures_and_not_complete(grid):
    for config in grid[2:]:
        plant("results", config, 50.0, status="failed")
    assert Runs("mine", grid).look().over and not Runs("mine", grid).look().complete


def test_a_look_at_names_takes_new_ones_and_is_never_over(grid):
    look, one = Names([], "results"), Names(["mine"], "results")
    assert look.look().lines() == ["mine: 3 runs: 1 done, 1 diverged, 1 running; about 3 min left"]
    for config in grid[2:]:
        plant("results", replace(config, experiment="later", seed=9 + config.seed), 50.0)
    assert look.look().lines()[0] == "later: 2 runs: 2 done" and not look.look().over
    assert list(one.look().grids) == ["mine"]
    for path in list(one.look().running):
        path.path.unlink()
    assert one.look().lines() == ["mine: 2 runs: 1 done, 1 diverged"]


class Looks:
    """Shows one view after the other."""

    def __init__(self, *views):
        self.views = list(views)

    def look(self):
        """Gives the next one; after the last a signal comes."""
        if len(self.views) == 1:
            signal.raise_signal(signal.SIGINT)
        return self.views.pop(0)


def view(done, left, over=False):
    return View({"mine": Grid(2, {"done": done, "running": 2 - done}, left)}, over=over)


def test_without_a_terminal_each_change_is_a_line(capsys):
    looks = Looks(view(0, 90.0), view(0, 50.0), view(1, 20.0), view(1, 10.0), view(2, None, over=True), None)
    assert watch.follow(looks, 0.01) == 0
    said = capsys.readouterr().out
    assert [line.partition("mine: ")[2] for line in said.splitlines()] == [
        "2 runs: 2 running; about 2 min left",
        "2 runs: 1 done, 1 running; about 20 s left",
        "2 runs: 2 done",
    ]
    assert "\x1b" not in said and "\r" not in said


def test_a_signal_ends_it_quietly(capsys):
    assert watch.follow(Looks(view(0, None), view(0, None)), 0.01) == 130
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err == ""


def test_failed_runs_are_told_by_the_exit_code():
    failed = View({"mine": Grid(1, {"failed": 1})}, over=True)
    assert watch.follow(Looks(failed, None), 0.01) == 1


@pytest.mark.parametrize("height", [8, 12, 24])
def test_a_view_is_no_longer_than_the_screen(tmp_path, monkeypatch, config, height):
    monkeypatch.chdir(tmp_path)
    for seed in range(20):
        plant("results", replace(config, seed=seed), 50.0, status="done" if seed < 10 else None)
    console = Console(file=io.StringIO(), width=100, height=height, force_terminal=True, color_system=None)
    screenful = watch.Screenful(5.0)
    screenful.view = Names([], "results").look()
    console.print(screenful)
    said = console.file.getvalue()
    assert said.count("\n") <= height and "10/20 runs 10 done, 10 running" in said
    assert "every 5 s; Ctrl-C ends it" in said
    assert said.count("  running  ") == 10 or f"and {10 - said.count('  running  ')} more running" in said


@pytest.mark.parametrize(
    ("words", "followed", "every"),
    [
        (["mine", "--watch"], ["mine"], 5.0),
        (["--watch", "mine"], ["mine"], 5.0),
        (["--watch", "0.5", "mine"], ["mine"], 0.5),
        (["--watch"], [], 5.0),
    ],
)
def test_the_command_takes_seconds_or_a_name_after_the_option(monkeypatch, words, followed, every):
    asked = []
    monkeypatch.setattr(watch, "names", lambda *what: asked.append(what) or 0)
    assert main(["status", *words]) == 0
    assert asked == [(followed, "results", every)]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--watch", "0"], "--watch 0: expected seconds"), (["--watch", "mien"], 'did you mean "mine"?')],
)
def test_mistakes_are_one_line(grid, capsys, words, message):
    assert main(["status", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
