"""Planted figures: the verdict follows a known truth, turns round with it, and is open with too few runs."""

import numpy as np
import pytest
from scipy import stats
from support import REPOSITORY

from lbt.report.claims import rules, table
from lbt.report.claims.evidence import Sample
from lbt.report.claims.rules import FAILS, HOLDS, OPEN, Difference
from lbt.report.frame import load
from lbt.report.tables import make

PLACES = [(task, "cifar10", batch) for task in ("classification", "barlow_twins") for batch in (512, 1024, 16384)]
SEEDS = (-0.2, -0.1, 0.0, 0.1, 0.2)


def sample(place, optimizer, accuracy, n=5, lr=1.0, epochs=50, **settings):
    """n runs around an accuracy that rise to it evenly over so many epochs, of 100."""
    values = tuple(accuracy + SEEDS[seed] for seed in range(n))
    curves = tuple(np.minimum(np.arange(1, 101) / (epochs + 2 * seed), 1) * value for seed, value in enumerate(values))
    return Sample((*place[:2], None), place[2], optimizer, lr, values, curves=curves, **settings)


def duel(gain, n=5, tvlars_epochs=30):
    found = [sample(place, "lars", 70.0, n) for place in PLACES]
    return found + [sample(place, "tvlars", 70.0 + gain, n, epochs=tvlars_epochs) for place in PLACES]


def rates(gain, n=5):
    return [sample(place, "tvlars", 70 + gain * lr, n, lr=lr) for place in PLACES for lr in (1.0, 2.0, 3.0)]


def starts(gap, n=5):
    names = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal")
    places = [place for place in PLACES if place[0] == "classification"]
    return [sample(place, "tvlars", 70 + gap * i, n, init=name) for place in places for i, name in enumerate(names)]


def lambdas(best_small, best_large, n=5):
    grid = (1e-5, 1e-4, 1e-3, 1e-2)
    best = {1024: best_small, 16384: best_large}
    return [
        sample(("classification", "cifar10", batch), "tvlars", 80 - 3 * abs(np.log10(lam / best[batch])), n, lam=lam)
        for batch in best
        for lam in grid
    ]


UP_TO_2 = {"task": "classification", "amount": 2}
CASES = [
    ("beats_lars", duel, (1.5,), (-1.5,), {}),
    ("up_to", duel, (2.0,), (0.5,), UP_TO_2),
    ("fewer_epochs", duel, (0.0, 5, 30), (0.0, 5, 70), {}),
    ("initialisation", starts, (0.05,), (1.0,), {}),
    ("rate_helps", rates, (1.0,), (-1.0,), {}),
    ("lambda_shifts", lambdas, (1e-4, 1e-3), (1e-3, 1e-4), {}),
    ("lambda_shifts", lambdas, (1e-5, 1e-2), (1e-4, 1e-4), {}),
]


@pytest.mark.parametrize(("rule", "plant", "true", "reversed_", "options"), CASES)
def test_the_verdict_follows_the_planted_truth(rule, plant, true, reversed_, options):
    def judge(samples):
        return table.RULES[rule](samples, PLACES, rules.NEEDED, **options)

    assert judge(plant(*true)).verdict == HOLDS
    assert judge(plant(*reversed_)).verdict == FAILS
    few = [Sample(s.where, s.batch, s.optimizer, s.lr, s.values[:1], s.lam, s.init, s.curves[:1]) for s in plant(*true)]
    finding = judge(few)
    assert (finding.verdict, finding.n, finding.interval) == (OPEN, "1", "n=1: no interval")
    assert "3 runs" in finding.missing
    assert judge([]).verdict == OPEN and judge([]).missing


@pytest.mark.parametrize("rule", ["beats_lars", "initialisation"])
def test_a_place_without_runs_keeps_a_claim_about_every_place_open(rule):
    plant = {"beats_lars": duel(1.5), "initialisation": starts(0.05)}[rule]
    more = [*PLACES, ("classification", "tiny_imagenet", 512)]
    finding = table.RULES[rule](plant, more, rules.NEEDED)
    assert finding.verdict == OPEN and "tiny_imagenet" in finding.missing


def test_one_decided_contradiction_refutes_every_whatever_is_missing():
    samples = [sample(PLACES[0], "lars", 72.0), sample(PLACES[0], "tvlars", 70.0)]
    assert table.beats_lars(samples, PLACES, rules.NEEDED).verdict == FAILS


def test_a_difference_within_its_noise_decides_nothing():
    noisy = [
        Sample((*place[:2], None), place[2], name, 1.0, values)
        for place in PLACES
        for name, values in {"lars": (60.0, 70.0, 80.0), "tvlars": (61.0, 71.0, 81.0)}.items()
    ]
    assert table.beats_lars(noisy, PLACES, rules.NEEDED).verdict == OPEN


def test_a_run_that_diverged_is_no_gain_of_the_other_in_points():
    samples = [sample(PLACES[0], "tvlars", 75.0), sample(PLACES[0], "lars", 10.0, diverged=5)]
    assert table.up_to(samples, PLACES, rules.NEEDED, **UP_TO_2).verdict == OPEN
    assert table.beats_lars(samples, PLACES[:1], rules.NEEDED).verdict == HOLDS


def test_each_side_stands_at_its_best_rate():
    low = [sample(PLACES[0], "lars", 60.0, lr=1.0), sample(PLACES[0], "tvlars", 70.0, lr=1.0)]
    assert table.beats_lars(low, PLACES[:1], rules.NEEDED).verdict == HOLDS
    assert table.beats_lars([*low, sample(PLACES[0], "lars", 71.0, lr=2.0)], PLACES[:1], 3).verdict == FAILS


def test_the_interval_is_welchs():
    first, second = [3.0, 4.5, 5.0, 9.0], [1.0, 1.5, 2.5]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert Difference("", first, second).interval == pytest.approx((expected.low, expected.high))


def test_the_published_figures_are_judged_as_they_stand():
    """Table 1 itself: LARS beats TVLARS at 4,096 on CIFAR-10; 82.58 - 80.52 and 31.44 - 21.12 are the most."""
    table = make("tvlars_claims", load(REPOSITORY / "results" / "nothing"))
    found = {claim["claim"]: one for label, claim, one in table.rows if label == "published figures"}
    assert found["TVLARS beats LARS at every batch"].verdict == FAILS
    assert "-1.33 points at classification cifar10 4096" in found["TVLARS beats LARS at every batch"].figures
    assert "+2.06" in found["up to 2 % better in classification"].figures
    assert "+10.32" in found["up to 10 % better in self-supervised learning"].figures
    assert {one.verdict for label, _, one in table.rows if label != "published figures"} == {OPEN}
