"""torchvision's data sets from tiny files in their original formats, read by torchvision."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
from pictures import error_line, left_behind, md5, noise, save
from scipy.io import savemat
from torchvision import datasets

from lbt.data import load
from lbt.data.download import no_downloads
from lbt.data.torchvision_parts import NO_TEST_PART, PARTS

TEN = tuple("0123456789")


def idx(array):
    """The format of MNIST's files."""
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist(folder, train="train", test="t10k"):
    """Writes eight training and four test images of 28x28, and returns those and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate(((train, 8), (test, 4))):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(noise(seed, count, 28, 28)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return noise(0, 8, 28, 28), noise(1, 4, 28, 28)


def svhn(root, monkeypatch):
    """Writes files that call the digit 0 a 10, height and width first, and has torchvision expect their checksums."""
    root.mkdir(parents=True, exist_ok=True)
    lists, labels = {}, {"train": [10, 1, 2, 9], "test": [3, 10]}
    for seed, (part, numbers) in enumerate(labels.items()):
        pixels = noise(seed, len(numbers), 3, 32, 32)
        path = root / f"{part}_32x32.mat"
        savemat(path, {"X": pixels.transpose(2, 3, 1, 0), "y": np.array(numbers, np.uint8)[:, None]})
        lists[part] = ["http://127.0.0.1:9/no", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_one_channel_becomes_three_equal_ones(tmp_path, name):
    train, test = mnist(tmp_path / name / "raw")
    images = load("torchvision", tmp_path, dataset=name)
    for found, wanted in ((images.train_images, train), (images.test_images, test)):
        assert torch.equal(found, torch.from_numpy(wanted)[:, None].expand(-1, 3, -1, -1))
    assert images.train_labels.tolist() == list(range(8)) and images.test_labels.tolist() == list(range(4))
    assert images.classes == tuple(getattr(datasets, name).classes)
    assert (
        not images.official
        and images.origin == f"{name} (unofficial: files not checked, torchvision's train and test parts)"
    )


def test_the_second_time_comes_from_the_cache_and_a_changed_file_is_read_anew(tmp_path, monkeypatch):
    mnist(tmp_path / "MNIST" / "raw")
    first = load("torchvision", tmp_path, dataset="MNIST")
    with monkeypatch.context() as patched:
        patched.setattr(datasets.MNIST, "__init__", None)
        assert load("torchvision", tmp_path, dataset="MNIST").fingerprint == first.fingerprint
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(idx(noise(7, 4, 28, 28)))
    assert load("torchvision", tmp_path, dataset="MNIST").fingerprint != first.fingerprint


def test_the_fingerprint_is_that_of_the_scaled_pixels(tmp_path):
    mnist(tmp_path / "MNIST" / "raw")
    plain, scaled = (load("torchvision", tmp_path, dataset="MNIST", **size) for size in ({}, {"resolution": 32}))
    assert scaled.train_images.shape == (8, 3, 32, 32) and scaled.fingerprint != plain.fingerprint
    assert scaled.origin.endswith("scaled to 32x32)")
    assert load("torchvision", tmp_path, dataset="MNIST", resolution=28).fingerprint == plain.fingerprint


def test_emnist_is_several_sets(tmp_path):
    for split in ("letters", "digits"):
        mnist(tmp_path / "EMNIST" / "raw", f"emnist-{split}-train", f"emnist-{split}-test")
    letters = load("torchvision", tmp_path, dataset="EMNIST", split="letters")
    assert len(letters.classes) == 27 and letters.origin.startswith("EMNIST letters (")
    assert load("torchvision", tmp_path, dataset="EMNIST", split="digits").classes == TEN
    assert 'did you mean "letters"?' in error_line("torchvision", tmp_path, dataset="EMNIST", split="leters")
    assert "data.split=None: EMNIST is several" in error_line("torchvision", tmp_path, dataset="EMNIST")
    assert "MNIST is one set" in error_line("torchvision", tmp_path, dataset="MNIST", split="letters")


def test_svhn(tmp_path, monkeypatch):
    svhn(tmp_path, monkeypatch)
    images = load("torchvision", tmp_path, dataset="SVHN")
    assert torch.equal(images.train_images, torch.from_numpy(noise(0, 4, 3, 32, 32)))
    assert images.train_labels.tolist() == [0, 1, 2, 9] and images.test_labels.tolist() == [3, 0]
    assert images.classes == TEN and images.official
    assert images.origin == "SVHN (torchvision's train and test parts, extra unused)"
    assert not load("torchvision", tmp_path, dataset="SVHN", resolution=16).official


def test_damaged_files_are_one_line(tmp_path, monkeypatch):
    svhn(tmp_path, monkeypatch)
    with open(tmp_path / "test_32x32.mat", "ab") as file:
        file.write(b"more")
    told = error_line("torchvision", tmp_path, dataset="SVHN")
    assert "test_32x32.mat: incomplete, damaged, or not the official files" in told and "delete them" in told
    mnist(tmp_path / "KMNIST" / "raw")
    (tmp_path / "KMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03short")
    assert str(tmp_path / "KMNIST") in error_line("torchvision", tmp_path, dataset="KMNIST")


def test_stl10(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for seed, (part, count) in enumerate((("train", 3), ("test", 2))):
        pixels = noise(seed, count, 3, 96, 96)
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # columns first
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, count + 1)))
        names = [f"{part}_X.bin", f"{part}_y.bin"]
        listed = [[name, md5((folder / name).read_bytes())] for name in names]
        monkeypatch.setattr(datasets.STL10, f"{part}_list", listed)
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    images = load("torchvision", tmp_path, dataset="STL10")
    assert torch.equal(images.test_images, torch.from_numpy(noise(1, 2, 3, 96, 96)))
    assert images.train_labels.tolist() == [0, 1, 2] and images.classes == ("airplane", "bird", "car")


def cifar100(root, monkeypatch):
    """Writes the official folder's pickles, which ask for nothing but arrays."""
    files, base = {}, root / "cifar-100-python"
    base.mkdir(parents=True)
    for seed, (part, labels) in enumerate((("train", [99, 0, 5]), ("test", [7, 99]))):
        content = {"data": noise(seed, len(labels), 3072), "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        files[part] = pickle.dumps(content, protocol=2)
    names = list(load_classes())
    files["meta"] = pickle.dumps({"fine_label_names": names, "coarse_label_names": []}, protocol=2)
    for name, content in files.items():
        (base / name).write_bytes(content)
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", datasets.CIFAR100.meta | {"md5": md5(files["meta"])})


def load_classes():
    from lbt.data.readers.cifar100 import CLASSES

    return CLASSES


def test_cifar100_by_its_own_reader_is_what_torchvision_reads(tmp_path, monkeypatch):
    cifar100(tmp_path, monkeypatch)
    own, theirs = load("cifar100", tmp_path), load("torchvision", tmp_path, dataset="CIFAR100")
    assert own.train_labels.tolist() == [99, 0, 5] and own.official and own.origin == "cifar100 (official)"
    assert torch.equal(own.test_images, torch.from_numpy(noise(1, 2, 3072)).view(2, 3, 32, 32))
    assert own.fingerprint == theirs.fingerprint and own.classes == theirs.classes and len(own.classes) == 100


def test_cifar100_runs_nothing_that_its_files_hold(tmp_path, monkeypatch):
    cifar100(tmp_path, monkeypatch)
    content = pickle.dumps({"data": noise(0, 1, 3072), "fine_labels": shutil.rmtree})
    (tmp_path / "cifar-100-python" / "train").write_bytes(content)
    assert "not the official file" in error_line("cifar100", tmp_path)
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5(content)]])
    assert "shutil.rmtree, which is no array" in error_line("cifar100", tmp_path)


