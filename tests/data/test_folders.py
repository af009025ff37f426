import struct
import zlib

import numpy as np
import PIL.EpsImagePlugin
import pytest
import torch
from pictures import BOTH, error_line, exif, first_read, noise, picture, save
from PIL import Image

from lbt.data import load
from lbt.errors import UserError

TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))  # the orientation: a quarter to the right
BEHIND = struct.pack("<I", 38)  # where the tail of two tags begins
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest's filters replace those of the program
HALVES = np.repeat(np.repeat(np.array([[255, 0], [90, 30]], np.uint8), 8, 0), 8, 1)


def corners(images):
    """Returns the four quarters' grey, row by row."""
    return images[0, 0, [4, 4, 12, 12], [4, 12, 4, 12]].tolist()


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("block", "turned"),
    [
        (exif(TURNED), True),
        (exif(TURNED, (0x010F, 5, 1, BEHIND), tail=struct.pack("<II", 1, 2)), True),  # the maker as a fraction
        (exif(TURNED, (0x0100, 12, 1, BEHIND), tail=struct.pack("<d", 1.5)), True),  # the width as a double
        (exif(TURNED, (0x8825, 4, 1, struct.pack("<I", 8))), True),  # a table within itself
        (exif((0x0112, 2, 2, b"6\0\0\0")), False),  # a text
        (exif(TURNED)[:20], False),
        (b"Exif\0\0nonsense", False),
        (b"Exif\0\0II*\0\xf0\xff\xff\xff", False),
    ],
    ids=["whole", "maker", "width", "loop", "text", "cut off", "nonsense", "beyond the end"],
)
def test_exif_turns_an_image_as_far_as_it_can_be_read(tmp_path, name, suffix, block, turned):
    options = {"exif": block, "quality": 95} if suffix == "jpg" else {"exif": block, "lossless": True}
    for split in ("train", "test"):
        save(tmp_path / split / "a" / f"0.{suffix}", np.stack([HALVES] * 3, -1), **options)
    expected = [90, 255, 30, 0] if turned else [255, 0, 90, 30]
    assert np.abs(np.subtract(corners(first_read(name, tmp_path, 16)), expected)).max() <= 2


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_postscript_is_not_run_whatever_it_is_called(tmp_path, name, suffix, monkeypatch):
    asked = []
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *args, **_: asked.append(args))
    picture(tmp_path, "test/a/0.png")
    path = tmp_path / "train" / "a" / f"0.{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"cannot be read as an image \(it is none of JPEG, PNG"):
        first_read(name, tmp_path)
    assert not asked


def bomb(width: int, height: int) -> bytes:
    """Returns a PNG of one bit a pixel, all of it black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packed.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", BOTH)
def test_a_small_file_that_unfolds_to_gigabytes_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # what some libraries set
    picture(tmp_path, "test/a/0.png", "train/a/1.png")
    content = bomb(30_000, 30_000)
    assert len(content) < 200_000
    (tmp_path / "train" / "a" / "0.png").write_bytes(content)
    with pytest.raises(UserError, match=r"train/a/0.png cannot be read as an image \(it claims 30000x30000 pixels"):
        first_read(name, tmp_path)


def test_only_the_first_of_many_pictures_is_decoded(tmp_path):
    many = [Image.new("P", (64, 64), shade) for shade in range(50)]
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        many[7].save(tmp_path / split / "a" / "0.gif", save_all=True, append_images=many)
    assert torch.equal(first_read("image_stream", tmp_path, 64), first_read("image_folder", tmp_path, 64))


@pytest.mark.parametrize("name", BOTH)
def test_a_very_narrow_image_is_cut_before_it_is_scaled(tmp_path, name):
    for split in ("train", "test"):
        save(tmp_path / split / "a" / "0.png", np.full((1, 60_000, 3), 9, np.uint8))
    images = first_read(name, tmp_path, 224)  # scaled as a whole, it would take 9 GB
    assert images.shape == (1, 3, 224, 224) and (images == 9).all()


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tiff", "webp", "ppm"])
def test_damage_of_any_kind_is_one_line_about_the_file_or_none(tmp_path, name, suffix):
    picture(tmp_path, "test/a/0.png")
    path = tmp_path / "train" / "a" / f"0.{suffix}"
    save(path, noise(0, 24, 24, 3))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 200), 6):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(1, len(whole) + 1)])
        told = None
        try:
            decoded = load(name, tmp_path, resolution=8).train_images
            told = decoded.__getitems__([0]) if name == "image_stream" else None  # in this process, not in another
        except UserError as error:
            told = str(error)
        assert not isinstance(told, str) or (str(path) in told and "\n" not in told)


@pytest.mark.parametrize("name", BOTH)
def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path, name):
    picture(tmp_path, "test/a/0.png")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with open(tmp_path / "train" / "a" / "0.png", "wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(UserError, match=r"train/a/0.png cannot be read as an image \(it has more than 2 GiB\)"):
        first_read(name, tmp_path)


def test_a_set_that_memory_cannot_hold_is_one_line(tmp_path):
    picture(tmp_path, "test/a/0.png", "train/a/0.png")
    line = error_line("image_folder", tmp_path, resolution=30_000_000)
    assert "does not fit into this machine's memory" in line and "data=image_stream" in line


def test_an_image_that_vanishes_is_named(tmp_path):
    picture(tmp_path, "test/a/0.png", "train/a/0.png")
    images = load("image_stream", tmp_path, resolution=8).train_images
    (tmp_path / "train" / "a" / "0.png").unlink()
    with pytest.raises(UserError, match=r"train/a/0.png cannot be read as an image \(No such file or directory\)"):
        next(images.split(1))
