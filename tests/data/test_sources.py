import hashlib
import io
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from lbt.data import SOURCES, cache, fingerprint, folders, load, sources, split_validation
from lbt.data.imageset import held_out, image_set
from lbt.errors import UserError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing outside the test's folder is read or written."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LBT_DATA", raising=False)
    return tmp_path / "home"


def error_line(name, root, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_behind(root: Path) -> list[str]:
    """Half-written and temporary files and folders below `root`."""
    return [
        str(p) for p in root.rglob("*") if p.suffix in (".tmp", ".part") or (p.is_dir() and p.name.startswith("tmp"))
    ]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def save(path: Path, pixels: np.ndarray, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- the embedded ones ---


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, data = load("digits"), load_digits()
    assert (len(images.train_images), len(images.test_images)) == (1437, 360)
    assert torch.equal(images.train_images[:, 0], images.train_images[:, 2])
    share = images.test_labels.bincount() / torch.cat([images.train_labels, images.test_labels]).bincount()
    assert (share - 360 / 1797).abs().max() < 0.01
    ours = torch.cat([images.train_images, images.test_images])[:, 0].double() * 16 / 255
    order = lambda array: sorted(map(tuple, np.rint(array).reshape(len(array), -1).astype(int)))  # noqa: E731
    assert order(ours.numpy()) == order(data.images)
    assert images.train_images.max() == 255
    assert images.fingerprint == "8512cb9611bc575d"  # on every platform


def test_synthetic_is_seeded_sized_and_learnable():
    images = load("synthetic", size=1000, test_size=300, classes=5, resolution=20)
    assert images.train_images.shape == (1000, 3, 20, 20)
    assert images.test_images.shape == (300, 3, 20, 20)
    assert images.train_labels.bincount().tolist() == [200] * 5
    assert images.fingerprint == load("synthetic", size=1000, test_size=300, classes=5, resolution=20).fingerprint
    assert load("synthetic").fingerprint == "0428ecd3bfc5f3d1"  # on every platform
    assert not torch.equal(images.train_images[0], images.train_images[5])  # the noise is a sample's own
    means = torch.stack([images.train_images[images.train_labels == label].float().mean(0) for label in range(5)])
    nearest = torch.cdist(images.test_images.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == images.test_labels).float().mean() > 0.95


# --- load ---


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cifar100", {}, 'did you mean "cifar10"?'),
        ("synthetic", {"sise": 3}, 'did you mean "size"?'),
        ("synthetic", {"size": 0}, "size must be a whole number of at least 1, not 0"),
        ("image_folder", {"resolution": "32"}, "resolution must be a whole number"),
        ("digits", {"resolution": 8}, 'no option "resolution"'),
    ],
)
def test_mistakes_are_one_line(name, options, expected):
    assert expected in error_line(name, None, **options)


@pytest.mark.parametrize("quoted", [False, True])
def test_an_option_may_be_null(monkeypatch, quoted):
    """As written, or as a text where the reader's module postpones the evaluation of annotations."""

    def reader(root, limit: int | None = None):
        return limit

    if quoted:
        reader.__annotations__ = {"limit": "int | None"}
    monkeypatch.setitem(SOURCES, "reader", reader)
    assert [load("reader", limit=value) for value in (None, 3)] == [None, 3]
    for value in (0, "3", True):
        assert "limit must be of type int | None" in error_line("reader", None, limit=value)


def test_root_defaults_to_lbt_data_then_home(monkeypatch, tmp_path, home):
    assert str(home / ".cache" / "lbt") in error_line("image_folder", None)
    monkeypatch.setenv("LBT_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere") in error_line("image_folder", None)


def test_every_reader_is_registered():
    assert set(SOURCES) == {"digits", "synthetic", "cifar10", "tiny_imagenet", "image_folder", "image_stream"}


# --- official CIFAR-10, a small one built here ---


class Old:
    """Warns when it is unpickled, as NumPy does about the age of the official files."""

    def __reduce__(self):
        return warnings.warn, ("old pickle",)


def batch(labels, seed) -> bytes:
    return pickle.dumps({"data": noise(seed, len(labels), 3072), "labels": labels, "old": Old()})


