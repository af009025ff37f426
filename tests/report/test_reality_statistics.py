import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lbt.report.kit.wording import p_value
from lbt.report.reality import statistics
from lbt.report.reality.tables import files
from lbt.sweep.tuning import FEWEST_SEEDS


@pytest.mark.parametrize("scores", [[61.0, 0.0, 70.5, 55.0, 70.5, 0.0, 68.0], [5.0], [0.0] * 4])
def test_best_of_k_agrees_with_every_draw_of_k_trials(scores):
    rows = statistics.best_of_k(scores, (0.1, 0.9))
    assert len(rows) == len(scores)
    for k, (expected, low, high) in enumerate(rows, 1):
        best = [max(draw) for draw in itertools.combinations(scores, k)]
        assert expected == pytest.approx(np.mean(best))
        assert [low, high] == list(np.quantile(best, [0.1, 0.9], method="inverted_cdf"))


def test_diverged_trials_lower_the_curve_but_not_its_end():
    without = statistics.best_of_k([60.0, 70.0])
    among = statistics.best_of_k([60.0, 70.0, 0.0, 0.0])
    assert among[0, 0] == pytest.approx((60 + 70) / 4) and among[-1, 0] == 70 == without[-1, 0]
    assert among[1, 0] < without[1, 0]


def test_summary_agrees_with_numpy_and_scipys_bootstrap():
    values = np.random.default_rng(5).normal(70, 3, 40)
    found = statistics.summarise(values)
    assert (found.n, found.median) == (40, pytest.approx(np.median(values)))
    assert found.quartiles == pytest.approx(tuple(np.quantile(values, [0.25, 0.75])))
    scipys = stats.bootstrap((values,), np.median, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert found.interval == pytest.approx((scipys.low, scipys.high), abs=0.15)
    assert found.interval == statistics.summarise(values).interval  # seeded


@pytest.mark.parametrize("values", [[50.0], [50.0] * (FEWEST_SEEDS - 1)])
def test_too_few_values_have_no_interval(values):
    found = statistics.summarise(values)
    assert (found.n, found.median, found.quartiles, found.interval) == (len(values), 50.0, (50.0, 50.0), None)


def test_an_all_diverged_sample_is_all_zero():
    found = statistics.summarise([0.0] * 6)
    assert (found.median, found.interval) == (0.0, (0.0, 0.0))
    (one,) = statistics.compare({"a": [0.0] * 6, "b": [0.0] * 6})
    assert (one.difference, one.p, one.corrected) == (0.0, 1.0, 1.0)
    (one,) = statistics.compare({"a": [0.0] * 6, "b": [70.0 + i for i in range(6)]})
    assert one.difference == -72.5 and one.corrected < 0.01


def test_comparisons_agree_with_scipy_and_are_corrected_for_their_number():
    random = np.random.default_rng(0)
    samples = {name: random.normal(mean, 1, 12) for name, mean in (("a", 70), ("b", 71), ("c", 74))}
    found = {(one.first, one.second): one for one in statistics.compare(samples)}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    p = {pair: stats.mannwhitneyu(samples[pair[0]], samples[pair[1]]).pvalue for pair in found}
    for pair, one in found.items():
        assert one.p == pytest.approx(p[pair])
        assert one.difference == pytest.approx(np.median(samples[pair[0]]) - np.median(samples[pair[1]]))
        assert one.interval[0] < one.difference < one.interval[1]
    scipys = stats.bootstrap(
        (samples["a"], samples["c"]), lambda a, c, axis: np.median(a, axis=axis) - np.median(c, axis=axis),
        method="percentile", n_resamples=20_000, rng=1,
    ).confidence_interval  # fmt: skip
    assert found["a", "c"].interval == pytest.approx((scipys.low, scipys.high), abs=0.2)
    smallest = min(p, key=p.get)
    assert found[smallest].corrected == pytest.approx(3 * p[smallest])


def test_the_rank_test_of_few_values_is_exact_with_ties():
    """All 252 ways to split ten values in two: how often is the rank sum at least as far from its mean?"""
    a, b = [39.9, 39.9, 41.0, 40.0, 42.5], [42.0, 42.5, 44.0, 43.0, 42.5]
    (one,) = statistics.compare({"a": a, "b": b})
    ranks = stats.rankdata(a + b)
    sums = [abs(sum(ranks[list(split)]) - 27.5) for split in itertools.combinations(range(10), 5)]
    assert one.p == pytest.approx(np.mean(np.array(sums) >= abs(sum(ranks[:5]) - 27.5) - 1e-9))


def test_samples_too_small_for_an_interval_are_not_tested():
    (one,) = statistics.compare({"a": [1.0], "b": [2.0] * 9})
    assert (one.difference, one.interval, one.p, one.corrected) == (-1.0, None, None, None)


def test_a_tiny_p_value_is_latex():
    assert r"\textless{} 0.0001" in files([{"p": p_value(1e-9)}])["tex"]


def test_holm_on_a_worked_example():
    """0.01, 0.04, 0.03, 0.005 times 3, 1, 2, 4; then each at least the one before in order of size."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.7, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
    assert statistics.holm([0.01, 0.02], family=6) == pytest.approx([0.06, 0.1])


def test_the_seeds_needed_suffice_on_average():
    """At the n it names, simulated medians' differences lie within the distance in about 95 % of the cases."""
    random = np.random.default_rng(1)
    a, b = random.normal(70, 2, 2000), random.normal(70, 1, 2000)
    n = statistics.seeds_needed(a, b, distance=0.6)
    spread = np.median(random.normal(70, 2, (4000, n)), axis=1) - np.median(random.normal(70, 1, (4000, n)), axis=1)
    assert 0.93 < np.mean(np.abs(spread) < 0.6) < 0.97
    assert statistics.seeds_needed(a, b, 0.0) is None
    assert statistics.seeds_needed([1.0] * 5, [1.0] * 5, 0.1) == FEWEST_SEEDS


def test_steps_to_target_is_the_first_epoch_that_reaches_it():
    assert statistics.steps_to_target([10, 20, 30, 40], [20.0, None, 51.0, 49.0], 50) == 30
    assert statistics.steps_to_target([10, 20], [20.0, None], 50) == math.inf
    assert statistics.steps_to_target([], [], 50) == math.inf
