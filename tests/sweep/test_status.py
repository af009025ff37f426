"""`lbt status` says of each cell what its record and its lock say."""

import pytest
from filelock import FileLock
from support import StopAfter, run_tiny, tiny_config

from lbt.records import places
from lbt.sweep.status import find


@pytest.fixture
def broken_off(tmp_path):
    return run_tiny(tmp_path, "seed=1", interrupt=StopAfter(4)).id


def state(results_dir, seed):
    return find([tiny_config(results_dir, f"seed={seed}")])[0]


def test_a_cell_is_what_its_record_says(tmp_path, broken_off):
    run_tiny(tmp_path)
    assert [state(tmp_path, seed) for seed in (0, 1, 2)] == [("done", 4), ("interrupted", 1), ("missing", 0)]


def test_a_run_whose_lock_is_held_is_running(tmp_path, broken_off):
    with FileLock(places.lock_of(tmp_path, broken_off)):
        assert state(tmp_path, 1) == ("running", 1)


def test_a_copy_that_was_broken_off_does_not_hide_the_finished_one(tmp_path, broken_off):
    left = next(tmp_path.glob(f"runs/*/{broken_off}.jsonl"))
    content = left.read_bytes()
    run_tiny(tmp_path, "seed=1")
    other = tmp_path / "runs" / "a" / left.name
    other.parent.mkdir()
    other.write_bytes(content)
    assert state(tmp_path, 1) == ("done", 4)
