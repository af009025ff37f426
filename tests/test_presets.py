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


def test_the_bert_recipes_peak_rates_and_warm_ups_are_the_stated_ones_and_follow_the_batch():
    first, second, one = (configure(f"+preset=bert_lamb_{name}") for name in ("phase1", "phase2", "32k"))
    assert (first.batch, first.data.options["length"]) == (65536, 128) and first.peak_lr == pytest.approx(6e-3)
    assert (second.batch, second.data.options["length"]) == (32768, 512) and second.peak_lr == pytest.approx(4e-3)
    assert (first.warmup / first.epochs, second.warmup / second.epochs) == pytest.approx((0.2843, 0.128))
    assert first.epochs == 9 * second.epochs and {first.model["positions"], second.model["positions"]} == {512}
    assert one.peak_lr == pytest.approx(5e-3) and one.warmup == pytest.approx(one.epochs / 5)
    for k in range(1, 7):  # the paper's table: 5/(2^(k/2) * 10^3) and 1/(5 * 2^k) at 32,768/2^k
        smaller = configure("+preset=bert_lamb_32k", f"batch={32768 // 2**k}")
        assert smaller.peak_lr == pytest.approx(5 / (2 ** (k / 2) * 1e3))
        assert smaller.schedule["warmup"] == pytest.approx(smaller.epochs / (5 * 2**k))
    wanted = {"exclude_1d": True, "bias_correction": True, "grad_clip": 1.0, "weight_decay": 0.01}
    assert all(preset.optimizer.items() >= wanted.items() for preset in (first, second, one))


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
