"""Every file of configs/experiment: its grid is what the paper lists, and each of its runs can be built."""

import itertools
import re
from functools import cache

import pytest
from support import configure

from lbt import build, sweep
from lbt.config import CONFIG_DIR
from lbt.errors import UserError
from lbt.records import index
from lbt.sweep.app import choices

BATCHES = {16384, 8192, 4096, 2048, 1024, 512}
RATES = {
    512: (1, 2, 3), 1024: (2, 3, 4), 2048: (5, 6, 7), 4096: (8, 9, 10), 8192: (10, 12, 15), 16384: (15, 17, 19)
}  # fmt: skip
TABLE_1 = {
    (batch, rate, optimizer, protocol)
    for batch, rates in RATES.items()
    for rate, optimizer, protocol in itertools.product(rates, ("lars", "lamb", "tvlars"), ("paper", "released"))
}
TINY_IMAGENET = ["data=tiny_imagenet", "model=resnet34"]


@cache
def grid(experiment, *overrides):
    """Returns the experiment's configurations; skips where its trials have not been chosen yet."""
    try:
        return [job.config for job in sweep.grid([f"+experiment={experiment}", *overrides])]
    except UserError as error:
        if "no trial has been chosen yet" not in str(error):
            raise
        pytest.skip(str(error))


def keys(configs):
    return {index.key(config) for config in configs}


def cells(configs, *settings):
    """Returns the values of the given settings, one tuple a run."""
    values = {
        "batch": lambda c: c.batch, "lr": lambda c: c.lr, "optimizer": lambda c: c.optimizer["name"],
        "protocol": lambda c: c.protocol["name"], "lam": lambda c: c.optimizer["lam"],
        "init": lambda c: c.model["init"], "warmup": lambda c: c.schedule["warmup"],
    }  # fmt: skip
    return [tuple(values[setting](config) for setting in settings) for config in configs]


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_run_of_every_experiment_builds_and_none_comes_twice(experiment):
    configs = grid(experiment)
    for config in configs:
        build.validate(config)
    assert {config.experiment for config in configs} == {experiment}
    assert len(keys(configs)) == len(configs)
    text = (CONFIG_DIR / "experiment" / f"{experiment}.yaml").read_text()
    for said in re.findall(r"(\d+) runs", text):
        assert int(said) == len(configs)


@pytest.mark.parametrize(
    ("experiment", "data", "model", "task", "epochs"),
    [
        ("tvlars_table1_cifar10_clf", "cifar10", "resnet18", "classification", 100),
        ("tvlars_table1_tiny_imagenet_clf", "tiny_imagenet", "resnet34", "classification", 100),
        ("tvlars_table1_cifar10_bt", "cifar10", "resnet18", "barlow_twins", 1000),
        ("tvlars_table1_tiny_imagenet_bt", "tiny_imagenet", "resnet34", "barlow_twins", 1000),
        ("fig7_lr", "cifar10", "resnet18", "classification", 100),
    ],
)
def test_table_1_and_figure_7_have_the_papers_cells_largest_batch_first(experiment, data, model, task, epochs):
    configs = grid(experiment)
    found = cells(configs, "batch", "lr", "optimizer", "protocol")
    assert len(found) == 108 and set(found) == TABLE_1
    assert [cell[0] for cell in found] == sorted((cell[0] for cell in found), reverse=True)
    assert all(
        len({cell[2] for cell in found[place : place + 3]}) == 3 for place in range(0, 108, 3)
    )  # the three optimizers of a cell one after another
    assert {(c.data.name, c.model["name"], c.task["name"], c.epochs) for c in configs} == {(data, model, task, epochs)}


def test_figure_7_is_table_1():
    assert keys(grid("fig7_lr")) == keys(grid("tvlars_table1_cifar10_clf"))
    assert keys(grid("fig7_lr", *TINY_IMAGENET)) == keys(grid("tvlars_table1_tiny_imagenet_clf"))


