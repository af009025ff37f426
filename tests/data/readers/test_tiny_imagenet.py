import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from pictures import error_line, md5, noise, save

from lbt.data import cache, load
from lbt.data.readers import tiny_imagenet


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A folder `tiny-imagenet-200` of 3 classes with 2 training and 1 val image each, and the zip of it."""
    monkeypatch.setattr(tiny_imagenet, "COUNTS", (6, 3))
    monkeypatch.setattr(tiny_imagenet, "CLASSES", 3)
    monkeypatch.setattr(tiny_imagenet, "URL", "http://127.0.0.1:9/tiny.zip")
    base = tmp_path / "tiny" / "tiny-imagenet-200"
    wnids = ("n03", "n01", "n02")
    for number, wnid in enumerate(wnids):
        for index in range(2):
            pixels = noise(number, 64, 64) if index else noise(number, 64, 64, 3)  # a grey one each
            save(base / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", pixels)
        (base / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        save(base / "val" / "images" / f"val_{number}.JPEG", noise(number + 10, 64, 64, 3))
    notes = "".join(f"val_{number}.JPEG\t{wnids[number]}\t0\t32\t44\t62\n" for number in (2, 0, 1))
    (base / "val" / "val_annotations.txt").write_text(notes)
    archive = shutil.make_archive(str(tmp_path / "tiny-imagenet-200"), "zip", base.parent, base.name)
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(Path(archive).read_bytes()))
    return base.parent


def test_tiny_imagenet_folder_and_zip_agree(tiny, tmp_path):
    images = load("tiny_imagenet", tiny)
    assert images.classes == ("n01", "n02", "n03")
    assert images.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.test_labels.tolist() == [2, 0, 1]  # by val_annotations.txt
    assert torch.equal(images.train_images[1, 0], images.train_images[1, 2])  # grey made RGB
    assert not torch.equal(images.train_images[0, 0], images.train_images[0, 2])
    assert images.official
    (tmp_path / "zip").mkdir()
    shutil.move(tmp_path / "tiny-imagenet-200.zip", tmp_path / "zip")
    zipped = load("tiny_imagenet", tmp_path / "zip")
    direct = load("tiny_imagenet", tiny / "tiny-imagenet-200")
    assert zipped.fingerprint == direct.fingerprint == images.fingerprint
    assert "official files: zip, checksum verified" in zipped.origin
    assert "official files: folder" in images.origin


def test_tiny_imagenet_damaged_zip_is_not_opened(tiny, tmp_path, monkeypatch):
    archive = tmp_path / "tiny-imagenet-200.zip"
    archive.write_bytes(archive.read_bytes()[:-10])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *a, **k: pytest.fail("opened before its checksum"))
    assert f"{archive} is truncated or not the official file" in error_line("tiny_imagenet", tmp_path)


@pytest.mark.parametrize("name", ["train/n02/images/n02_1.JPEG", "val/images/val_1.JPEG", "val/val_annotations.txt"])
def test_tiny_imagenet_must_be_complete(tiny, name):
    (tiny / "tiny-imagenet-200" / name).unlink()
    line = error_line("tiny_imagenet", tiny)
    assert str(tiny / "tiny-imagenet-200") in line
    assert "unpack http" in line


def test_tiny_imagenet_absent(tiny, tmp_path):
    line = error_line("tiny_imagenet", tmp_path / "nothing")
    assert f"put the archive at {tmp_path}/nothing/tiny-imagenet-200.zip" in line


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: data[:-200] + data[-150:]])
def test_tiny_imagenet_zip_that_cannot_be_opened_is_named(tiny, tmp_path, monkeypatch, damage):
    archive = tmp_path / "tiny-imagenet-200.zip"
    archive.write_bytes(damage(archive.read_bytes()))
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(archive.read_bytes()))
    assert str(archive) in error_line("tiny_imagenet", tmp_path)


@pytest.mark.parametrize("notes", [b"\xff\xfe\x00", b"val_0.JPEG\n\n", b"val_0.JPEG\tn99\t1\n"])
def test_tiny_imagenet_annotations_that_are_damaged_are_told(tiny, notes):
    path = tiny / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    path.write_bytes(notes)
    line = error_line("tiny_imagenet", tiny)
    assert str(path.parent.parent) in line and "unpack http" in line


def test_real_tiny_imagenet(real_data):
    images = load("tiny_imagenet", real_data)
    assert images.train_images.shape == (100_000, 3, 64, 64)
    assert images.train_labels.bincount().tolist() == [500] * 200
    assert images.fingerprint == "06262521df280199"  # of the records made with it
    assert images.test_labels.bincount().tolist() == [50] * 200
    assert (len(images.classes), images.classes[0]) == (200, "n01443537")
    assert cache.folders(real_data)[0].name == ".lbt-cache"
