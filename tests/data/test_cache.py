import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import left_behind, noise, picture, save

from lbt.data import cache, fingerprint, folders, load
from lbt.data.cache import Known, cached
from lbt.data.imageset import image_set

HONEST = (torch.arange(4 * 3 * 8 * 8, dtype=torch.int64).to(torch.uint8).view(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))


@pytest.fixture
def pair(tmp_path) -> Path:
    """Two classes, two training images each and one test image each."""
    for split, count in (("train", 2), ("test", 1)):
        for name in ("a", "b"):
            for number in range(count):
                save(tmp_path / split / name / f"{number}.png", noise(ord(name) + number, 8, 8, 3))
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"train_labels": torch.tensor([0, 0, 1, 7])},  # out of range
        {"train_labels": torch.tensor([0, 0, 1, -1])},
        {"train_labels": torch.tensor([1, 1, 0, 0])},  # in range, and wrong
        {"train_labels": torch.tensor([0.0, 0.0, 1.0, 1.0])},
        {"test_labels": torch.tensor([0])},
        {"train_images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)},
        {"train_images": torch.zeros(4, 3, 8, 8)},
        {"train_images": torch.zeros(1, dtype=torch.uint8).expand(4, 3, 1 << 20, 1 << 20)},  # a few bytes, 13 TB
        {"classes": json.dumps(["x", "y"])},
        {"classes": json.dumps([1, 2])},
        {"classes": "[" * 100_000},
        {"train_images": None},
    ],
)
def test_a_planted_file_is_not_believed(pair, changes, capsys):
    honest = load("image_folder", pair, resolution=8)
    path = pair / ".lbt-cache" / "image_folder-resolution8.pt"
    stored = torch.load(path, weights_only=True) | changes
    parts = [stored[part] for part in cache.IMAGES]
    if all(isinstance(part, torch.Tensor) and part.is_contiguous() for part in parts):
        stored["fingerprint"] = fingerprint(*parts)
    path.unlink()  # its pixels are mapped: what is written over them would change under `honest`
    torch.save(stored, path)
    again = load("image_folder", pair, resolution=8)
    assert again.fingerprint == honest.fingerprint and again.classes == honest.classes
    assert torch.equal(again.train_labels, honest.train_labels)
    assert f"{path} is damaged" in capsys.readouterr().err


def test_no_file_calls_itself_official(pair):
    honest = load("image_folder", pair, resolution=8)
    path = pair / ".lbt-cache" / "image_folder-resolution8.pt"
    stored = torch.load(path, weights_only=True)
    path.unlink()
    torch.save(stored | {"origin": "cifar10 (official)", "official": True, "name": "cifar10"}, path)
    again = load("image_folder", pair, resolution=8)
    told = (again.name, again.origin, again.official, again.fingerprint)
    assert told == (honest.name, honest.origin, False, honest.fingerprint)


def test_pixels_of_another_size_are_not_believed(pair):
    load("image_folder", pair, resolution=16)
    honest = load("image_folder", pair, resolution=8)
    caches = pair / ".lbt-cache"
    os.replace(caches / "image_folder-resolution16.pt", caches / "image_folder-resolution8.pt")
    assert load("image_folder", pair, resolution=8).fingerprint == honest.fingerprint


def test_the_reader_says_the_same_of_fresh_and_of_cached_images(tmp_path):
    built = []

    def build():
        built.append(1)
        return image_set("mine", HONEST, HONEST, ("a", "b"), origin="from nowhere", official=True)

    for known, expected in ((None, ("mine", False)), (Known("mine (a copy)", True), ("mine (a copy)", True))):
        first, second = (cached("mine", tmp_path, "state", build, known) for _ in range(2))
        assert len(built) == 1
        for images in (first, second):
            assert (images.origin, images.official) == expected and torch.equal(images.train_images, HONEST[0])
        assert replace(first, **dict.fromkeys(cache.IMAGES)) == replace(second, **dict.fromkeys(cache.IMAGES))


