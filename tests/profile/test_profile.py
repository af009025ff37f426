import itertools
import time

import pytest
import torch
from support import TINY, tiny_config

from lbt import profile
from lbt.cli import main
from lbt.data import AUGMENTATIONS
from lbt.profile import REGIONS, Clock, cost
from lbt.profile import profile as measure
from lbt.tasks.probe import LinearProbe


def test_time_belongs_to_the_innermost_region_and_adds_up(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(ticks)))  # a second a look at the clock
    clock = Clock(torch.device("cpu"))
    with clock.running(), clock.region("backward"):
        with clock.region("forward"), clock.region("augmentation"):
            pass
        with clock.region("forward"):
            pass
    wanted = {"rest of the loop": 2.0, "backward": 3.0, "forward": 3.0, "augmentation": 1.0}
    assert clock.seconds() == dict.fromkeys(REGIONS, 0.0) | wanted
    assert sum(wanted.values()) == next(ticks) - 1


def test_the_shares_of_a_run_are_all_of_its_wall_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure(tiny_config(tmp_path, "optimizer=tvlars"), images=40, epochs=2)
    assert found.images == 40 and found.epochs == 2
    assert sum(found.shares().values()) == pytest.approx(100)
    assert sum(found.seconds.values()) >= found.wall > 0.5 * sum(found.seconds.values())
    assert all(found.seconds[name] > 0 for name in REGIONS), found.seconds
    assert list(tmp_path.iterdir()) == []


def test_a_slow_part_is_named_as_the_limit(tmp_path, monkeypatch):
    augment = AUGMENTATIONS["crop_flip_rotate"]

    def slow(images, generator):
        for _ in range(200):
            result = augment(images, generator)
        return result

    monkeypatch.setitem(AUGMENTATIONS, "crop_flip_rotate", slow)
    assert measure(tiny_config(tmp_path)).limit().startswith("augmentation: ")


def test_a_probe_after_the_last_epoch_is_not_part_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr(LinearProbe, "scores", lambda *_: time.sleep(1) or {"loss": 0.0})
    twins = ["task=barlow_twins", "data.augment=barlow_twins", "task.projector=[8,8]"]
    assert measure(tiny_config(tmp_path, *twins)).seconds["evaluation"] < 1
    assert measure(tiny_config(tmp_path, *twins, "epochs=2")).seconds["evaluation"] > 1


@pytest.mark.parametrize("more", [["layer_norms=1"], ["layer_norms=2"], ["schedule.batch={1:4096}", "data.size=5000"]])
def test_what_goes_with_a_run_can_be_profiled(tmp_path, more):
    found = measure(tiny_config(tmp_path, *more))
    assert sum(found.shares().values()) == pytest.approx(100)


def test_flops_and_bytes_of_a_linear_layer_are_the_formulas():
    batch, inputs, outputs = 8, 32, 16
    layer = torch.nn.Linear(inputs, outputs, bias=False)
    images = torch.randn(batch, inputs, requires_grad=True)
    assert cost.count(lambda: layer(images).sum().backward()).flops == 3 * 2 * batch * inputs * outputs
    with torch.no_grad():
        spent = cost.count(lambda: layer(images))
    assert spent.flops == 2 * batch * inputs * outputs
    assert spent.bytes == 4 * (batch * inputs + inputs * outputs + batch * outputs)


def test_flops_of_a_convolution_are_the_formulas():
    layer = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    images = torch.randn(2, 3, 10, 10)
    once = 2 * 2 * 10 * 10 * 3 * 3 * 3 * 8
    assert cost.count(lambda: layer(images)).flops == once
    assert cost.count(lambda: layer(images).sum().backward()).flops == 2 * once  # no gradient of the images


def test_bytes_in_place_broadcast_and_of_views():
    vector = torch.zeros(100)
    assert cost.count(lambda: vector.add_(1)).bytes == 800  # read and written
    assert cost.count(lambda: vector.view(10, 10).t()).bytes == 0
    assert cost.count(lambda: vector[:1].expand(50).sum()).bytes < 420  # not 50 elements of its own


def test_the_floor_takes_each_operation_by_what_bounds_it():
    spent = cost.Cost(((100, 10), (10, 10), (0, 30)))
    assert spent.floor((10.0, 5.0)) == (10.0, 2.0 + 6.0)


def test_the_command_prints_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", *TINY, "--images", "32"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in REGIONS)
    assert "100.0 %" in said and "limited by" in said and "TFLOP/s" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "said"), [(["optimzer=lars"], "optimizer"), (["batch=0"], "batch=0: expected")])
def test_mistakes_are_one_line(words, said, capsys):
    assert main(["profile", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
