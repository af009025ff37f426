"""CPU threads of a run: what is decided from timings, and that timing, choosing and changing leave the numbers alone.

Timings are made up; every training is a real one, with several threads where its numbers depend on them.
"""

import json
import os
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise

import pytest
import support
import torch
from support import TINY, StopAfter, figures, run_tiny, tiny_config
from torch import nn

from lbt import records, runtime
from lbt.cli import main
from lbt.config import Config
from lbt.identity import from_json, identity, to_json
from lbt.models import MODELS
from lbt.records import places
from lbt.session.console import Reporter
from lbt.train import threads
from lbt.train.threads import Pace, compare
from lbt.verify import repeat

SEVERAL = 2
needs_cores = pytest.mark.skipif(runtime.cores() < SEVERAL, reason="one core")


class Passes:
    """Passes that take so many seconds an image, the first of each kind a while longer; notes what was asked for."""

    def __init__(self, one: float, several: float, first: float = 0.05):
        self.of, self.first, self.made = {1: one, SEVERAL: several}, {1: first, SEVERAL: first}, []

    def __call__(self, number: int, images: int) -> float:
        self.made.append((number, images))
        return images * self.of[number] + self.first.pop(number, 0.0)

    @property
    def seconds(self) -> float:
        return sum(images * self.of[number] for number, images in self.made)


@pytest.fixture
def real():
    """Asks for threads that compute, which takes its time while the machine does something else."""


@pytest.fixture(autouse=True)
def several(request, monkeypatch):
    """Has torch say that it uses several threads; checks that no run leaves it another number."""
    if "real" not in request.fixturenames:
        number = [SEVERAL]
        monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
        monkeypatch.setattr(torch, "set_num_threads", lambda count: number.__setitem__(0, count))
    before = torch.get_num_threads()
    torch.set_num_threads(SEVERAL)
    yield
    assert torch.get_num_threads() == SEVERAL
    torch.set_num_threads(before)


@dataclass
class Told(Reporter):
    """Keeps what was said."""

    lines: list

    def say(self, text):
        self.lines.append(text)


def trained(folder, *overrides, after=None):
    """A run's outcome, and what it said."""
    torch.manual_seed(12345)
    told = Told([])
    outcome = support.run(tiny_config(folder, *overrides), interrupt=after and StopAfter(after), reporter=told)
    return outcome, told.lines


@pytest.fixture
def timed(monkeypatch):
    """Makes up what passes take."""

    def as_if(one, several):
        passes = Passes(one, several)
        monkeypatch.setattr(threads, "pass_timer", lambda *_: passes)
        return passes

    return as_if


@pytest.fixture
def collapse(monkeypatch):
    """Has the speed of each run collapse at its eighth update, of two that begin the third epoch."""

    class Collapsing(Pace):
        updates = 0

        def collapsed(self, images):
            self.updates += 1
            return self.updates == 8

    monkeypatch.setattr(threads, "Pace", Collapsing)


# What is decided


def test_both_kinds_are_timed_on_passes_long_enough_and_in_little_time():
    passes = Passes(one=1 / 600, several=1 / 1100)
    rates = compare(passes, SEVERAL, 512, images=1e6)
    assert (rates.one, rates.several) == (pytest.approx(600), pytest.approx(1100))
    assert passes.seconds < threads.LONGEST
    last = [images for _, images in passes.made][-1]
    assert 0.5 * threads.LOOK < last / 600 < 2 * threads.LOOK


@pytest.mark.parametrize("slower", [5, 50, 1000])
def test_a_collapse_is_seen_on_short_passes(slower):
    passes = Passes(one=1 / 600, several=slower / 600)
    rates = compare(passes, SEVERAL, 512, images=1e6)
    assert rates.one / rates.several == pytest.approx(slower, rel=0.2)
    longest = max(images * passes.of[number] for number, images in passes.made)
    assert passes.seconds < threads.LONGEST + 2 * longest


def test_one_disturbed_pass_decides_nothing():
    quiet = Passes(one=1 / 600, several=1 / 1100)

    def disturbed(number, images):
        return quiet(number, images) + (0.5 if len(quiet.made) in (8, 16) else 0.0)

    rates = compare(disturbed, SEVERAL, 512, images=1e6)
    assert rates.several > rates.one


def test_a_short_run_is_not_timed():
    passes = Passes(one=0.01, several=0.01)
    assert compare(passes, SEVERAL, 16, images=100 * threads.WORTH_IT - 10) is None
    assert SEVERAL not in dict(passes.made)
    assert compare(passes, SEVERAL, 16, images=100 * threads.WORTH_IT + 10)


def test_no_pass_is_larger_than_the_batch():
    passes = Passes(one=1e-6, several=1e-6)
    compare(passes, SEVERAL, 7, images=1e9)
    assert max(images for _, images in passes.made) <= 7


def pace(updates, **options):
    """Which updates, each (seconds, images), are said to be those of a collapse; and 20 s of rest before each tenth."""
    now, found = [0.0], []
    one = Pace(clock=lambda: now[0], **options)
    for number, (seconds, images) in enumerate(updates):
        if number % 10 == 0:
            now[0] += 20.0
            one.mark()
        now[0] += seconds
        if one.collapsed(images):
            found.append(number)
    return found