@pytest.fixture
def official(monkeypatch, tmp_path):
    """Gives the bytes of an archive like the official one, whose checksums torchvision then expects."""
    files = {f"data_batch_{i}": batch([0, 3, i], i) for i in range(1, 6)}
    files["test_batch"] = batch([9, 1], 6)
    files["batches.meta"] = pickle.dumps({"label_names": list(NAMES)})
    monkeypatch.setattr(
        CIFAR10, "train_list", [(f"data_batch_{i}", md5(files[f"data_batch_{i}"])) for i in range(1, 6)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [("test_batch", md5(files["test_batch"]))])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/unreachable.tar.gz")
    return buffer.getvalue()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves bytes as the official archive; returns the requests made."""
    servers = []

    def start(content: bytes) -> list[str]:
        folder = tmp_path / "www"
        folder.mkdir()
        (folder / "cifar.tar.gz").write_bytes(content)
        requests = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, form, *args):
                requests.append(form % args)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def check_official(images):
    assert images.train_labels.tolist() == [0, 3, 1, 0, 3, 2, 0, 3, 3, 0, 3, 4, 0, 3, 5]
    assert images.test_labels.tolist() == [9, 1]
    assert torch.equal(images.test_images, torch.from_numpy(noise(6, 2, 3072)).view(2, 3, 32, 32))
    assert (images.classes, images.origin, images.official) == (NAMES, "cifar10 (official)", True)


def test_cifar10_is_downloaded_once_and_quietly(official, serve, tmp_path, capfd, recwarn):
    requests = serve(official)
    check_official(load("cifar10", tmp_path / "data"))
    check_official(load("cifar10", tmp_path / "data"))
    assert len(requests) == 1
    assert (tmp_path / "data" / "cifar-10-python.tar.gz").read_bytes() == official
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert left_behind(tmp_path / "data") == []


def test_cifar10_official_folder_equals_archive(official, tmp_path):
    for folder in ("archive", "unpacked"):
        (tmp_path / folder).mkdir()
    (tmp_path / "archive" / "cifar-10-python.tar.gz").write_bytes(official)
    with tarfile.open(fileobj=io.BytesIO(official)) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    first, second = load("cifar10", tmp_path / "archive"), load("cifar10", str(tmp_path / "unpacked"))
    check_official(second)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"x" + data[1:], lambda data: b""])
def test_cifar10_altered_download_leaves_nothing(official, serve, tmp_path, damage):
    serve(damage(official))
    line = error_line("cifar10", tmp_path / "data")
    assert CIFAR10.url in line
    assert f"put the archive at {tmp_path}/data/cifar-10-python.tar.gz" in line
    assert "truncated or altered" in line
    assert not (tmp_path / "data" / "cifar-10-python.tar.gz").exists()
    assert left_behind(tmp_path / "data") == []


def test_cifar10_unreachable_server(official, tmp_path):
    line = error_line("cifar10", tmp_path / "data")
    assert "cannot download http://127.0.0.1:9/unreachable.tar.gz" in line
    assert "or point data.root at an image folder {train,test}/<class>/*" in line


def test_cifar10_checksums_come_before_opening(official, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append("tar"))
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(official[:-1])
    assert f"{archive} is truncated" in error_line("cifar10", tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    assert f"{folder}/data_batch_1 is missing" in error_line("cifar10", tmp_path)

    class Evil:
        def __reduce__(self):
            return opened.append, ("pickle",)

    (folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    line = error_line("cifar10", tmp_path)
    assert f"{folder}/data_batch_1 is truncated or not the official file" in line
    assert f"delete the folder {folder}" in line
    assert opened == []


# --- image folders ---


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A CIFAR-10 image folder of 2 training images and 1 test image a class."""
    monkeypatch.setattr(sources, "CIFAR10_COUNTS", (20, 10))
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


def test_cifar10_image_folder_is_read_and_marked(folder):
    images = load("cifar10", folder)
    assert images.classes == NAMES
    assert (images.origin, images.official) == ("cifar10 (unofficial: image folder, PNG)", False)
    assert images.train_labels.tolist() == [label for label in range(10) for _ in range(2)]
    pixels = torch.from_numpy(noise(1, 32, 32, 3)).permute(2, 0, 1)  # the first one written: a truck of the test set
    assert torch.equal(images.test_images[9], pixels)
    assert load("cifar10", folder / "cifar10").fingerprint == images.fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_image_folder_must_be_complete(folder, split):
    (folder / "cifar10" / split / "dog" / "0000.png").unlink()
    line = error_line("cifar10", folder)
    assert str(folder / "cifar10") in line
    assert "complete or remove the folder, or train on it as data=image_folder" in line


def test_official_files_come_before_the_folder(folder, official):
    (folder / "cifar-10-python.tar.gz").write_bytes(official)
    check_official(load("cifar10", folder))


def test_truncated_and_wrong_images_are_named(folder):
    path = folder / "cifar10" / "test" / "frog" / "0000.png"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"GIF89a"):
        path.write_bytes(content)
        assert f"{path} cannot be read as an image" in error_line("cifar10", folder)
    save(path, noise(0, 31, 32, 3))
    assert "it is 32x31 pixels instead of 32x32" in error_line("cifar10", folder)
    assert not (folder / ".lbt-cache" / "cifar10.pt").exists()
    assert left_behind(folder) == []


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


