"""Checkpoints and locks go with a run's end, and a lock is known as held on every file system."""

import fcntl
import os
import socket
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from support import StopAfter, run_tiny

from lbt.errors import UserError
from lbt.records import places
from lbt.train import checkpoint

ID = "0123456789abcdef"


def work(results_dir):
    folder = places.work_folder(results_dir)
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def plant(results_dir, *names):
    places.work_folder(results_dir).mkdir(exist_ok=True)
    for name in names:
        (places.work_folder(results_dir) / name).touch()


def test_nothing_is_left_of_a_finished_run(tmp_path):
    run_tiny(tmp_path)
    assert work(tmp_path) == []


def test_what_a_kill_left_goes_once_the_run_is_found_finished(tmp_path):
    name = run_tiny(tmp_path).id
    plant(tmp_path, f"{name}.pt", f"{name}.lock", f".{name}.pt.tmp", f".{name}.pt.x1y2z3_4", f"{ID}.pt", "notes.txt")
    assert run_tiny(tmp_path).recorded_before
    assert work(tmp_path) == [f"{ID}.pt", "notes.txt"]


def test_what_a_kill_left_half_written_goes_when_the_run_goes_on(tmp_path):
    stopped = run_tiny(tmp_path, interrupt=StopAfter(2))
    assert stopped.status == "interrupted"
    plant(tmp_path, f".{stopped.id}.pt.tmp", f".{stopped.id}.pt.x1y2z3_4")
    run_tiny(tmp_path, interrupt=StopAfter(2))
    assert work(tmp_path) == [f"{stopped.id}.lock", f"{stopped.id}.pt"]


def test_what_a_process_holds_stays(tmp_path):
    plant(tmp_path, f"{ID}.pt", f"{ID}.lock")
    with FileLock(places.lock_of(tmp_path, ID)):
        places.clear(tmp_path, [ID])
        assert work(tmp_path) == [f"{ID}.lock", f"{ID}.pt"]
    places.clear(tmp_path, [ID])
    assert work(tmp_path) == []


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_checkpoint_that_is_no_file_is_named_and_not_read(tmp_path, kind):
    path = tmp_path / "x.pt"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="not a file; without it the run starts again"):
        checkpoint.restore(path, torch.device("cpu"), {})


def test_held_asks_flock(tmp_path):
    lock = tmp_path / "x.lock"
    assert not places.held(lock)
    with FileLock(lock):
        assert places.held(lock)
    lock.touch()
    assert not places.held(lock)


def test_without_flock_a_lock_is_held_while_it_names_a_process_that_lives(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, lock = socket.gethostname(), tmp_path / "x.lock"
    for content, held in {
        "": False,
        f"{os.getpid()}\n{here}\n": True,
        f"filelock\npid={os.getpid()}\nhost={here}\nmode=exclusive\n": True,
        f"{gone.pid}\n{here}\n": False,
        f"filelock\npid={gone.pid}\nhost={here}\nmode=exclusive\n": False,
        f"{gone.pid}\nanother-machine\n": True,
        "words": True,
    }.items():
        lock.write_text(content)
        assert places.held(lock) is held, content
    lock.write_text("")
    for content, held in {"": True, f"{os.getpid()}\n{here}\n": True, f"{gone.pid}\n{here}\n": False}.items():
        lock.with_suffix(".taken").write_text(content)
        assert places.held(lock) is held, content
