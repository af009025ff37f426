"""Each rule against figures from elsewhere: scipy's distributions, a printed table, or worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lbt.report.kit import statistics

RUN = {"status": "done", "summary": {"test_accuracy": 71.5}, "data.name": "cifar10"}


@pytest.mark.parametrize(
    ("known", "metric", "expected"),
    [
        ({"data.name": "cifar10"}, "test_accuracy", 10.0),
        ({"data.name": "digits"}, "val_accuracy", 10.0),
        ({"data.name": "tiny_imagenet"}, "test_accuracy", 0.5),
        ({"data.name": "tiny_imagenet"}, "test_top5_accuracy", 2.5),
        ({"data.name": "image_folder", "classes": 4.0}, "test_accuracy", 25.0),  # the record says
        ({"data.name": "image_folder", "classes": 4.0}, "test_top5_accuracy", 100.0),
        ({"data.name": "cifar10", "classes": math.nan}, "test_knn_accuracy", 10.0),
        ({"data.name": "synthetic", "data.classes": 20}, "test_accuracy", 5.0),
        ({"data.name": "image_folder", "classes": None}, "test_accuracy", None),
        ({"data.name": "cifar10"}, "test_loss", None),
    ],
)
def test_chance_is_known_from_the_runs_data(known, metric, expected):
    assert statistics.chance(known, metric) == expected


def test_a_diverged_run_counts_as_chance_and_an_unfinished_one_not_at_all():
    left_with = {"summary": {"test_accuracy": 37.0}}
    assert statistics.value_of(RUN, "test_accuracy") == 71.5
    assert statistics.value_of({**RUN, **left_with, "status": "diverged"}, "test_accuracy") == 10.0
    assert statistics.value_of({**RUN, "summary": {}, "status": "diverged"}, "test_accuracy") == 10.0
    assert statistics.value_of({**RUN, "status": "unfinished"}, "test_accuracy") is None
    assert statistics.value_of({**RUN, "status": "oom"}, "test_accuracy") is None
    assert statistics.value_of({**RUN, "status": "oom"}, "test_accuracy", ("oom",)) == 10.0
    assert statistics.value_of({**RUN, "status": "diverged"}, "test_loss") is None
    unknown = {**RUN, **left_with, "status": "diverged", "data.name": "image_folder"}
    assert statistics.value_of(unknown, "test_accuracy") == 37.0


def test_chance_reaches_three_standard_errors_up():
    """sqrt(0.1 * 0.9 / 10,000) is 0.3 %, of 2,500 images 0.6 %."""
    assert statistics.at_chance(10.89, 10.0, 10_000) and not statistics.at_chance(10.91, 10.0, 10_000)
    assert statistics.at_chance(11.79, 10.0, 2_500) and not statistics.at_chance(11.81, 10.0, 2_500)
    assert not statistics.at_chance(0.0, None)


def test_the_images_that_were_scored():
    assert statistics.scored_images({"test_images": 360}) == 360
    assert statistics.scored_images({"data.test_every": 4}) == 2_500
    split = {"train_images": 8_000, "test_images": 10_000, "data.val": 0.2}
    assert statistics.scored_images(split, "val_accuracy") == 2_000


def test_the_sampling_error_is_that_of_scipys_distributions():
    found = statistics.binomial_error(51.8, 2_500)
    assert found == pytest.approx(100 * stats.binom(2_500, 0.518).std() / 2_500)
    part = 100 * stats.hypergeom(10_000, 5_180, 2_500).std() / 2_500
    assert statistics.binomial_error(51.8, 2_500, 10_000) == pytest.approx(part, rel=1e-4)
    assert statistics.binomial_error(100.0, 10) == 0.0


def test_the_last_five_epochs():
    assert statistics.last_mean([50.0] * 15 + [60.0, 70.0, 60.0, 70.0, 60.0]) == pytest.approx(64.0)
    assert statistics.last_mean([50.0] * 19) is None  # too short to tell an oscillation from a rise
    assert statistics.last_mean([50.0] * 19 + [math.nan]) is None


def test_welch_of_a_worked_example():
    """Standard deviations 1 and 1, three values each: standard error sqrt(2/3), t(0.975, 4) = 2.776."""
    half = 2.7764451 * math.sqrt(2 / 3)
    assert statistics.welch([85, 86, 87], [80, 81, 82]) == pytest.approx((5 - half, 5 + half), abs=1e-5)
    t = (5 - 2) / math.sqrt(2 / 3)
    assert statistics.welch_p([85, 86, 87], [80, 81, 82], 2.0) == pytest.approx(2 * stats.t.sf(t, 4))
    assert statistics.welch([1.0], [2.0, 3.0]) is None and statistics.welch_p([1.0], [2.0, 3.0]) is None
    assert statistics.welch([10, 10], [10, 10]) == (0, 0) and statistics.welch_p([10, 10], [10, 10]) == 1.0


def test_welch_agrees_with_scipy_at_any_sizes_and_spreads():
    random = np.random.default_rng(3)
    for n, m, spread in ((2, 7, 1.0), (5, 3, 9.0), (8, 8, 0.01)):
        first, second = random.normal(70, 1, n).tolist(), random.normal(71, spread, m).tolist()
        scipys = stats.ttest_ind(first, second, equal_var=False)
        assert statistics.welch(first, second) == pytest.approx((*scipys.confidence_interval(0.95),), rel=1e-10)
        assert statistics.welch_p(first, second) == pytest.approx(scipys.pvalue, rel=1e-10)


@pytest.mark.parametrize(("effect", "tests"), [(0.3, 1), (1.0, 6), (4.0, 1)])
def test_the_seeds_named_give_the_power_and_one_less_does_not(effect, tests):
    def power(n):
        critical = stats.t.ppf(1 - 0.05 / tests / 2, 2 * n - 2)
        there = stats.nct(2 * n - 2, effect * math.sqrt(n / 2))
        return there.sf(critical) + there.cdf(-critical)

    n = statistics.seeds_for(2 * effect, 2.0, tests)
    assert power(n) >= 0.8 and (n == 2 or power(n - 1) < 0.8)


def test_holm_on_a_worked_example():
    """0.01, 0.04, 0.03, 0.005 times 3, 1, 2, 4; then each at least the one before in order of size."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.7, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
    assert statistics.holm([0.01, 0.02], family=6) == pytest.approx([0.06, 0.1])