def test_speed_collapses_against_what_the_run_itself_had():
    quick, slow = [(1.0, 100)] * 30, [(1.0, 24)] * 30
    assert pace([*quick, *[(1.0, 26)] * 30]) == []
    (first,) = pace([*quick, *slow])
    assert 30 < first <= 30 + 2 * threads.WINDOW
    assert pace([*slow, *quick]) == []  # it had no better speed before
    assert pace(slow, best=100.0)  # but in an earlier session
    assert pace([*quick, (20.0, 100), *quick]) == [30]  # one update, as long as two windows, is enough to look


def test_a_run_that_remains_slow_is_timed_again_more_and_more_rarely():
    found = pace([*[(1.0, 100)] * 20, *[(10.0, 100)] * 1000])
    between = [later - earlier for earlier, later in pairwise(found)]
    assert 3 <= len(between) <= 8
    assert all(later > 1.5 * earlier for earlier, later in pairwise(between))


# What becomes of a run


def test_one_thread_is_taken_where_it_is_faster_said_and_recorded(tmp_path, timed):
    timed(one=0.5, several=20.0)
    outcome, said = trained(tmp_path)
    made_by = records.read(outcome.path).run["provenance"]
    assert made_by["threads"] == 1
    assert made_by["threads_timed"] == {"1": 2.0, "2": pytest.approx(0.05, rel=0.01)}
    (line,) = said
    assert line.startswith("one CPU thread, 40.") and "times as fast as 2" in line and "threads=2" in line


def test_several_are_kept_where_they_are_faster_in_silence(tmp_path, timed):
    timed(one=0.5, several=0.3)
    outcome, said = trained(tmp_path)
    made_by = records.read(outcome.path).run["provenance"]
    assert made_by["threads"] == SEVERAL and set(made_by["threads_timed"]) == {"1", "2"} and said == []


@pytest.mark.parametrize("setting", ["threads=1", "threads=2", "deterministic=true"])
def test_what_is_said_is_not_timed(tmp_path, timed, setting):
    if setting == "threads=2" and runtime.cores() < 2:
        pytest.skip("one core")
    passes = timed(one=0.5, several=20.0)
    outcome, said = trained(tmp_path, setting)
    made_by = records.read(outcome.path).run["provenance"]
    assert made_by["threads"] == (1 if setting == "threads=1" else SEVERAL)
    assert "threads_timed" not in made_by and passes.made == said == []


def test_torchs_own_number_is_the_most_that_is_taken(tmp_path, timed):
    passes = timed(one=0.5, several=0.1)
    with runtime.own_threads():  # as OMP_NUM_THREADS=1 does, or a share of sweep.parallel
        runtime.use_threads(1)
        outcome, _ = trained(tmp_path)
    assert records.read(outcome.path).run["provenance"]["threads"] == 1 and passes.made == []


@wraps(support.tiny)
def with_dropout(num_classes, **options):
    """A model that draws from torch's own generator in each pass."""
    return nn.Sequential(support.tiny(num_classes, **options), nn.Dropout(0.2))


@needs_cores
@pytest.mark.parametrize("chosen", [1, SEVERAL])
def test_timing_leaves_the_numbers_of_a_run_alone(tmp_path, real, monkeypatch, chosen):
    """Real passes, on copies: batch norm, dropout, augmentation, momentum and averages go on as if there were none."""
    monkeypatch.setitem(MODELS, "tiny", with_dropout)
    monkeypatch.setattr(threads, "WORTH_IT", 0.0)
    monkeypatch.setattr(threads, "LONGEST", 0.01)
    monkeypatch.setattr(threads, "MARGIN", 0.0 if chosen == 1 else float("inf"))
    settings = ["optimizer=nesterov", "ema=0.9", "epochs=2"]
    outcome, _ = trained(tmp_path / "timed", *settings)
    made_by = records.read(outcome.path).run["provenance"]
    assert made_by["threads"] == chosen and made_by["threads_timed"]
    assert figures(outcome.path) == figures(trained(tmp_path / "plain", *settings, f"threads={chosen}")[0].path)


def test_passes_that_the_model_refuses_are_no_reason_to_fail(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("one value a channel")

    monkeypatch.setattr(threads, "pass_timer", lambda *_: refuse)
    outcome, _ = trained(tmp_path)
    assert outcome.status == "done"


# What becomes of a run that goes on


def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path, timed):
    timed(one=0.5, several=20.0)
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "part", after=5)
    passes = timed(one=0.5, several=0.1)  # by now the machine is quiet
    outcome, said = trained(tmp_path / "part")
    assert figures(outcome.path) == figures(whole.path) and said == []
    assert not passes.made and "threads" not in outcome.summary


