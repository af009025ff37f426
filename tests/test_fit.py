import re

import pytest
from support import TINY, configure, tiny_config

from lbt import build, records, runtime
from lbt.cli import main
from lbt.data import AUGMENTATIONS
from lbt.errors import UserError
from lbt.fit import check_all, fits
from lbt.run import run

RESNET = ["data=synthetic", "data.size=44", "data.test_size=21", "data.resolution=8", "model=resnet18", "batch=22"]
RESNET += ["epochs=2", "device=cpu", "precision=fp32", "data.augment=none"]
TWINS = ["task=barlow_twins", "task.projector=[8,8]", "data.augment=barlow_twins"]


def fit(*overrides):
    config = runtime.settle(configure(*RESNET, *overrides))
    fits(config, build.images(config))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.size=45"], "batch=22, data.last_batch=keep: the last batch of 45 images: one image"),
        (["batch=43"], "batch=43, data.last_batch=keep: the last batch of 44 images: one image"),
        (["batch=1"], "batch=1: one image"),
        (["micro_batch=1"], "micro_batch=1: one image"),
        (["micro_batch=7"], "micro_batch=7: the last micro-batch of 22 images: one image"),
        (
            ["data.size=46", "micro_batch=15", "batch=45"],
            "data.last_batch=keep: the last batch of 46 images: one",
        ),
        (["schedule.batch={1:43}"], "batch=43, data.last_batch=keep"),
        (["schedule.batch={1:99}"], "batch=99: larger than the training set"),
        (["model.norm=ghost", "model.ghost_size=3"], "batch=22: 22 images, which this model cannot take"),
        (["model.norm=ghost", "model.ghost_size=1"], "model=resnet18: does not take images of 8x8 pixels"),
        ([*TWINS, "data.resolution=64", "data.size=45"], "batch=22, data.last_batch=keep: the last batch of 45 images"),
        ([*TWINS, "task.projector_norm=layer", "model.norm=layer", "batch=1"], "barlow_twins compares the images of a"),
        ([*TWINS, "task.probe.batch=43", "task.probe.mode=train"], "a batch of one image of the 44 training images"),
        ([*TWINS, "task.probe.batch=20", "task.probe.mode=train"], "a batch of one image of the 21 test images"),
        (["data.augment=crop_flip", "data.resolution=4"], "data.augment=crop_flip: does not take images of 4x4 pixels"),
        (["data.augment=barlow_twins"], "task=classification needs 1 view(s) of an image"),
        (["task=barlow_twins", "data.augment=none"], "task=barlow_twins needs 2 view(s) of an image"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_setting(overrides, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        fit(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.size=45", "data.last_batch=drop"],
        ["data.size=45", "model.norm=group"],
        ["data.size=45", "data.resolution=64"],  # maps of 2x2: there is something to normalise over
        ["micro_batch=11"],
        ["batch=44", "micro_batch=43", "model.norm=layer"],
        ["model.norm=ghost", "model.ghost_size=11"],
        ["data.augment=crop_flip", "data.resolution=5"],
        ["data.resolution=1"],
        [*TWINS, "task.probe.batch=43"],  # which leaves batch norm as it is
        [*TWINS, "task.probe.batch=11", "task.probe.mode=train"],
    ],
)
def test_what_fits_is_not_refused(overrides):
    fit(*overrides)


def test_what_is_refused_is_what_a_training_cannot_do(tmp_path, monkeypatch):
    """Without the check the run fails in the layer that is asked by it."""
    monkeypatch.setattr("lbt.fit.fits", lambda config, images: None)
    outcome = run(configure(*RESNET, "data.size=45", f"results_dir={tmp_path}"))
    assert outcome.status == "failed" and "more than 1 value per channel" in outcome.summary["error"]


@pytest.mark.parametrize("axis", ["data.size=44,45", "batch=22,43", "micro_batch=11,7"])
def test_nothing_of_a_sweep_is_trained_where_one_run_does_not_fit(axis, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *RESNET, axis]) == 2
    err = capfd.readouterr().err
    assert "one image, which this model cannot take in training" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_check_leaves_no_trace_in_the_numbers(tmp_path):
    checked, plain = (tiny_config(tmp_path / name) for name in ("checked", "plain"))
    check_all([checked])
    lines = [records.read(run(config).path).epochs for config in (checked, plain)]
    for line in [line for run_ in lines for line in run_]:
        for key in [key for key in line if key.startswith("wall_")]:
            del line[key]
    assert lines[0] == lines[1]


def test_data_of_a_sweep_are_read_once_each_and_those_of_finished_runs_never(tmp_path, monkeypatch):
    read, images = [], build._images
    images.cache_clear()
    monkeypatch.setattr("lbt.build.load", lambda *a, load=build.load, **k: read.append(k["size"]) or load(*a, **k))
    monkeypatch.chdir(tmp_path)
    command = ["train", "-m", *TINY, "batch=8,16", "data.size=44,55,66,77", "epochs=1"]
    configs = [tiny_config(tmp_path, f"batch={batch}", f"data.size={n}") for batch in (8, 16) for n in (44, 55, 66, 77)]
    check_all(configs)
    assert sorted(read) == [44, 55, 66, 77]
    assert main(command) == 0
    assert len(records.paths("results")) == 8


def test_a_device_or_data_of_another_machine_are_left_to_it(tmp_path):
    away = [
        tiny_config(tmp_path),
        configure("data=image_folder", f"data.root={tmp_path}/away"),
    ]
    check_all(away, elsewhere=True)
    with pytest.raises(UserError, match="away"):
        check_all(away)
    with pytest.raises(UserError, match="batch=99"):
        check_all([tiny_config(tmp_path, "batch=99")], elsewhere=True)


@pytest.mark.parametrize("pixels", [1, 2, 4, 8])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_takes_small_images_or_says_that_it_does_not(name, pixels):
    said = ""
    try:
        fit(*(TWINS if name == "barlow_twins" else []), f"data.augment={name}", f"data.resolution={pixels}")
    except UserError as error:
        said = str(error)
    assert not said or f"data.augment={name}: does not take images of {pixels}x{pixels} pixels" in said