@pytest.mark.parametrize(("rows", "critical"), [(1, 2.78), (2, 2.86), (3, 2.88)])
def test_dunnetts_interval_is_that_of_his_table(rows, critical):
    """Two-sided 5 % points: Student's 2.78 at 4 degrees of freedom; Dunnett (1964), 2.86 at (2, 6), 2.88 at (3, 8)."""
    others = [[70.0 + i, 71.0 + i, 72.0 + i] for i in range(rows)]  # each variance 1, and so the pooled one
    found = statistics.dunnett([80.0, 81.0, 82.0], others)
    for i, (low, high) in enumerate(found):
        assert (low + high) / 2 == pytest.approx(i - 10)
        assert (high - low) / 2 == pytest.approx(critical * math.sqrt(2 / 3), abs=0.006)


def test_dunnetts_comparison_leaves_out_single_runs_and_needs_a_spread():
    alone = statistics.dunnett([80.0, 81.0, 82.0], [[70.0, 71.0, 72.0]])
    among = statistics.dunnett([80.0, 81.0, 82.0], [[99.0], [70.0, 71.0, 72.0]])
    assert among[0] is None and among[1] == pytest.approx(alone[0])
    assert statistics.dunnett([80.0], [[70.0, 71.0]]) == [None]
    assert statistics.dunnett([80.0, 80.0], [[70.0, 70.0]]) == [None]
