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
    among = statistics.best_of_k([60.0, 70.0, 10.0, 10.0])
    assert among[0, 0] == pytest.approx((60 + 70 + 20) / 4) and among[-1, 0] == 70 == without[-1, 0]
    assert among[1, 0] < without[1, 0]


@pytest.mark.parametrize("n", [6, 7, 12, 40])
def test_summary_agrees_with_numpy_and_scipys_quantile_test(n):
    values = np.random.default_rng(5).normal(70, 3, n)
    found = statistics.summarise(values)
    assert (found.n, found.median) == (n, pytest.approx(np.median(values)))
    assert found.quartiles == pytest.approx(tuple(np.quantile(values, [0.25, 0.75])))
    scipys = stats.quantile_test(values).confidence_interval(0.95)
    assert found.interval == pytest.approx((scipys.low, scipys.high))


def test_the_median_of_five_seeds_has_no_honest_interval():
    """It lies between the least and the greatest of five in 1 - 2/32 of the cases, below 95 %."""
    assert statistics.summarise([1.0, 2.0, 3.0, 4.0, 5.0]).interval is None
    assert statistics.summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).interval == (1.0, 6.0)


@pytest.mark.parametrize("values", [[50.0], [50.0] * (FEWEST_SEEDS - 1)])
def test_too_few_values_have_no_interval(values):
    found = statistics.summarise(values)
    assert (found.n, found.median, found.quartiles, found.interval) == (len(values), 50.0, (50.0, 50.0), None)


def test_an_all_diverged_sample_is_all_chance():
    found = statistics.summarise([10.0] * 6)
    assert (found.median, found.interval) == (10.0, (10.0, 10.0))
    (one,) = statistics.compare({"a": [10.0] * 6, "b": [10.0] * 6})
    assert (one.difference, one.p, one.corrected) == (0.0, 1.0, 1.0)
    (one,) = statistics.compare({"a": [10.0] * 6, "b": [70.0 + i for i in range(6)]})
    assert one.difference == -62.5 and one.corrected < 0.01


def test_comparisons_agree_with_scipy_and_are_corrected_for_their_number():
    random = np.random.default_rng(0)
    samples = {name: random.normal(mean, 1, 12) for name, mean in (("a", 70), ("b", 71), ("c", 74))}
    found = {(one.first, one.second): one for one in statistics.compare(samples)}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    p = {pair: stats.mannwhitneyu(samples[pair[0]], samples[pair[1]]).pvalue for pair in found}
    for pair, one in found.items():
        assert one.p == pytest.approx(p[pair])
        every = [a - b for a in samples[pair[0]] for b in samples[pair[1]]]
        assert one.difference == pytest.approx(np.median(every))
        assert one.interval[0] < one.difference < one.interval[1]
    smallest = min(p, key=p.get)
    assert found[smallest].corrected == pytest.approx(3 * p[smallest])


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 8), (7, 7), (12, 9), (40, 40)])
def test_the_interval_holds_the_shifts_that_scipys_exact_test_does_not_reject(n, m):
    random = np.random.default_rng(n)
    a, b = random.normal(70, 1, n), random.normal(71, 2, m)
    ((low, high),) = [one.interval for one in statistics.compare({"a": a, "b": b})]

    def p(shift):
        return stats.mannwhitneyu(a - shift, b, method="exact").pvalue

    assert p(low + 1e-9) > 0.05 and p(high - 1e-9) > 0.05
    assert p(low - 1e-9) < 0.05 and p(high + 1e-9) < 0.05


def test_the_interval_of_five_seeds_holds_the_truth_often_enough():
    """96.8 % by the rank distribution (4 of 252 a side); the percentile bootstrap of the medians reaches about 90 %."""
    random = np.random.default_rng(2)
    draws = random.normal(0, 1, (2000, 2, 5))
    found = [statistics.compare({"a": a, "b": b})[0].interval for a, b in draws[:400]]
    held = np.mean([low <= 0 <= high for low, high in found])
    assert held > 0.94


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


def test_the_seeds_needed_suffice_on_average():
    """At the n it names, simulated shifts lie within the distance in about 95 % of the cases."""
    random = np.random.default_rng(1)
    a, b = random.normal(70, 2, 2000), random.normal(70, 1, 2000)
    n = statistics.seeds_needed(a, b, distance=0.6)
    first, second = random.normal(70, 2, (1000, n, 1)), random.normal(70, 1, (1000, 1, n))
    spread = np.median((first - second).reshape(1000, -1), axis=1)
    assert 0.92 < np.mean(np.abs(spread) < 0.6) < 0.98
    assert statistics.seeds_needed(a, b, 0.0) is None
    assert statistics.seeds_needed([1.0] * 5, [1.0] * 5, 0.1) == FEWEST_SEEDS


def test_steps_to_target_is_the_first_epoch_that_reaches_it():
    assert statistics.steps_to_target([10, 20, 30, 40], [20.0, None, 51.0, 49.0], 50) == 30
    assert statistics.steps_to_target([10, 20], [20.0, None], 50) == math.inf
    assert statistics.steps_to_target([], [], 50) == math.inf
