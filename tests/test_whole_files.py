"""Files are whole or not there, nothing is left behind for ever, and only files are read."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lbt import files

KILLED = """
import os, signal, sys
from pathlib import Path
from lbt import files
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.replace_file(Path(sys.argv[1]), b"half")
"""


def kill_inside_a_write(target):
    done = subprocess.run([sys.executable, "-c", KILLED, target], timeout=60)
    assert done.returncode == -signal.SIGKILL


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def no_flock(monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_later_write_takes_over_what_killed_ones_left(tmp_path):
    target = tmp_path / "file"
    for _ in range(3):
        kill_inside_a_write(target)
    assert len(names(tmp_path)) == 1 and not target.exists()
    files.replace_file(target, b"whole")
    assert names(tmp_path) == ["file"] and target.read_bytes() == b"whole"


def test_what_was_left_goes_when_asked_but_not_what_is_being_written(tmp_path):
    target = tmp_path / "file"
    kill_inside_a_write(target)
    other = tmp_path / ".file.other.tmp"
    other.touch()
    with files.replacing(tmp_path / "busy"):
        files.remove_left(target)
        files.remove_left(tmp_path / "busy")
        assert names(tmp_path) == [".busy.tmp", ".file.other.tmp"]
    assert names(tmp_path) == [".file.other.tmp", "busy"]


def test_what_earlier_versions_left_goes_once_it_is_old(tmp_path):
    old, young = tmp_path / ".file.a1b2_c3d", tmp_path / ".file.a1b2c3d4"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, time.time() - 2 * files.ABANDONED_SECONDS))
    files.remove_left(tmp_path / "file")
    assert names(tmp_path) == [young.name]
    files.remove_left(tmp_path / "file", locked=True)
    assert names(tmp_path) == []


def test_writers_of_one_file_at_once_leave_one_of_theirs_whole(tmp_path):
    code = (
        "import sys; from pathlib import Path; from lbt import files\n"
        "for _ in range(100): files.replace_file(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)"
    )
    target = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", code, target, letter]) for letter in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["file"]
    assert target.read_text() in {letter * 100_000 for letter in "abc"}


def test_what_a_killed_writer_left_is_removed_under_its_lock(tmp_path, monkeypatch):
    left, tried = tmp_path / ".file.tmp", []
    left.write_bytes(b"half")

    def meanwhile(path):
        with open(path, "rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(path)
        os.unlink(path)

    monkeypatch.setattr(files.Path, "unlink", meanwhile)
    files.remove_left(tmp_path / "file")
    assert tried == [left] and names(tmp_path) == []


def test_a_writer_that_fails_leaves_what_another_one_has_under_the_name(tmp_path):
    left = tmp_path / ".file.tmp"

    def content():
        left.unlink()
        left.write_bytes(b"another's")
        raise KeyError

    with pytest.raises(KeyError), files.replacing(tmp_path / "file") as file:
        file.write(content())
    assert names(tmp_path) == [left.name] and left.read_bytes() == b"another's"


def test_nobody_waits_for_a_writer_that_does_not_end(tmp_path):
    target = tmp_path / "file"
    with files.replacing(target) as first:
        first.write(b"first")
        files.replace_file(target, b"second")
        assert target.read_bytes() == b"second"
    assert names(tmp_path) == ["file"] and target.read_bytes() == b"first"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_permissions_are_what_the_umask_leaves_and_nothing_is_changed_by_chmod(tmp_path, monkeypatch, mask, mode):
    def forbidden(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, forbidden, raising=False)
    before = os.umask(mask)
    try:
        files.replace_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_without_flock_files_are_whole_too_and_what_was_left_goes_once_it_is_old(tmp_path, no_flock):
    target, old = tmp_path / "file", tmp_path / f".file.{'0' * 32}.tmp"
    old.touch()
    files.replace_file(target, b"one")
    assert names(tmp_path) == [old.name, "file"]
    os.utime(old, (0, time.time() - 2 * files.ABANDONED_SECONDS))
    files.replace_file(target, b"two")
    assert names(tmp_path) == ["file"] and target.read_bytes() == b"two"


@pytest.mark.parametrize("planted", ["link", "fifo", "folder"])
def test_what_lies_in_the_way_of_a_temporary_file_is_not_written_to(tmp_path, planted):
    victim, way = tmp_path / "victim", tmp_path / ".file.tmp"
    victim.write_bytes(b"precious")
    {"link": lambda: way.symlink_to(victim), "fifo": lambda: os.mkfifo(way), "folder": way.mkdir}[planted]()
    files.replace_file(tmp_path / "file", b"content")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"content" and not (tmp_path / "file").is_symlink()


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "file"
    files.replace_file(target, b"old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.replace_file(target, b"new")
    assert target.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.replace_file(tmp_path / "none" / "file", b"")


def test_only_what_is_a_file_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "file") == files.read_regular(tmp_path / "link") == b"content"
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path / "pipe", "a named pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=f"it is {why}, not a file"):
            files.open_regular(path)
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "nothing")
