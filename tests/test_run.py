"""A run as a whole: what it leaves, and memory that runs out before it begins."""

import signal
import subprocess

import pytest
from filelock import FileLock
from support import TINY, StopAfter, figures, run_tiny, script, tiny_config

from lbt import records
from lbt.cli import main
from lbt.errors import UserError
from lbt.records import places
from lbt.sweep.finished import finished

TWINS = ["task=barlow_twins", "data.augment=barlow_twins"]
NO_MEMORY_FOR = "task.projector=[35184372088832]"  # a petabyte of weights

KILLED_AFTER_ITS_END = """
import os, signal
import lbt.train
from lbt.records import RecordWriter
from support import run_tiny

lbt.train.LONGEST_SECONDS = 0.0  # a checkpoint an update
end = RecordWriter.end

def killed(self, *of):
    end(self, *of)
    os.kill(os.getpid(), signal.SIGKILL)

RecordWriter.end = killed
run_tiny(sys.argv[1])
"""


@pytest.fixture
def killed(tmp_path):
    """A folder in which a run was killed between its record's end and its checkpoint's removal, and the run's id."""
    process = subprocess.run([*script(KILLED_AFTER_ITS_END), str(tmp_path)])
    assert process.returncode == -signal.SIGKILL
    (path,) = records.paths(tmp_path)
    assert records.read(path).status == "done"
    assert places.checkpoint_of(tmp_path, path.stem).exists() and places.lock_of(tmp_path, path.stem).exists()
    return tmp_path, path.stem


def left(folder):
    return list(places.work_folder(folder).iterdir())


def test_what_a_killed_run_left_goes_when_its_final_record_is_found(killed):
    folder, name = killed
    again = run_tiny(folder)
    assert again.recorded_before and again.id == name
    assert left(folder) == []


def test_a_sweeps_look_at_what_is_finished_removes_it_too(killed):
    folder, name = killed
    (found,) = finished([tiny_config(folder)])
    assert found.id == name
    assert left(folder) == []


def test_nothing_is_removed_while_another_process_holds_the_lock(killed):
    folder, name = killed
    holder = subprocess.Popen(
        script(f"""
from filelock import FileLock
with FileLock({str(places.lock_of(folder, name))!r}):
    print("held", flush=True)
    sys.stdin.read()
"""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert run_tiny(folder).recorded_before
        assert places.checkpoint_of(folder, name).exists() and places.lock_of(folder, name).exists()
    finally:
        holder.communicate()
    assert run_tiny(folder).recorded_before and left(folder) == []


def test_a_run_to_the_end_leaves_nothing_and_an_interrupted_one_what_it_goes_on_with(tmp_path):
    stopped = run_tiny(tmp_path, interrupt=StopAfter(5))
    checkpoint = places.checkpoint_of(tmp_path, stopped.id)
    assert checkpoint in left(tmp_path)
    assert run_tiny(tmp_path, "optimizer=sgd", "lr=1e30", "schedule=constant").status == "diverged"
    assert run_tiny(tmp_path, "seed=1").status == "done"
    assert checkpoint in left(tmp_path)
    assert {path.stem for path in left(tmp_path)} == {stopped.id}
    assert run_tiny(tmp_path).status == "done" and left(tmp_path) == []


def test_leftovers_that_cannot_be_removed_are_not_in_the_way(killed, monkeypatch):
    folder, _ = killed

    def refuse(*_):
        raise PermissionError("a file system that is read only")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert run_tiny(folder).recorded_before


def test_a_model_there_is_no_memory_for_is_recorded_as_such_and_tried_again(tmp_path, capsys):
    outcome = run_tiny(tmp_path, *TWINS, NO_MEMORY_FOR)
    record = records.read(outcome.path)
    assert outcome.status == record.status == "oom" and record.epochs == []
    assert record.run["id"] == outcome.id and record.run["provenance"]["train_images"] == 44
    assert record.end["summary"] == outcome.summary == {"epochs": 0, "steps": 0, "wall_seconds": 0.0}
    assert not run_tiny(tmp_path, *TWINS, NO_MEMORY_FOR).recorded_before


def test_a_checkpoint_there_is_no_memory_for_is_kept(tmp_path, monkeypatch):
    whole = run_tiny(tmp_path / "whole")
    stopped = run_tiny(tmp_path / "part", interrupt=StopAfter(5))

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("torch.load", full)
    assert run_tiny(tmp_path / "part").status == "oom"
    monkeypatch.undo()
    assert places.checkpoint_of(tmp_path / "part", stopped.id).exists()
    assert figures(run_tiny(tmp_path / "part").path) == figures(whole.path)


def test_a_sweep_goes_on_and_shows_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, *TWINS, "epochs=1", "task.projector=[35184372088832],[4]", f"results_dir={tmp_path}"]
    assert main(["train", "-m", *words]) == 1
    said = capsys.readouterr().out
    assert "out of memory: there is none for the model and its data" in said
    table = said[said.index("2 runs") :]
    assert "oom" in table and "done" in table
    assert sorted(records.read(path).status for path in records.paths(tmp_path)) == ["done", "oom"]


def test_data_there_is_no_memory_for_are_a_mistake_in_one_line(tmp_path):
    with pytest.raises(UserError, match="does not fit into this machine's memory") as caught:
        run_tiny(tmp_path / "results", "data.size=100000000000000")
    assert "\n" not in str(caught.value) and not (tmp_path / "results").exists()
