from pathlib import Path

import pytest
from pictures import NAMES, noise, save

from lbt.data.readers import cifar10


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing outside the test's folder is read or written."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LBT_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A CIFAR-10 image folder of 2 training images and 1 test image a class."""
    monkeypatch.setattr(cifar10, "COUNTS", (20, 10))
    root = tmp_path / "folder"
    for label, name in enumerate(reversed(NAMES)):
        for split, count in (("train", 2), ("test", 1)):
            for index in range(count):
                pixels = noise(100 * label + 10 * index + count, 32, 32, 3)
                save(root / "cifar10" / split / name / f"{index:04d}.png", pixels)
    (root / "cifar10" / "train" / "cat" / "Thumbs.db").write_bytes(b"no image")
    (root / "cifar10" / "train" / ".DS_Store").write_bytes(b"no image")
    (root / "cifar10" / "train" / "cat" / "._0000.png").write_bytes(b"no image")
    return root
