import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pictures import BOTH, error_line, first_read, noise, one_line, picture, save
from torchvision.datasets import ImageFolder

from lbt.data import load
from lbt.data.listing import listing

DEEP = ["train/a/0.png", "train/a/one/1.png", "train/b/2.png", "train/b/x/y/3.png", "test/a/4.png", "test/b/z/5.png"]


@pytest.mark.parametrize("name", BOTH)
def test_folders_within_a_class_are_the_classs_as_in_torchvision(tmp_path, name):
    picture(tmp_path, *DEEP)
    images = load(name, tmp_path, resolution=8)
    for split, labels in (("train", images.train_labels), ("test", images.test_labels)):
        theirs = ImageFolder(tmp_path / split)
        assert labels.tolist() == sorted(theirs.targets)
        assert list(images.classes) == theirs.classes


@pytest.mark.parametrize("name", BOTH)
def test_deeper_images_are_read_and_told_apart(tmp_path, name):
    picture(tmp_path, *DEEP)
    before = load(name, tmp_path, resolution=8).fingerprint
    save(tmp_path / "train" / "b" / "x" / "y" / "3.png", noise(99, 16, 16, 3))
    assert load(name, tmp_path, resolution=8).fingerprint != before
    (tmp_path / "train" / "b" / "x" / "y" / "3.png").write_bytes(b"damaged")
    if name == "image_folder":
        assert "train/b/x/y/3.png cannot be read as an image" in error_line(name, tmp_path, resolution=8)


def test_tiny_imagenet_with_its_val_sorted_into_folders_is_an_image_folder(tmp_path):
    picture(tmp_path, "train/n01/images/n01_0.png", "train/n02/images/n02_0.png", "test/images/test_0.png")
    picture(tmp_path, "val/n01/images/val_1.png", "val/n02/val_0.png", "val/n02/val_2.png")
    images = load("image_folder", tmp_path, resolution=8)
    assert images.classes == ("n01", "n02") and images.test_labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", BOTH)
