from pathlib import Path

import pytest
import torch
from pictures import error_line, picture
from support import tiny

from lbt import records
from lbt.cli import main
from lbt.data import SOURCES, ImageSet, Known, cached, image_set, load, source
from lbt.models import MODELS


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cifar1O", {}, 'did you mean "cifar10"?'),
        ("synthetic", {"sise": 3}, 'data.sise: no such setting; did you mean "size"?'),
        ("synthetic", {"size": 0}, "data.size=0: expected a whole number of at least 1"),
        ("image_folder", {"resolution": "32"}, "data.resolution=32: expected a whole number"),
        ("digits", {"resolution": 8}, "data.resolution: no such setting"),
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
    for value in ("3", True):
        assert f"data.limit={value}: expected a whole number or null" in error_line("reader", None, limit=value)


def test_root_defaults_to_lbt_data_then_home(monkeypatch, tmp_path, home):
    assert str(home / ".cache" / "lbt") in error_line("image_folder", None)
    monkeypatch.setenv("LBT_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere") in error_line("image_folder", None)


def test_every_reader_is_registered():
    images = {
        "digits",
        "synthetic",
        "cifar10",
        "cifar100",
        "torchvision",
        "tiny_imagenet",
        "image_folder",
        "image_stream",
    }
    own = {name for name, reader in SOURCES.items() if reader.__module__.startswith("lbt.")}  # other tests have theirs
    assert own == images | {"text", "pydocs"}


# --- a data set of one's own: a reader and a YAML ---


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """Registers a reader, as its module in `lbt/data/readers` would, and gives a folder with its YAML."""

    def reader(root: Path, size: int = 40, shift: int | None = None, word: str = "a", quick: bool = False) -> ImageSet:
        labels = torch.arange(size) % 2
        images = (labels * 200 + (shift or 0)).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 8, 8)
        origin = f"stripes ({size} images)"

        def build() -> ImageSet:
            if not (root / "stripes.txt").read_text().startswith("here"):
                raise AttributeError("a mistake in the reader")
            return image_set("stripes", (images, labels), (images, labels), ("dark", "light"), origin="", official=True)

        return cached("stripes", root, "1", build, Known(origin, True), size=size, shift=shift)

    reader.__name__ = "stripes"
    monkeypatch.setitem(SOURCES, "stripes", source(reader))
    monkeypatch.setitem(MODELS, "tiny", tiny)
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "stripes.yaml").write_text("name: stripes\nsize: 24\nshift: null\n")
    (tmp_path / "stripes.txt").write_text("here")
    return tmp_path


def test_a_data_set_of_ones_own_takes_a_reader_and_a_yaml(stripes, capsys):
    words = "data=stripes batch=12 epochs=1 model.name=tiny precision=fp32 device=cpu"
    places = [f"data.root={stripes}", f"results_dir={stripes / 'results'}", "--config-dir", str(stripes / "configs")]
    assert main(["train", *words.split(), *places]) == 0, capsys.readouterr().err
    (path,) = records.paths(stripes / "results")
    made = records.read(path).run["provenance"]
    assert made["data"] == "stripes (24 images)" and made["train_images"] == 24


def test_what_is_said_of_the_data_is_heard_in_the_command(tmp_path, capfd):
    picture(tmp_path, "train/a/0.png", "train/a/1.png", "train/stray.png", "test/a/0.png")
    words = "data=image_folder data.resolution=8 batch=2 epochs=1 model=resnet18 precision=fp32 device=cpu"
    assert main(["train", *words.split(), f"data.root={tmp_path}", f"results_dir={tmp_path / 'results'}"]) == 0
    assert f"{tmp_path}/train/stray.png is in no class folder" in capfd.readouterr().err


def test_its_options_are_what_their_annotations_say(stripes):
    for shift, marks in ((None, 0), (5, 5), (0, 0)):
        assert load("stripes", stripes, shift=shift).train_images.min() == marks
    assert len(load("stripes", stripes, size=8.0).train_labels) == 8
    line = error_line("stripes", stripes, shift="x")
    assert line.startswith("data.shift=x: expected a whole number or null")
    assert error_line("stripes", stripes, quick=1).startswith("data.quick=1: expected true or false")


def test_what_goes_wrong_in_a_reader_is_one_line(stripes):
    (stripes / "stripes.txt").write_text("gone")
    line = error_line("stripes", stripes)
    assert line.startswith(f"{stripes} cannot be read as data=stripes (AttributeError: a mistake in the reader): ")
    (stripes / "stripes.txt").unlink()
    assert error_line("stripes", stripes).startswith(f"{stripes}/stripes.txt cannot be read as data=stripes (No such")


@pytest.mark.parametrize("root", ["~nobody-of-that-name/data", "a\0b"])
def test_roots_that_are_none(root):
    line = error_line("image_folder", root)
    assert "nobody-of-that-name" in line or "null" in line or "has no images" in line


def test_a_missing_home_is_told(monkeypatch):
    def missing():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", missing)
    assert error_line("image_folder", None).startswith("there is no home folder to look for data in: set data.root")
