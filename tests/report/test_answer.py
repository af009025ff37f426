"""Planted records: who is favoured follows a known truth, and what is not decided says what it lacks."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planted import plant
from scipy import stats
from support import configure

from lbt import runtime
from lbt.cli import main
from lbt.report.answer import answers
from lbt.report.frame import load
from lbt.report.kit.statistics import POWER, pooled_spread, seeds_for

SEEDS = (-0.4, -0.2, 0.0, 0.2, 0.4)


@cache
def configured(optimizer, *overrides):
    return runtime.settle(configure("+experiment=quickstart", "precision=fp32", f"optimizer={optimizer}", *overrides))


def runs(folder, optimizer, accuracy, *overrides, n=5, diverged=0, **settings):
    """n runs around an accuracy, the last ones diverged."""
    for seed in range(n):
        config = replace(configured(optimizer, *overrides), seed=seed, **settings)
        if seed < n - diverged:
            plant(folder, config, accuracy + SEEDS[seed])
        else:
            plant(folder, config, None, status="diverged")


def only(folder, **wanted):
    (found,) = answers(load(folder), wanted)
    return found


def test_a_clear_winner_is_favoured_by_its_margin(tmp_path):
    runs(tmp_path, "lars", 70.0)
    runs(tmp_path, "tvlars", 73.5)
    runs(tmp_path, "lamb", 50.0)
    found = only(tmp_path)
    assert (found.favoured, found.verdict, found.needs, found.unit) == ("tvlars", "favoured", None, "points")
    assert found.margin == pytest.approx(3.5)
    interval = stats.ttest_ind(73.5 + np.array(SEEDS), 70 + np.array(SEEDS), equal_var=False).confidence_interval()
    assert "tvlars 73.50 ± 0.32 (n=5) is 3.50 points of accuracy above lars 70.00 ± 0.32 (n=5), 95 % interval "
    assert f"{interval.low:+.2f} to {interval.high:+.2f}" in found.sentence and "Holm over 3 pairs" in found.sentence
    assert len(found.runs) == 15 and sum(run[:8] in found.sentence for run in found.runs) == 6
    assert found.effort == "one configuration each, none chosen"


def test_the_seeds_of_an_undecided_pair_would_decide_it(tmp_path):
    runs(tmp_path, "lars", 70.0)
    runs(tmp_path, "tvlars", 70.3)
    found = only(tmp_path)
    assert found.favoured is None and found.margin == pytest.approx(0.3)
    assert found.verdict == f"not decided: needs about {found.needs} more seeds"
    normal = 2 * ((stats.norm.ppf(0.975) + stats.norm.ppf(POWER)) * np.std(SEEDS, ddof=1) / 0.3) ** 2
    assert math.ceil(normal) <= 5 + found.needs <= math.ceil(normal) + 2  # Student's t asks for one or two more


@pytest.mark.parametrize(("difference", "tests"), [(2.0, 1), (1.0, 1), (1.0, 6)])
def test_that_many_seeds_have_that_power_and_one_fewer_has_not(difference, tests):
    random = np.random.default_rng(0)

    def power(count):
        first, second = (random.normal(mean, 1.0, (20_000, count)) for mean in (difference, 0.0))
        return np.mean(stats.ttest_ind(first, second, axis=1).pvalue < 0.05 / tests)

    count = seeds_for(difference, 1.0, tests)
    assert power(count) >= POWER - 0.01 and power(count - 1) < POWER + 0.01


def test_seeds_at_the_edges():
    assert seeds_for(0.0, 1.0) is None and seeds_for(0.001, 1.0) is None
    assert seeds_for(5.0, 0.0) == seeds_for(1e6, 1.0) == 2
    assert seeds_for(-1.0, 1.0) == seeds_for(1.0, 1.0)
    assert pooled_spread([[1.0], [2.0]]) is None
    assert pooled_spread([[1.0, 3.0], [5.0], [0.0, 0.0, 0.0]]) == pytest.approx(math.sqrt(2 / 3))


def test_one_run_each_tells_no_spread(tmp_path):
    for optimizer, accuracy in (("lars", 70.0), ("tvlars", 90.0)):
        runs(tmp_path, optimizer, accuracy, n=1)
    found = only(tmp_path)
    assert (found.favoured, found.needs, found.margin) == (None, None, 20.0)
    assert found.verdict == "not decided: one run each, spread unknown" and "from 3 runs a side" in found.sentence


def test_diverged_runs_count_as_chance(tmp_path):
    runs(tmp_path, "lars", 70.0)
    runs(tmp_path, "tvlars", 80.0, diverged=2)  # 80 % of three runs, 10 % of two
    found = only(tmp_path)
    assert found.favoured is None and found.sentence.startswith("not decided: none but lars trains in all of its runs")
    assert found.margin == pytest.approx(70.0 - (79.6 + 79.8 + 80.0 + 2 * 10.0) / 5)
    assert "tvlars 2 of 5), and being above such runs is no gain" in found.sentence


@pytest.mark.parametrize(
    ("trains", "verdict"), [((), "not decided: none of them trains"), (("lars",), "not decided: only lars trains")]
)
def test_being_above_what_does_not_train_is_no_gain(tmp_path, trains, verdict):
    for optimizer in ("lars", "tvlars", "lamb"):
        runs(tmp_path, optimizer, 70.0, diverged=0 if optimizer in trains else 5)
    found = only(tmp_path)
    assert (found.favoured, found.margin, found.verdict) == (None, None, verdict)


def test_one_that_does_not_train_in_every_run_keeps_no_decision_open(tmp_path):
    runs(tmp_path, "lars", 70.0)
    runs(tmp_path, "tvlars", 75.0)
    runs(tmp_path, "lamb", 74.0, diverged=1)
    found = only(tmp_path)
    assert (found.favoured, found.margin) == ("tvlars", pytest.approx(5.0)) and "lamb 1 of 5" in found.sentence


def test_the_best_rate_is_chosen_on_test_data_and_unequal_tuning_is_said(tmp_path):
    for lr, accuracy in ((0.1, 60.0), (0.2, 75.0), (0.4, 65.0)):
        runs(tmp_path, "tvlars", accuracy, lr=lr, n=3)
    runs(tmp_path, "lars", 70.0, lr=0.1, n=3)
    found = only(tmp_path)
    assert (found.favoured, found.margin) == ("tvlars", pytest.approx(5.0))
    assert found.effort == "unequal: tvlars 3 rates, lars 1 configuration; chosen on test data"
    assert f"{found.effort}, which flatters them" in found.sentence and len(found.runs) == 6
    runs(tmp_path, "lars", 69.0, lr=0.2, n=3)
    runs(tmp_path, "lars", 68.0, lr=0.4, n=3)
    assert only(tmp_path).effort == "the best of 3 rates each, chosen on test data"


def test_a_studys_trials_are_its_tuning_and_its_final_runs_the_evidence(tmp_path):
    def made(optimizer, folder, lr, seed=0, val=0.0, **study):
        config = configured(optimizer)
        data = replace(config.data, val=val)
        return replace(config, data=data, lr=lr, seed=seed, experiment=folder, study=study)

    for optimizer in ("lars", "tvlars"):
        for trial in range(4):
            tried = made(optimizer, "tune", (trial + 1) / 10, val=0.2, trial=trial)
            line = {"val_accuracy": 60.0 + trial, "train_loss": 1.0}
            path = plant(tmp_path, tried, 90.0, fingerprint="e" * 16, lines=[line] * tried.epochs)
        if optimizer == "lars":  # nothing is chosen yet
            assert only(tmp_path).effort == "the best of 4 rates, chosen on the validation data they are scored on"
        for seed in range(5):
            final = made(optimizer, "final", 0.4, seed, chosen=path.stem)
            plant(tmp_path, final, {"lars": 70.0, "tvlars": 74.0}[optimizer] + SEEDS[seed])
        ablated = made(optimizer, "final", 0.9, chosen=path.stem, variant="higher rate")
        plant(tmp_path, ablated, 99.0)  # chosen by nobody
    found = only(tmp_path)
    assert (found.favoured, found.margin) == ("tvlars", pytest.approx(4.0))
    assert found.effort == "the best of 4 trials each, chosen on validation data"
    assert "flatters" not in found.sentence


def test_a_part_of_the_data_is_named_and_its_source_where_it_tells_apart(tmp_path):
    part = ", stratified subset of 2,560 training images, seed 0, one test image in 10 scored"
    for mark, origin in (("a", f"cifar10 (JPEG){part}"), ("b", f"cifar10 (official){part}")):
        plant(tmp_path, configured("lars"), 70.0, made_by={"data": origin}, fingerprint=mark * 16)
    names = [one.workload for one in answers(load(tmp_path))]
    assert [name.count("2,560") for name in names] == [1, 1]
    assert [name.split(", ")[-1] for name in names] == ["cifar10 (JPEG)", "cifar10 (official)"]


def test_workloads_are_kept_apart_and_named_by_what_tells_them_apart(tmp_path):
    for epochs in (4, 8):
        for optimizer in ("lars", "tvlars"):
            runs(tmp_path, optimizer, 70.0, epochs=epochs, batch=8, n=1)
    runs(tmp_path, "lars", 70.0, epochs=8, batch=16, n=1)
    found = answers(load(tmp_path))
    assert [(one.batch, one.verdict.split(":")[0]) for one in found] == [
        (8, "not decided"), (8, "not decided"), (16, "nothing to compare"),
    ]  # fmt: skip
    assert found[0].workload != found[1].workload == found[2].workload
    assert all("epochs" in one.workload and "protocol" not in one.workload for one in found)
    runs(tmp_path, "lars", 50.0, "protocol=released", epochs=8, batch=8, n=1)
    assert sorted(one.workload.rpartition(", ")[2] for one in answers(load(tmp_path))).count("protocol released") == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    runs(folder, "lars", 70.0, n=3)
    runs(folder, "tvlars", 75.0, n=3)
    return folder


def test_the_console_says_it_in_a_table_and_a_sentence(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["answer", "optimizer=lars,tvlars", "quickstart", "--results-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "│ tvlars   │ 5.00 points │ one configuration each, none chosen │ favoured │" in said
    assert "tvlars 75.00" not in said and "is 5.00 points of accuracy above lars" in said and "1 of 1 decided" in said


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch=7", "batch=7: none of the runs has it; there is "),
        ("bach=7", 'bach: none of the runs has such a setting; did you mean "batch"?'),
        ("optimizer=larz", "optimizer=larz: none of the runs has it; there are lars, tvlars"),
        ("quickstrt", 'did you mean "quickstart"?'),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, word, message):
    assert main(["answer", word, "--results-dir", str(folder)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