def gtsrb(root, sizes):
    base = root / "gtsrb"
    for label in range(3):
        for index in range(2):
            pixels = noise(10 * label + index, *sizes[index], 3)
            save(base / "GTSRB" / "Training" / f"{label:05d}" / f"{index:05d}.ppm", pixels)
    save(base / "GTSRB" / "Final_Test" / "Images" / "00000.ppm", noise(50, *sizes[0], 3))
    (base / "GT-final_test.csv").write_text(
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;1;1;0;0;1;1;2\n"
    )


def test_images_of_several_sizes_need_a_resolution(tmp_path):
    gtsrb(tmp_path, ((12, 12), (16, 10)))
    told = error_line("torchvision", tmp_path, dataset="GTSRB")
    assert "data.dataset=GTSRB: has images of 10x16 and 12x12 pixels: set data.resolution" in told
    images = load("torchvision", tmp_path, dataset="GTSRB", resolution=8)
    assert images.train_images.shape == (6, 3, 8, 8)
    assert images.train_labels.tolist() == [0, 0, 1, 1, 2, 2] and images.test_labels.tolist() == [2]


def test_images_of_one_size_are_read_as_they_are_and_by_pillows_safe_formats_alone(tmp_path):
    gtsrb(tmp_path, ((12, 12), (12, 12)))
    images = load("torchvision", tmp_path, dataset="GTSRB")
    assert torch.equal(images.train_images[3], torch.from_numpy(noise(11, 12, 12, 3)).permute(2, 0, 1))
    path = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00001" / "00001.ppm"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\n"
    )  # Pillow would ask Ghostscript
    assert f"{path} cannot be read as an image" in error_line("torchvision", tmp_path, dataset="GTSRB")