@pytest.mark.parametrize(("overrides", "table"), [([], "cifar10"), (TINY_IMAGENET, "tiny_imagenet")])
def test_figure_2_is_lars_with_and_without_warm_up_and_shares_table_1s_runs(overrides, table):
    configs = grid("fig2_warmup", *overrides)
    assert set(cells(configs, "batch", "warmup")) == set(itertools.product(BATCHES, (0, 20)))
    assert {config.optimizer["name"] for config in configs} == {"lars"} and len(configs) == 12
    shared = keys(configs) & keys(grid(f"tvlars_table1_{table}_clf", "optimizer=lars", "lr_rank=1"))
    assert len(shared) == 6
    for config in configs:
        factor = build.schedule(config, steps=[10] * 100)
        if config.schedule["warmup"] == 0:  # eq. of the text: polynomial decay, from the first update on
            assert factor(0) > 0.99 and factor(499) == pytest.approx(0.25, abs=0.01) and factor(999) == 0
        else:
            assert factor(0) == 1 / 200 and factor(199) == 1


def test_figure_3_is_figure_2_with_norms():
    measured = grid("fig3_norms")
    assert {config.layer_norms for config in measured} == {10}
    assert keys(grid("fig3_norms", "layer_norms=null")) == keys(grid("fig2_warmup"))


def test_figure_6_has_six_lambdas_at_two_batches():
    configs = grid("fig6_lambda")
    lambdas = (1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 1e-2)
    found = cells(configs, "batch", "lam", "protocol")
    assert sorted(found) == sorted(itertools.product((1024, 16384), lambdas, ("paper", "released")))
    assert {config.optimizer["name"] for config in configs} == {"tvlars"}
    assert len(keys(configs) & keys(grid("tvlars_table1_cifar10_clf", "optimizer=tvlars", "lr_rank=1"))) == 4


@pytest.mark.parametrize("overrides", [[], TINY_IMAGENET])
def test_figure_8_has_four_initialisations(overrides):
    found = cells(grid("fig8_init", *overrides), "batch", "init", "protocol")
    inits = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal")
    assert sorted(found) == sorted(itertools.product(BATCHES, inits, ("paper", "released")))


def test_nowa_is_constant_under_the_released_protocol():
    config = configure("optimizer=lars", "schedule=nowa", "protocol=released")
    factor = build.schedule(config, steps=[10] * 100)
    assert {factor(step) for step in range(1000)} == {1.0}


@pytest.mark.parametrize("optimizer", ["lars", "lamb"])
def test_without_warm_up_the_released_protocol_runs_at_the_plain_rate(optimizer):
    for batch, rate in ((512, 2), (16384, 17)):
        config = configure(f"optimizer={optimizer}", "schedule=nowa", "protocol=released", f"batch={batch}")
        assert config.peak_lr == config.lr == rate
        warm = configure(f"optimizer={optimizer}", "protocol=released", f"batch={batch}")
        assert warm.peak_lr == rate * batch / 256


def test_the_readings_of_table_1_are_peaks_of_the_printed_rates():
    for batch, rates in RATES.items():
        for rank, rate in enumerate(rates):
            words = ["optimizer=lars", f"batch={batch}", f"lr_rank={rank}"]
            assert configure(*words, "protocol=plain").peak_lr == rate
            assert configure(*words, "protocol=released").peak_lr == rate * batch / 256
            ladder = (0.1, 0.3, 0.5)[rank] * batch / 256
            assert configure(*words, "protocol=ladder").peak_lr == pytest.approx(ladder)
            assert configure("optimizer=tvlars", *words[1:], "protocol=ladder").peak_lr == rate
    with pytest.raises(UserError, match="lr_rank=1"):
        configure("optimizer=lars", "protocol=ladder", "lr=0.5", "lr_rank=1", "batch=512")


def test_a_reading_is_the_released_run_at_that_rate():
    plain = configure("optimizer=lars", "batch=16384", "lr_rank=0", "protocol=plain")
    words = ["protocol=released", "protocol.lars_lr_scaling=none", "protocol.schedule_lag=0"]
    assert index.key(plain) == index.key(configure("optimizer=lars", "batch=16384", "lr=15", *words))