def test_hidden_files_and_folders_are_passed_over(tmp_path, name):
    picture(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png")
    before = load(name, tmp_path, resolution=8).fingerprint
    picture(tmp_path, "train/.thumbnails/0.png", "train/a/.trash/0.png", "train/a/deep/.git/0.png")
    for hidden in ("train/._a", "train/a/._0.png", "test/a/._0.png", "train/b/.DS_Store.png"):
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7no image")
    images = load(name, tmp_path, resolution=8)
    assert images.fingerprint == before and images.classes == ("a", "b")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_an_image_is_told(tmp_path, name, split):
    picture(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png")
    (tmp_path / split / "c").mkdir()
    (tmp_path / split / "c" / "0.heic").write_bytes(b"not one of the suffixes")
    assert f"{tmp_path}/{split}/c is a class without an image (.jpg, " in error_line(name, tmp_path)


@pytest.mark.parametrize("name", BOTH)
def test_images_outside_of_any_class_are_said_to_be_left_out(tmp_path, name, capsys):
    picture(tmp_path, "train/a/0.png", "test/a/0.png", "train/stray.png", "train/zebra.png")
    assert len(load(name, tmp_path, resolution=8).train_labels) == 1
    assert (
        f"{tmp_path}/train/stray.png is in no class folder and is left out, as are 1 like it" in capsys.readouterr().err
    )


# --- what is no file ---


@pytest.mark.parametrize("name", BOTH)
def test_a_pipe_among_the_images_is_told_and_not_opened(tmp_path, name):
    picture(tmp_path, "train/a/0.png", "test/a/0.png")
    os.mkfifo(tmp_path / "train" / "a" / "1.png")
    line = error_line(name, tmp_path)
    assert f"{tmp_path}/train/a/1.png cannot be read as an image (it is a named pipe, not a file)" in line


@pytest.mark.parametrize("name", BOTH)
def test_a_device_among_the_images_is_told(tmp_path, name):
    picture(tmp_path, "train/a/0.png", "test/a/0.png")
    (tmp_path / "test" / "a" / "1.png").symlink_to("/dev/zero")
    assert f"{tmp_path}/test/a/1.png cannot be read as an image (it is a device, not" in error_line(name, tmp_path)


@pytest.mark.parametrize("name", BOTH)
def test_links_lead_to_files_and_folders_or_are_named(tmp_path, name):
    picture(tmp_path, "elsewhere/deep/0.png", "elsewhere/1.png", "data/test/b/2.png", "data/train/b/3.png")
    root = tmp_path / "data"
    (root / "train" / "a").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "b" / "4.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert load(name, root, resolution=8).train_labels.tolist() == [0, 0, 1, 1]
    (root / "train" / "b" / "notes").symlink_to(tmp_path / "nothing")  # is not called an image
    assert load(name, root, resolution=8).train_labels.tolist() == [0, 0, 1, 1]
    (root / "train" / "b" / "5.png").symlink_to(tmp_path / "nothing")
    assert f"{root}/train/b/5.png is a link to nothing" in error_line(name, root)


@pytest.mark.parametrize("name", BOTH)
def test_a_folder_linked_into_itself_is_named(tmp_path, name):
    picture(tmp_path, "train/a/x/0.png", "test/a/0.png")
    (tmp_path / "train" / "a" / "x" / "up").symlink_to(tmp_path / "train")
    assert f"{tmp_path}/train/a/x/up is a link to a folder that holds it" in error_line(name, tmp_path)


@contextmanager
def somebody_else():
    """Root may read everything: for the time being this process belongs to nobody."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("name", BOTH)
def test_what_must_not_be_read_is_named(name):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for this user alone
        root = Path(folder)
        root.chmod(0o755)
        picture(root, "train/a/0.png", "train/b/0.png", "test/a/0.png")
        (root / "train" / "b").chmod(0)
        with somebody_else():
            assert f"{root}/train/b cannot be read (Permission denied)" in error_line(name, root)
        (root / "train" / "b").chmod(0o755)
        root.chmod(0)
        with somebody_else():
            assert str(root) in error_line(name, root)
        root.chmod(0o755)


# --- names ---


@pytest.mark.parametrize("name", BOTH)
def test_names_that_are_not_utf8_are_read_and_told(tmp_path, name):
    root = tmp_path / os.fsdecode(b"d\xe9ta")
    cat = os.fsdecode(b"train/\xe9t\xe9/0.png")
    picture(root, cat, os.fsdecode(b"test/\xe9t\xe9/0.png"))
    images = load(name, root, resolution=8)
    assert r"d\xe9ta" in images.origin and len(images.classes) == 1
    images.origin.encode()
    again = load(name, root, resolution=8)
    assert (again.classes, again.fingerprint) == (images.classes, images.fingerprint)
    assert first_read(name, root).shape == (1, 3, 8, 8)
    (root / cat).unlink()
    os.mkfifo(root / cat)
    assert r"train/\xe9t\xe9/0.png cannot be read" in error_line(name, root)


@pytest.mark.parametrize("name", BOTH)
def test_names_of_several_lines_are_told_in_one(tmp_path, name):
    root = tmp_path / "two\nlines"
    picture(root, "train/a/0.png", "test/a\nb/0.png")
    assert r"two\nlines/test/a\nb is a class that" in error_line(name, root)
    picture(root, "train/a\nb/0.png")
    one_line(load(name, root, resolution=8).origin)


def test_a_listing_depends_on_names_sizes_and_times_alone(tmp_path):
    picture(tmp_path, *DEEP)
    before = listing(tmp_path, "train", "test")
    assert list(before.names) == sorted(DEEP, reverse=False) and before.sizes["test/a/4.png"] > 0
    assert listing(tmp_path, "test", "train").state == before.state
    os.utime(tmp_path / "test" / "a" / "4.png", ns=(1, 1))
    assert listing(tmp_path, "train", "test").state != before.state


def test_one_image_a_split_is_a_data_set(tmp_path):
    picture(tmp_path, "train/a/0.png", "test/a/0.png")
    images = load("image_folder", tmp_path, resolution=8)
    assert torch.equal(images.train_labels, torch.tensor([0])) and len(images.test_images) == 1