def test_flowers_take_the_parts_they_say(tmp_path, monkeypatch):
    base = tmp_path / "flowers-102"
    for number in range(1, 7):
        save(base / "jpg" / f"image_{number:05d}.jpg", noise(number, 20, 16 + number, 3))
    savemat(base / "imagelabels.mat", {"labels": [[3, 1, 2, 1, 2, 3]]})
    savemat(base / "setid.mat", {"trnid": [[1, 2, 3]], "valid": [[4, 5]], "tstid": [[6, 2]]})
    known = {key: (name, mark) for key, (name, mark) in datasets.Flowers102._file_dict.items()}
    known |= {
        key: (name, md5((base / name).read_bytes()))
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", known)
    images = load("torchvision", tmp_path, dataset="Flowers102", resolution=16)
    assert images.train_labels.tolist() == [2, 0, 1] and images.test_labels.tolist() == [2, 0]
    assert "train and test parts, val unused" in images.origin and len(images.classes) == 102


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (None, "name one of torchvision's data sets"),
        ("SVNH", 'did you mean "SVHN"?'),
        ("EuroSAT", "torchvision gives it no test part"),
        ("CelebA", "has no class labels"),
        ("CocoDetection", "has no class labels"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(tmp_path, dataset, told):
    line = error_line("torchvision", tmp_path, dataset=dataset)
    assert line.startswith(f"data.dataset={'null' if dataset is None else dataset}: ") and told in line
    assert not any(tmp_path.iterdir())


def test_every_name_is_one_of_torchvisions():
    assert {*PARTS, *NO_TEST_PART} <= set(datasets.__all__)


def test_absent_files_are_downloaded_by_torchvision_whole_or_not_at_all(tmp_path, monkeypatch):
    root = tmp_path / "data"
    calls = []

    def download(self):
        calls.append(self.train)
        assert not (root / "MNIST").exists()  # nothing is seen before all of it is there
        mnist(tmp_path / "made")
        for path in (tmp_path / "made").iterdir():
            target = tmp_path / self.raw_folder / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with no_downloads():
        assert f"{root / 'MNIST'} is not here" in error_line("torchvision", root, dataset="MNIST")
    assert len(load("torchvision", root, dataset="MNIST").train_labels) == 8
    load("torchvision", root, dataset="MNIST")
    assert calls == [True, False] and left_behind(root) == []


def test_a_failed_download_leaves_nothing_and_says_where_the_files_belong(tmp_path, monkeypatch):
    def download(self):
        (tmp_path / self.raw_folder).mkdir(parents=True)
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    told = error_line("torchvision", tmp_path / "data", dataset="MNIST")
    assert told.startswith("cannot download MNIST (Error downloading") and str(tmp_path / "data" / "MNIST") in told
    assert list((tmp_path / "data").iterdir()) == []


def test_what_the_fingerprint_covers(tmp_path, monkeypatch):
    """The fingerprint covers pixels and labels of both parts, three channels each, in torchvision's order."""
    svhn(tmp_path, monkeypatch)
    images = load("torchvision", tmp_path, dataset="SVHN")
    digest = hashlib.sha256()
    for part in (images.train_images, images.train_labels, images.test_images, images.test_labels):
        digest.update(f"{str(part.dtype).removeprefix('torch.')}{list(part.shape)};".encode() + part.numpy().tobytes())
    assert images.fingerprint == digest.hexdigest()[:16]
