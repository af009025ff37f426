import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from support import StopAfter, configure, figures

from lbt import build, records
from lbt.data import load
from lbt.data.streaming import Files, StreamingData, feed
from lbt.errors import UserError
from lbt.run import run

SETTINGS = ["model.name=tiny", "batch=16", "epochs=3", "precision=fp32", "device=cpu", "data.augment=crop_flip_rotate"]


@pytest.fixture
def folder(tmp_path):
    """44 + 12 PNG images of 8x8 in two classes."""
    random = np.random.RandomState(0)
    for split, count in (("train", 22), ("val", 6)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.randint(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number:02}.png")
    return tmp_path / "images"


def train(folder, results, name, *overrides, interrupt=None):
    words = [
        f"data={name}",
        f"data.root={folder}",
        "data.resolution=8",
        f"results_dir={results}",
        *SETTINGS,
        *overrides,
    ]
    return run(configure(*words), interrupt=interrupt)


def test_streaming_trains_as_the_same_images_in_memory_do(folder, tmp_path):
    held = train(folder, tmp_path / "held", "image_folder", "optimizer=tvlars")
    streamed = train(folder, tmp_path / "streamed", "image_stream", "optimizer=tvlars")
    assert figures(streamed.path) == figures(held.path)
    made_by = records.read(streamed.path).run["provenance"]
    assert made_by["train_images"] == 44 and made_by["data"].startswith("image_stream (images")
    assert streamed.id != held.id


@pytest.mark.parametrize("updates", [1, 3, 5])
def test_resumed_equals_uninterrupted(folder, tmp_path, updates):
    whole = train(folder, tmp_path / "whole", "image_stream")
    train(folder, tmp_path / "part", "image_stream", interrupt=StopAfter(updates))
    assert figures(train(folder, tmp_path / "part", "image_stream").path) == figures(whole.path)


def test_other_sizes_are_scaled_and_cut_to_the_centre(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        wide = np.zeros((20, 60, 3), dtype=np.uint8)
        wide[:, 20:40, 0] = 255  # the centre is red
        Image.fromarray(wide).save(tmp_path / split / "one" / "wide.png")
    images = load("image_stream", tmp_path, resolution=10)
    (decoded,) = images.train_images.split(5)
    assert decoded.shape == (1, 3, 10, 10) and decoded.dtype == torch.uint8
    assert (decoded[0, 0, :, 1:9] == 255).all() and (decoded[0, 1:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(kind, suffix) for kind in ("colour", "grey") for suffix in ("png", "bmp", "tiff", "ppm", "webp", "gif")]
    + [("16 bits", suffix) for suffix in ("png", "tiff", "pgm")]
    + [("animated", "gif")],
)
def test_files_of_any_kind_are_read_as_in_memory(tmp_path, kind, suffix):
    random = np.random.RandomState(0)
    shape, kept_as = ((8, 8, 3) if kind == "colour" else (8, 8)), (np.uint16 if kind == "16 bits" else np.uint8)
    picture = Image.fromarray(random.randint(0, np.iinfo(kept_as).max, shape, dtype=kept_as))
    options = {"lossless": True} if suffix == "webp" else {}
    if kind == "animated":
        options = {"save_all": True, "append_images": [picture.rotate(90)]}
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        picture.save(tmp_path / split / "one" / f"1.{suffix}", **options)
    (streamed,) = load("image_stream", tmp_path, resolution=8).train_images.split(1)
    assert torch.equal(streamed, load("image_folder", tmp_path, resolution=8).train_images)


def test_every_image_comes_once_an_epoch_with_its_label(folder):
    images = load("image_stream", folder, resolution=8)
    options = {"batch": 16, "last_batch": "keep", "augment": "none", "seed": 0}
    data = feed(images.train_images, images.train_labels, **options)
    assert type(data) is StreamingData
    held = load("image_folder", folder, resolution=8)
    label = {image.numpy().tobytes(): int(one) for image, one in zip(held.train_images, held.train_labels, strict=True)}
    seen = [(image.numpy().tobytes(), int(one)) for batch in data.batches() for image, one in zip(*batch, strict=True)]
    assert len(seen) == 44 and dict(seen) == label


def test_of_several_devices_each_decodes_its_part_alone(folder, monkeypatch):
    images = load("image_stream", folder, resolution=8)
    decoded, read = [], Files.read
    monkeypatch.setattr(Files, "read", lambda files, batches: decoded.append(batches) or read(files, batches))
    options = {"batch": 16, "last_batch": "keep", "augment": "crop_flip_rotate", "seed": 0}

    def delivered(rows):
        return [images for images, _ in feed(images.train_images, images.train_labels, rows=rows, **options).batches()]

    whole, *parts = (
        delivered(rows) for rows in (None, lambda count: torch.arange(5), lambda count: torch.arange(5, count))
    )
    assert all(torch.equal(torch.cat(both), one) for *both, one in zip(*parts, whole, strict=True))
    assert [first + second for first, second in zip(*decoded[1:], strict=True)] == decoded[0]


def test_an_unreadable_file_fails_the_run_and_is_named(folder, tmp_path, capsys):
    (folder / "train" / "cat" / "07.png").write_bytes(b"no image")
    outcome = train(folder, tmp_path / "results", "image_stream")
    assert outcome.status == "failed" and "07.png cannot be read as an image" in outcome.summary["error"]
    capsys.readouterr()


def test_a_changed_file_is_other_data(folder):
    before = load("image_stream", folder, resolution=8).fingerprint
    assert before == load("image_stream", folder, resolution=8).fingerprint != load("image_stream", folder).fingerprint
    Image.new("RGB", (16, 16)).save(folder / "train" / "cat" / "00.png")
    assert load("image_stream", folder, resolution=8).fingerprint != before


def test_mistakes_are_told(folder):
    with pytest.raises(UserError, match=r"nowhere/train/<class>/ has no images"):
        load("image_stream", folder / "nowhere")
    with pytest.raises(UserError, match=r"data\.val=0\.5: image_stream is not held in memory"):
        build.images(configure("data=image_stream", f"data.root={folder}", "data.val=0.5"))
    with pytest.raises(UserError, match=r"data\.subset=10: image_stream is not held in memory"):
        build.images(configure("data=image_stream", f"data.root={folder}", "data.subset=10"))
    (folder / "val" / "cow").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "val" / "cow" / "00.png")
    with pytest.raises(UserError, match=r"val/cow is a class that .*train lacks"):
        load("image_stream", folder)


def test_a_signal_to_all_processes_of_a_job_does_not_end_the_decoding(folder):
    batches = load("image_stream", folder, resolution=8).train_images.split(1)
    count = len(next(batches))
    workers = multiprocessing.active_children()
    count += sum(len(next(batches)) for _ in workers)  # each of them has begun
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert workers and count + sum(map(len, batches)) == 44