# --- Tiny ImageNet ---


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A folder `tiny-imagenet-200` of 3 classes with 2 training and 1 val image each, and the zip of it."""
    monkeypatch.setattr(sources, "TINY_COUNTS", (6, 3))
    monkeypatch.setattr(sources, "TINY_CLASSES", 3)
    monkeypatch.setattr(sources, "TINY_URL", "http://127.0.0.1:9/tiny.zip")
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
    monkeypatch.setattr(sources, "TINY_MD5", md5(Path(archive).read_bytes()))
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


# --- the cache ---


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


def test_a_damaged_cache_is_made_again(folder, decoded, caplog):
    fresh = load("cifar10", folder)
    path = folder / ".lbt-cache" / "cifar10.pt"
    whole = path.read_bytes()
    pixels = whole.index(fresh.train_images[3].numpy().tobytes())
    damaged = [whole[: len(whole) // 2], whole[:-1], b"", b"nonsense"]
    damaged.append(whole[:pixels] + bytes([whole[pixels] ^ 1]) + whole[pixels + 1 :])  # one bit of one pixel
    for count, content in enumerate(damaged, start=2):
        path.unlink()
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            again = load("cifar10", folder)
        assert len(decoded) == 30 * count
        assert torch.equal(again.train_images, fresh.train_images)
        assert f"{path} is damaged" in caplog.text
        caplog.clear()
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


def test_a_failed_write_leaves_nothing_and_the_data_is_still_there(folder, monkeypatch, caplog):
    def full(stored, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert len(load("cifar10", folder).train_labels) == 20
    assert "No space left on device" in caplog.text
    assert not list((folder / ".lbt-cache").glob("*.pt"))
    assert left_behind(folder) == []


def test_what_a_killed_process_left_is_removed(folder):
    (folder / ".lbt-cache").mkdir()
    (folder / ".lbt-cache" / ".cifar10.pt.0123.tmp").write_bytes(b"half")
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


# --- fingerprint and split ---


def test_fingerprint_covers_every_pixel_label_and_shape():
    images = torch.zeros(4, 3, 5, 6, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    marks = {fingerprint(images, labels)}
    other = images.clone()
    other[3, 2, 4, 5] = 1
    marks |= {fingerprint(other, labels), fingerprint(images.view(4, 3, 6, 5), labels), fingerprint(labels, images)}
    marks |= {fingerprint(images, torch.tensor([0, 1, 1, 0])), fingerprint(images[:2], labels[:2])}
    assert len(marks) == 6
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert fingerprint(strided, labels) == fingerprint(images, labels)


def test_an_image_set_refuses_what_a_reader_gets_wrong():
    images, labels = torch.zeros(4, 3, 5, 6, dtype=torch.uint8), torch.tensor([0, 1, 0, 2])
    make = partial(image_set, "x", test=(images, labels.clamp(max=1)), classes=("a", "b"), origin="x", official=True)
    for train in ((images.float(), labels), (images[:, :1], labels), (images, labels.int()), (images, labels)):
        with pytest.raises(ValueError, match="must"):
            make(train)


def unequal():
    """A set of 60, 31 and 9 training images whose first pixel is their number."""
    images = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    labels = torch.tensor([0] * 60 + [1] * 31 + [2] * 9)[
        torch.randperm(100, generator=torch.Generator().manual_seed(0))
    ]
    return image_set("x", (images, labels), (images[:3], labels[:3]), ("a", "b", "c"), origin="x", official=True)


def test_split_is_stratified_disjoint_and_complete():
    images = unequal()
    split = split_validation(images, 0.2, seed=1)
    train, held = split.train_images[:, 0, 0, 0].tolist(), split.test_images[:, 0, 0, 0].tolist()
    assert sorted(train + held) == list(range(100))
    assert (train, held) == (sorted(train), sorted(held))
    assert split.test_labels.bincount().tolist() == [12, 6, 2]
    assert torch.equal(split.test_labels, images.train_labels[held])
    assert torch.equal(split.train_labels, images.train_labels[train])
    assert "validation split of 0.2 of the training set, seed 1" in split.origin


def test_split_depends_on_the_seed_alone():
    images = unequal()
    marks = [split_validation(images, 0.2, seed).fingerprint for seed in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2]
    assert images.fingerprint not in marks
    mask = held_out(torch.arange(20) % 2, 4, seed=0)
    assert mask.nonzero().flatten().tolist() == [4, 7, 11, 16]  # on every platform


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 0.001, 0.02, 0.999])
def test_split_that_loses_a_class_is_refused(fraction):
    with pytest.raises(UserError, match=f"validation fraction of {fraction} ") as caught:
        split_validation(unequal(), fraction, 0)
    assert "\n" not in str(caught.value)


# --- the real images ---


def test_real_cifar10(real_data):
    images = load("cifar10", real_data)
    assert images.train_labels.bincount().tolist() == [5000] * 10
    assert images.test_labels.bincount().tolist() == [1000] * 10
    assert images.classes == NAMES
    assert images.origin == "cifar10 (unofficial: image folder, JPEG)"
    # The mean and spread of the official pixels, which a lossy copy keeps.
    pixels = images.train_images.float().div_(255)
    assert (pixels.mean((0, 2, 3)) - torch.tensor([0.4914, 0.4822, 0.4465])).abs().max() < 0.002
    assert (pixels.std((0, 2, 3)) - torch.tensor([0.2470, 0.2435, 0.2616])).abs().max() < 0.01


def test_real_tiny_imagenet(real_data):
    images = load("tiny_imagenet", real_data)
    assert images.train_images.shape == (100_000, 3, 64, 64)
    assert images.train_labels.bincount().tolist() == [500] * 200
    assert images.test_labels.bincount().tolist() == [50] * 200
    assert (len(images.classes), images.classes[0]) == (200, "n01443537")
    assert cache.folders(real_data)[0].name == ".lbt-cache"
