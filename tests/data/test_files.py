import errno
import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest
from pictures import one_line, picture

from lbt.data import load
from lbt.data.files import alone, reading, said
from lbt.errors import UserError
from lbt.files import remove_left, replacing


class OddError(Exception):
    """No list of exceptions would have it."""


@pytest.mark.parametrize(
    "error", [OddError("two\nlines"), KeyError("data"), AttributeError(), OSError("no"), EOFError()]
)
def test_whatever_goes_wrong_is_one_line_about_the_file_at_hand(error):
    with pytest.raises(UserError) as caught, reading(Path("/data/0.png"), "replace the file", "as an image"):
        raise error
    text = one_line(str(caught.value))
    assert text.startswith("/data/0.png cannot be read as an image (") and text.endswith("): replace the file")
    assert "()" not in text


def test_the_nearest_file_is_named():
    expected = r"^/nowhere/x cannot be read \(No such file or directory\): mend it$"
    with pytest.raises(UserError, match=expected), reading(Path("/data"), "mend it"):
        os.stat("/nowhere/x")


@pytest.mark.parametrize("error", [UserError("said"), MemoryError(), KeyboardInterrupt()])
def test_what_is_not_the_files_fault_passes(error):
    with pytest.raises(type(error)) as caught, reading(Path("/data"), "mend it"):
        raise error
    assert caught.value is error


def test_a_path_is_shown_in_one_line_of_utf8():
    assert said(Path("/é/a b")) == "/é/a b"
    assert said(os.fsdecode(b"/\xe9\n\x1b[31m")) == r"/\xe9\n\x1b[31m"


def killed_while_writing(path: Path) -> None:
    child = os.fork()
    if child == 0:
        with alone(path.with_suffix(".lock")), replacing(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_kills_leave_does_not_pile_up(tmp_path):
    path = tmp_path / "x.pt"
    for _ in range(3):
        killed_while_writing(path)
    assert len(os.listdir(tmp_path)) == 2  # one lock, one half file
    with alone(path.with_suffix(".lock")) as locked:
        remove_left(path, locked=locked)
        with replacing(path) as file:
            file.write(b"whole")
    assert os.listdir(tmp_path) == ["x.pt"]


def test_one_at_a_time_is_inside(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with alone(tmp_path / "lock") as locked:
                inside.append(1)
                most.append(len(inside) if locked else 99)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and max(most) == 1 and os.listdir(tmp_path) == []


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    picture(tmp_path, "train/a/0.png", "test/a/0.png")
    (tmp_path / ".lbt-cache").mkdir()
    (tmp_path / ".lbt-cache" / "image_folder-resolution8.pt.lock").write_bytes(b"")  # left by another machine
    load("image_folder", tmp_path, resolution=8)
    assert (tmp_path / ".lbt-cache" / "image_folder-resolution8.pt").exists()