def test_options_that_are_no_file_names_have_a_file_each(tmp_path):
    def build(shade):
        return lambda: image_set("x", *[(HONEST[0] + shade, HONEST[1])] * 2, ("a", "b"), origin="x", official=False)

    values = ("../../up", "a/b", "a\0b", "", "x" * 500, None, "plain")
    marks = {cached("x", tmp_path, "s", build(n), option=value).fingerprint for n, value in enumerate(values)}
    assert len(marks) == len(values) == len(list((tmp_path / ".lbt-cache").glob("*.pt")))
    assert os.listdir(tmp_path) == [".lbt-cache"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_in_its_place_is_no_obstacle(pair, make):
    (pair / ".lbt-cache").mkdir()
    make(pair / ".lbt-cache" / "image_folder-resolution8.pt")
    assert len(load("image_folder", pair, resolution=8).train_labels) == 4


def test_a_pipe_for_a_lock_is_no_obstacle(pair):
    (pair / ".lbt-cache").mkdir()
    os.mkfifo(pair / ".lbt-cache" / "image_folder-resolution8.pt.lock")
    assert len(load("image_folder", pair, resolution=8).train_labels) == 4


def test_it_has_the_users_permissions_and_no_lock_stays(pair):
    before = os.umask(0o077)
    try:
        load("image_folder", pair, resolution=8)
    finally:
        os.umask(before)
    (file,) = (pair / ".lbt-cache").iterdir()
    assert file.suffix == ".pt" and file.stat().st_mode & 0o777 == 0o600


def test_a_user_without_a_home(pair, monkeypatch):
    def missing():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", missing)
    assert len(load("image_folder", pair, resolution=8).train_labels) == 4
    assert len(load("digits").classes) == 10


def test_a_root_that_is_not_utf8_is_cached(tmp_path):
    root = tmp_path / os.fsdecode(b"\xff\xfe")
    picture(root, "train/a/0.png", "test/a/0.png")
    load("image_folder", root, resolution=8)
    assert (root / ".lbt-cache" / "image_folder-resolution8.pt").exists()


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    seen, original = [], folders.decode_one
    monkeypatch.setattr(folders, "decode_one", lambda *args: seen.append(1) or original(*args))
    return seen


def test_the_second_load_decodes_nothing(folder, decoded):
    first = load("cifar10", folder)
    assert len(decoded) == 30
    second = load("cifar10", folder)
    assert len(decoded) == 30
    assert torch.equal(first.train_images, second.train_images)
    assert vars(first).keys() == vars(second).keys()
    assert [getattr(second, key) for key in ("name", "classes", "origin", "official", "fingerprint")] == [
        getattr(first, key) for key in ("name", "classes", "origin", "official", "fingerprint")
    ]
    assert sorted(p.suffix for p in (folder / ".lbt-cache").iterdir()) in ([".lock", ".pt"], [".pt"])


def test_a_changed_source_is_noticed(folder, decoded):
    first = load("cifar10", folder)
    path = folder / "cifar10" / "train" / "bird" / "0001.png"
    size = path.stat().st_size
    save(path, noise(999, 32, 32, 3))
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    changed = load("cifar10", folder)
    assert changed.fingerprint != first.fingerprint
    path.rename(path.with_name("0002.png"))  # the same bytes and times under another name
    assert load("cifar10", folder).fingerprint == changed.fingerprint
    os.utime(path.with_name("0002.png"), ns=(1, 1))
    load("cifar10", folder)
    assert len(decoded) == 4 * 30
    assert len(list((folder / ".lbt-cache").glob("*.pt"))) == 1


def test_a_damaged_cache_is_made_again(folder, decoded, capsys):
    fresh = load("cifar10", folder)
    path = folder / ".lbt-cache" / "cifar10.pt"
    whole = path.read_bytes()
    pixels = whole.index(fresh.train_images[3].numpy().tobytes())
    damaged = [whole[: len(whole) // 2], whole[:-1], b"", b"nonsense"]
    damaged.append(whole[:pixels] + bytes([whole[pixels] ^ 1]) + whole[pixels + 1 :])  # one bit of one pixel
    for count, content in enumerate(damaged, start=2):
        path.unlink()
        path.write_bytes(content)
        again = load("cifar10", folder)
        assert len(decoded) == 30 * count
        assert torch.equal(again.train_images, fresh.train_images)
        assert f"{path} is damaged" in capsys.readouterr().err
    load("cifar10", folder)
    assert len(decoded) == 30 * (len(damaged) + 1)


def test_the_cache_runs_no_code(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    load("cifar10", folder)
    path = folder / ".lbt-cache" / "cifar10.pt"
    path.unlink()
    torch.save({"key": Evil()}, path)
    load("cifar10", folder)
    assert not (tmp_path / "evil").exists()


def test_a_failed_write_leaves_nothing_and_the_data_is_still_there(folder, monkeypatch, capsys):
    def full(stored, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert len(load("cifar10", folder).train_labels) == 20
    assert "No space left on device" in capsys.readouterr().err
    assert not list((folder / ".lbt-cache").glob("*.pt"))
    assert left_behind(folder) == []


def test_what_a_killed_process_left_is_removed(folder):
    (folder / ".lbt-cache").mkdir()
    (folder / ".lbt-cache" / f".cifar10.pt.{'0' * 32}.tmp").write_bytes(b"half")
    load("cifar10", folder)
    assert left_behind(folder) == []


def test_a_read_only_root_is_cached_at_home(folder, home, decoded, monkeypatch):
    real = Path.mkdir

    def mkdir(path, *args, **kwargs):  # as root, a mode would not stop us
        if path.is_relative_to(folder):
            raise OSError(30, "Read-only file system")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    load("cifar10", folder)
    load("cifar10", folder)
    assert len(decoded) == 30
    assert not (folder / ".lbt-cache").exists()
    assert len(list((home / ".cache" / "lbt").rglob("cifar10.pt"))) == 1


RACE = """
import sys, time
from lbt.data import folders, load
original = folders.decode_one
def counted(*args):
    with open(sys.argv[2], "a") as file:
        file.write("x")
    time.sleep(0.02)
    return original(*args)
folders.decode_one = counted
print("ready", flush=True)
sys.stdin.readline()
print(load("image_folder", sys.argv[1]).fingerprint)
"""


def test_racing_processes_decode_once(folder, tmp_path):
    count = tmp_path / "count"
    command = [sys.executable, "-c", RACE, str(folder / "cifar10"), str(count)]
    repository = Path(__file__).parents[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=repository, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    assert count.read_text() == "x" * 30
