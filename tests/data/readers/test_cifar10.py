import io
import os
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from pictures import NAMES, error_line, left_behind, md5, noise, save
from torchvision.datasets import CIFAR10

from lbt.data import load


def batch(labels, seed) -> bytes:
    """A pickle as the NumPy of the official files' time wrote it: old names, whole numbers in place of truths."""
    content = pickle.dumps({"data": noise(seed, len(labels), 3072), "labels": labels}, protocol=2)
    assert content.count(b"\x89\x88\x87") == 1
    return content.replace(b"numpy._core", b"numpy.core").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


@pytest.fixture
def official(monkeypatch, tmp_path):
    """Gives the bytes of an archive like the official one, whose checksums torchvision then expects."""
    files = {f"data_batch_{i}": batch([0, 3, i], i) for i in range(1, 6)}
    files["test_batch"] = batch([9, 1], 6)
    monkeypatch.setattr(
        CIFAR10, "train_list", [(f"data_batch_{i}", md5(files[f"data_batch_{i}"])) for i in range(1, 6)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [("test_batch", md5(files["test_batch"]))])
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


def damaged_archive(monkeypatch, content: bytes, root: Path) -> Path:
    """Writes an archive that has the official checksum, as far as anybody can tell."""
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(content))
    return root


def packed(members: dict[str, bytes | None]) -> bytes:
    """Returns an archive of files; None stands for a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-60], lambda data: data[:9], lambda data: b"", lambda data: b"x"]
)
def test_an_archive_that_cannot_be_opened_is_named(official, tmp_path, monkeypatch, damage):
    root = damaged_archive(monkeypatch, damage(official), tmp_path / "data")
    assert f"{root}/cifar-10-python.tar.gz cannot be read (" in error_line("cifar10", root)
    assert left_behind(root) == []


@pytest.mark.parametrize("first", [None, b"", b"\x80\x02garbage", pickle.dumps([1]), pickle.dumps({"data": 1})])
def test_batches_that_hold_something_else_are_named(official, tmp_path, monkeypatch, first):
    monkeypatch.setattr(CIFAR10, "train_list", [("data_batch_1", md5(first or b""))])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    root = damaged_archive(monkeypatch, packed({"data_batch_1": first}), tmp_path / "data")
    assert f"{root}/cifar-10-python.tar.gz" in error_line("cifar10", root)


def test_a_batch_with_the_right_checksum_runs_nothing(official, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    content = pickle.dumps({"data": Evil(), "labels": [1]})
    monkeypatch.setattr(CIFAR10, "train_list", [("data_batch_1", md5(content))])
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(batch([9, 1], 6))
    line = error_line("cifar10", tmp_path)
    assert (
        f"{tmp_path}/cifar-10-batches-py/data_batch_1 cannot be read (" in line and "mkdir, which is no array" in line
    )
    assert not (tmp_path / "evil").exists()


def test_a_pipe_in_the_place_of_a_file_is_told(official, tmp_path):
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    assert "cifar-10-python.tar.gz is missing" in error_line("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    os.mkfifo(tmp_path / "cifar-10-batches-py" / "data_batch_1")
    assert "data_batch_1 is missing" in error_line("cifar10", tmp_path)


def test_real_cifar10(real_data):
    images = load("cifar10", real_data)
    assert images.train_labels.bincount().tolist() == [5000] * 10
    assert images.test_labels.bincount().tolist() == [1000] * 10
    assert images.classes == NAMES
    assert images.origin == "cifar10 (unofficial: image folder, JPEG)"
    assert images.fingerprint == "a4401843fc23ed79"  # of the records made with this copy
    # The mean and spread of the official pixels, which a lossy copy keeps.
    pixels = images.train_images.float().div_(255)
    assert (pixels.mean((0, 2, 3)) - torch.tensor([0.4914, 0.4822, 0.4465])).abs().max() < 0.002
    assert (pixels.std((0, 2, 3)) - torch.tensor([0.2470, 0.2435, 0.2616])).abs().max() < 0.01
