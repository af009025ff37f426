import numpy as np
import pytest
from PIL import Image
from support import configure

from lbt import build, records
from lbt.cli import main
from lbt.config import CONFIG_DIR

PRESETS = sorted(path.stem for path in (CONFIG_DIR / "preset").glob("*.yaml"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_composes_and_names_its_source_and_whether_it_is_verified(name):
    build.validate(configure(f"+preset={name}"))
    text = (CONFIG_DIR / "preset" / f"{name}.yaml").read_text()
    assert "# Source: " in text and "# Verified: " in text


def test_the_presets_peak_rates_are_the_stated_ones():
    mlperf, goyal = configure("+preset=mlperf_lars_32k"), configure("+preset=goyal_linear")
    assert (mlperf.batch, mlperf.peak_lr) == (32768, 29)
    assert mlperf.peak_lr * mlperf.schedule["end"] == pytest.approx(1e-4, rel=1e-4)
    assert (goyal.batch, goyal.peak_lr, goyal.schedule["milestones"]) == (8192, pytest.approx(3.2), [30, 60, 80])
    for name, power in (("nesterov", 2), ("lars", 1)):
        schedule = configure(f"+preset=reality_check_{name}").schedule
        assert (schedule["name"], schedule["warmup_power"]) == ("warmup_polynomial", power)


@pytest.fixture
def imagenet(tmp_path):
    """A folder as ImageNet is laid out: photographs of many sizes below train/<wnid> and val/<wnid>."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for wnid in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (40 + 10 * index, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}_{index}.JPEG")
    return tmp_path


def test_resnet50_trains_on_an_imagenet_folder(imagenet, monkeypatch, capsys):
    monkeypatch.chdir(imagenet)
    words = ["model=resnet50", "data=imagenet", "data.root=imagenet", "device=cpu", "precision=fp32"]
    assert configure(*words).data.options == {"resolution": 224}
    assert main(["train", *words, "data.resolution=32", "batch=6", "epochs=1", "optimizer=nesterov"]) == 0
    (record,) = [records.read(path) for path in records.paths("results")]
    assert record.status == "done" and "test_accuracy" in record.end["summary"]
    assert (record.run["provenance"]["train_images"], record.run["provenance"]["test_images"]) == (6, 4)