@needs_cores
@pytest.mark.parametrize(("setting", "before", "after"), [("threads=2", 1, 2), ("threads=1", 2, 1)])
def test_another_number_is_said_and_recorded(tmp_path, setting, before, after):
    trained(tmp_path, f"threads={before}", after=5)
    outcome, said = trained(tmp_path, setting)
    assert len(said) == 1 and "equal to an uninterrupted run but for rounding" in said[0]
    assert outcome.summary["threads"] == [[0, before], [5, after]]
    assert [line.get("wall_threads") for line in records.read(outcome.path).epochs] == [None, after, after, after]
    assert records.read(outcome.path).run["provenance"]["threads"] == before


def test_a_machine_with_fewer_cores_is_said(tmp_path):
    trained(tmp_path, after=5)
    with runtime.own_threads():
        runtime.use_threads(1)
        outcome, said = trained(tmp_path)
    assert len(said) == 1 and outcome.summary["threads"] == [[0, SEVERAL], [5, 1]]


def test_a_checkpoint_from_before_goes_on_with_the_number_in_its_record(tmp_path):
    stopped, _ = trained(tmp_path, "threads=1", after=5)
    path = places.checkpoint_of(tmp_path, stopped.id)
    state = torch.load(path, weights_only=True)
    assert state["progress"].pop("threads") == [(0, 1)]
    torch.save(state, path)
    outcome, said = trained(tmp_path)
    assert outcome.status == "done" and said == [] and "threads" not in outcome.summary


# What becomes of a run whose speed collapses


def test_a_run_that_collapses_goes_on_with_one_thread_and_says_from_where(tmp_path, timed, collapse, monkeypatch):
    timed(one=0.5, several=0.3)
    plain, _ = trained(tmp_path / "plain")
    assert "threads" not in plain.summary  # one would have been slower
    timed(one=0.5, several=20.0)
    monkeypatch.setattr(threads, "MARGIN", float("inf"))  # when it began the machine was quiet
    outcome, said = trained(tmp_path / "collapsed")
    assert said == ["one CPU thread from update 9 on, 40.0 times as fast as 2 here and now; the record says so"]
    assert outcome.summary["threads"] == [[0, SEVERAL], [8, 1]]
    first, second = figures(plain.path), figures(outcome.path)
    assert first[:2] == second[:2]  # until then nothing has changed
    assert json.loads(outcome.path.read_text().splitlines()[1]).get("wall_threads") is None


def test_what_goes_on_after_a_collapse_repeats_it(tmp_path, real, timed, collapse, monkeypatch):
    timed(one=0.5, several=20.0)
    monkeypatch.setattr(threads, "MARGIN", float("inf"))
    whole, _ = trained(tmp_path / "whole")
    with monkeypatch.context() as killed:  # at the first update after the change: all that is left is its checkpoint
        killed.setattr(Told, "step", lambda self, epoch, step, *_: 1 / 0 if step == 9 else None, raising=False)
        assert trained(tmp_path / "part")[0].status == "failed"
    outcome, said = trained(tmp_path / "part")
    assert said == [] and outcome.summary["threads"] == [[0, SEVERAL], [8, 1]]
    assert figures(outcome.path) == figures(whole.path)


@pytest.mark.parametrize("setting", ["threads=2", "deterministic=true"])
def test_a_run_that_is_to_keep_its_threads_keeps_them(tmp_path, timed, collapse, setting):
    if runtime.cores() < 2:
        pytest.skip("one core")
    passes = timed(one=0.5, several=20.0)
    outcome, said = trained(tmp_path, setting)
    assert said == passes.made == [] and "threads" not in outcome.summary


def test_a_repetition_takes_the_recorded_number_and_says_where_it_changes(
    tmp_path, timed, collapse, monkeypatch, capsys
):
    timed(one=0.5, several=20.0)
    monkeypatch.setattr(threads, "MARGIN", float("inf"))
    outcome, _ = trained(tmp_path)
    assert repeat(str(outcome.path), tmp_path, epochs=2) == 0
    said = capsys.readouterr().out
    assert ("bit-equal" in said) == (runtime.cores() >= SEVERAL) and "from update" not in said
    repeat(str(outcome.path), tmp_path, epochs=3)
    assert "recorded with 1 CPU thread(s) from update 9 on" in capsys.readouterr().out


# What a run is


def test_threads_are_no_part_of_a_run(tmp_path):
    one, other = (tiny_config(tmp_path, f"threads={number}") for number in ("auto", 1))
    assert identity(one) == identity(other)
    assert "threads" not in to_json(other)
    assert from_json(to_json(other)).threads == "auto"
    assert isinstance(other, Config) and replace(other, threads="auto") == one


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("threads=0", "threads=0: expected 1 or more, or auto"),
        ("threads=many", "threads=many: expected auto or a whole number"),
        ("threads=99999", f"threads=99999: there are {len(os.sched_getaffinity(0))} cores here; use threads="),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, setting, said):
    assert main(["train", *TINY, setting, f"results_dir={tmp_path / 'results'}"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_two_runs_of_one_process_choose_for_themselves(tmp_path, timed):
    timed(one=0.5, several=20.0)
    run_tiny(tmp_path)
    timed(one=0.5, several=0.3)
    outcome = run_tiny(tmp_path, "seed=1")
    assert records.read(outcome.path).run["provenance"]["threads"] == SEVERAL
