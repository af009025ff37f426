"""Critical batch sizes from records: the fit, the steps to a target, and the branches of a training."""

import csv
import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planted import plant
from support import configure

from lbt import runtime
from lbt.report.critical.scaling import fit
from lbt.report.frame import load
from lbt.report.kit import render
from lbt.report.tables import make

BATCHES = [512, 1024, 2048, 4096, 8192, 16384]


def test_the_fit_gives_back_what_the_steps_were_made_of():
    found = fit(BATCHES, [300 * (1 + 2500 / batch) for batch in BATCHES])
    assert found.s_min == pytest.approx(300, rel=1e-6) and found.b_crit == pytest.approx(2500, rel=1e-6)
    assert found.interval == pytest.approx((2500, 2500), rel=1e-4)
    assert found.steps(found.b_crit) == pytest.approx(2 * found.s_min)
    assert found.text() == "B_crit 2,500 (95 %: 2,500 to 2,500), S_min 300"


def test_its_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        noisy = [300 * (1 + 2500 / batch) * np.exp(0.05 * random.standard_normal()) for batch in BATCHES]
        low, high = fit(BATCHES, noisy).interval
        held += low <= 2500 <= high
    assert 52 <= held <= 59


@pytest.mark.parametrize("steps", [[1600, 800, 400], [100, 100, 100]])
def test_what_the_batches_do_not_bound_is_not_told(steps):
    found = fit([64, 128, 256], steps)
    assert not found.decided and found.text() == "B_crit not determined by these batches"
    assert fit([64, 128], [10, 5]) is None


@cache
def composed(*words):
    return runtime.settle(configure(*words))


def record(folder, batch, curve, *, rate=1.0, optimizer="tvlars", seed=0, name="tvlars_table1_cifar10_clf", **more):
    config = composed("data=cifar10", "precision=fp32", "protocol=released", f"optimizer={optimizer}")
    config = replace(config, batch=batch, lr=rate, experiment=name, seed=seed)
    curve = [*curve, *[curve[-1]] * (100 - len(curve))] if more.get("status", "done") == "done" else curve
    return plant(folder, config, curve, **more)


@pytest.fixture(scope="module")
def steps_table(tmp_path_factory):
    """TVLARS reaches the target at every batch, LARS at one of two seeds of the first and diverges at the second."""
    folder = tmp_path_factory.mktemp("steps")
    for batch, epoch in ((512, 12), (1024, 7), (2048, 4), (4096, 3)):
        record(folder, batch, [10.0] * (epoch - 1) + [76.0])
        record(folder, batch, [10.0] * (epoch + 2) + [85.0], rate=0.5)  # ends higher, gets there later
    record(folder, 512, [10.0] * 13 + [76.0], seed=1)
    for seed, last in ((0, 80.0), (1, 70.0)):
        record(folder, 512, [10.0, last], optimizer="lars", seed=seed)
    for rate in (0.5, 1.0):
        record(folder, 1024, [10.0], optimizer="lars", rate=rate, status="diverged")
    for seed, last in ((0, 76.0), (1, 20.0)):  # at once, but not with every seed
        record(folder, 2048, [last], rate=0.1, seed=seed)
    return make("steps_to_target", load(folder))


def test_steps_are_those_of_the_rate_that_needs_fewest(steps_table):
    rows = list(csv.DictReader(io.StringIO(steps_table.csv())))
    found = {(row["optimizer.name"], row["batch"]): row for row in rows}
    steps = {batch: found["tvlars", batch]["steps"] for batch in ("512", "1024", "2048", "4096")}
    assert steps == {"512": "13", "1024": "7", "2048": "4", "4096": "3"}  # a planted record's epoch is a step
    assert found["tvlars", "512"]["n"] == found["tvlars", "512"]["reached"] == "2"
    assert (found["lars", "512"]["reached"], found["lars", "512"]["steps"]) == ("1", "")
    wanted = fit([512, 1024, 2048, 4096], [13, 7, 4, 3])
    assert float(found["tvlars", "4096"]["b_crit"]) == pytest.approx(wanted.b_crit, rel=1e-3)


def test_its_page_says_who_did_not_get_there(steps_table):
    text = render.markdown(steps_table.page())
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "| 1 of 2 runs reached it at peak_lr" in lines["512"] and "| 13 ± 1 (n=2) at peak_lr" in lines["512"]
    assert "| not reached; 2 diverged at peak_lr 2 / 4 |" in lines["1,024"] and "| - |" in lines["2,048"]
    assert "| none: 0 batches reached it | B_crit " in lines["fit"] and "fewest updates, on test data" in text
    render.latex(steps_table.page())


def branch(folder, at, factor, loss, seed=0):
    config = composed("+experiment=critical_batch", "optimizer=lars", "branch.at=1")
    config = replace(config, branch=replace(config.branch, at=at, factor=factor), seed=seed)
    status = "diverged" if loss is None else "done"
    return plant(folder, config, [50.0] * (at + 1), status=status, lines=[{"test_loss": loss}] * (at + 1))


@pytest.fixture(scope="module")
def branch_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("branches")
    for at, losses in {1: {1: 0.9, 2: 0.94, 4: 0.96, 8: 0.91}, 3: {1: 0.8, 2: 0.7, 4: 0.8, 8: 0.81}}.items():
        for factor, loss in losses.items():
            branch(folder, at, factor, loss)
    branch(folder, 6, 1, 0.5)
    branch(folder, 6, 1, 0.7, seed=1)
    branch(folder, 6, 2, None)
    branch(folder, 2, 2, 0.5)
    return make("critical_batch", load(folder))


def test_the_critical_batch_is_the_largest_up_to_which_all_stay_within_the_tolerance(branch_table):
    found = {one.at: (one.text(), one.factor, one.bounded) for one in branch_table.points}
    assert found == {
        1: ("1,024", 2, True),  # 8 is within it again, 4 is not
        2: ("open", None, False),  # nothing to compare with
        3: ("at least 4,096", 8, False),
        6: ("512", 1, True),  # factor 2 diverged
    }


def test_its_page_and_file_have_every_branch(branch_table):
    text = render.markdown(branch_table.page())
    (line,) = (line for line in text.splitlines() if "| epoch 6 |" in line)
    assert line == "| LARS | 512 | epoch 6 | 0.600 ± 0.141 (n=2) | 1 diverged | - | - | 512 |"
    assert "Trainings of 10 epochs and branches of 1 epoch of resnet18" in text and "by more than 0.05" in text
    rows = list(csv.DictReader(io.StringIO(branch_table.csv())))
    assert len(rows) == 11
    known = {(row["branch.at"], row["branch.factor"]): row for row in rows}
    assert float(known["1", "4"]["excess"]) == pytest.approx(0.06) and known["6", "2"]["excess"] == "inf"
    assert known["1", "8"]["critical_batch"] == "1024" and known["2", "2"]["critical_batch"] == ""


def test_without_runs_there_is_a_page_all_the_same(tmp_path):
    record(tmp_path, 512, [50.0], name="another")
    for name in ("steps_to_target", "critical_batch"):
        table = make(name, load(tmp_path))
        assert "No run yet." in render.markdown(table.page()) and len(table.csv().splitlines()) == 1
