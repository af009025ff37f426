import numpy as np
import pytest
import torch
from pictures import error_line, noise, save
from PIL import Image

from lbt.data import load


def test_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "train" / "a" / "1.jpg"
    save(path, noise(0, 64, 64, 3))
    save(tmp_path / "val" / "a" / "1.jpg", noise(1, 64, 64, 3))
    path.write_bytes(path.read_bytes()[:-200])
    assert f"{path} cannot be read as an image" in error_line("image_folder", tmp_path)


@pytest.mark.parametrize("second", ["test", "val"])
def test_image_folder_scales_and_crops_the_centre(tmp_path, second):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (10, 200, 30)  # the middle third is all that is left
    save(tmp_path / "train" / "b" / "wide.png", wide)
    save(tmp_path / "train" / "a" / "grey.jpg", np.full((50, 30), 77, np.uint8))
    save(tmp_path / second / "a" / "tall.PNG", wide.transpose(1, 0, 2))
    images = load("image_folder", tmp_path, resolution=8)
    assert images.classes == ("a", "b")
    assert images.train_labels.tolist() == [0, 1]
    green = torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    assert torch.equal(images.train_images[1][:, :, 1:-1], green[:, :, 1:-1])
    assert torch.equal(images.test_images[0][:, 1:-1], green[:, 1:-1])
    assert (images.train_images[0] == 77).all()
    assert load("image_folder", tmp_path, resolution=16).train_images.shape == (2, 3, 16, 16)
    assert not images.official


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16)])
def test_image_folder_turns_as_exif_says(tmp_path, shape):
    pixels = np.zeros(shape, np.uint8)
    pixels[:8] = 255  # the upper half is white
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    save(tmp_path / "train" / "a" / "1.jpg", pixels, exif=upside_down)
    save(tmp_path / "test" / "a" / "1.jpg", pixels)
    images = load("image_folder", tmp_path, resolution=16)
    assert images.train_images[0, :, 15].min() > 240
    assert images.test_images[0, :, 0].min() > 240


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_greys_of_16_bits_keep_the_upper_8(tmp_path, suffix):
    grey = (np.arange(16 * 16, dtype=np.uint16) * 257 - 1).clip(0).reshape(16, 16)
    save(tmp_path / "train" / "a" / f"1.{suffix}", grey)
    save(tmp_path / "test" / "a" / f"1.{suffix}", grey)
    images = load("image_folder", tmp_path, resolution=16)
    assert torch.equal(images.train_images[0], torch.from_numpy((grey >> 8).astype(np.uint8)).expand(3, 16, 16))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_an_image_without_a_range_is_named(tmp_path, kind):
    save(tmp_path / "train" / "a" / "1.tiff", np.ones((8, 8), kind))
    save(tmp_path / "test" / "a" / "1.tiff", np.ones((8, 8), kind))
    assert "1.tiff cannot be read as an image (its pixels are 32-bit numbers" in error_line("image_folder", tmp_path)


@pytest.mark.parametrize("name", ["image_folder", "image_stream"])
def test_imagenets_test_folder_without_labels_is_passed_over(tmp_path, name):
    save(tmp_path / "test" / "ILSVRC2012_test_1.JPEG", noise(0, 8, 8, 3))
    for split in ("train", "val"):
        save(tmp_path / split / "n01440764" / "1.JPEG", noise(1, 8, 8, 3))
    assert len(load(name, tmp_path, resolution=8).test_labels) == 1
    save(tmp_path / "test" / "n01440764" / "1.JPEG", noise(1, 8, 8, 3))
    save(tmp_path / "test" / "n01440764" / "2.JPEG", noise(1, 8, 8, 3))
    assert len(load(name, tmp_path, resolution=8).test_labels) == 2


def test_image_folder_mistakes(tmp_path):
    assert f"{tmp_path / 'train'}/<class>/ has no images" in error_line("image_folder", tmp_path)
    save(tmp_path / "train" / "a" / "1.png", noise(0, 8, 8, 3))
    assert f"{tmp_path / 'test'}/<class>/ has no images" in error_line("image_folder", tmp_path)
    save(tmp_path / "test" / "b" / "1.png", noise(0, 8, 8, 3))
    assert f"{tmp_path / 'test' / 'b'} is a class that" in error_line("image_folder", tmp_path)
