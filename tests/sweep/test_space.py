import re

import numpy as np
import pytest
from scipy.stats import qmc
from support import configure

from lbt import build
from lbt.errors import UserError
from lbt.sweep.tuning import space

SPACE = {
    "fixed": {"schedule": "constant"},
    "axes": {
        "lr": {"log": [0.01, 10]},
        "warmup": {"linear": [0.1, 0.4], "epochs": True},
        "optimizer.momentum": {"log": [0.01, 0.1], "one_minus": True},
        "norm": {"choice": [{"model.norm": "batch"}, {"model.norm": "ghost", "model.ghost_size": 64}]},
    },
}


def test_trials_are_scipys_sequence_mapped_by_hand():
    """At the scrambled Sobol points, each range's formula written out in NumPy; four digits are kept."""
    sobol = qmc.Sobol(4, scramble=True, rng=np.random.default_rng(7)).random(16)
    parsed = space.parse("test", SPACE)
    trials = [parsed.trial(point, 20) for point in space.points(4, 16, 7)]
    wanted = {
        "lr": np.exp(np.log(0.01) + sobol[:, 0] * (np.log(10) - np.log(0.01))),
        "warmup": 20 * (0.1 + 0.3 * sobol[:, 1]),
        "optimizer.momentum": 1 - 10 ** (-2 + sobol[:, 2]),
    }
    for key, values in wanted.items():
        assert [float(trial[key]) for trial in trials] == pytest.approx(values, rel=6e-4)
    ghost = [trial["model.norm"] == "ghost" for trial in trials]
    assert ghost == list(sobol[:, 3] >= 0.5) and any(ghost) and not all(ghost)
    assert all(trial["schedule"] == "constant" for trial in trials)


@pytest.mark.parametrize(("short", "long"), [(32, 64), (5, 7), (1, 100)])
def test_a_longer_study_begins_with_the_shorter_one(short, long):
    assert np.array_equal(space.points(11, long, 3)[:short], space.points(11, short, 3))
    assert not np.array_equal(space.points(11, short, 4), space.points(11, short, 3))


def test_points_are_spread_more_evenly_than_random_ones():
    discrepancy = qmc.discrepancy(space.points(6, 32, 0))
    random = [qmc.discrepancy(np.random.default_rng(seed).random((32, 6))) for seed in range(20)]
    assert discrepancy < min(random)


def test_numbers_are_written_with_few_digits_and_no_exponent():
    drawn = space.parse("s", {"axes": {"lr": {"log": [1e-7, 1e-3]}}}).trial([0.123456789], 1)
    written = space.override("lr", drawn["lr"])
    assert written == f"lr={float(written[3:]):.10f}".rstrip("0") and len(written.strip("lr=0.")) <= 4
    assert space.override("a", [None, True, 1.5]) == "a=[null,true,1.5]"


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.999])
def test_position_is_the_inverse_of_draw(u):
    for axis in space.parse("test", SPACE).axes[:3]:
        (value,) = axis.draw(u, 20).values()
        assert axis.position(float(value), 20) == pytest.approx(u, abs=2e-3)


def test_elements_of_a_list_become_one_setting():
    betas = {"optimizer.betas[0]": {"linear": [0.8, 0.9]}, "optimizer.betas[1]": {"linear": [0.9, 1.0]}}
    parsed = space.parse("s", {"axes": betas})
    assert [float(beta) for beta in parsed.trial([0, 0.5], 1)["optimizer.betas"]] == [0.8, 0.95]
    assert parsed.keys == ["optimizer.betas"]


MISTAKES = [
    ({"lr": {"log": [10, 0.1]}}, "reversed or empty"),
    ({"lr": {"linear": [1, 1]}}, "reversed or empty"),
    ({"lr": {"log": [0, 1]}}, "positive bounds"),
    ({"lr": {"log": [-1, 1]}}, "positive bounds"),
    ({"lr": {"linear": [0, "high"]}}, "two numbers"),
    ({"lr": {"linear": [0, float("inf")]}}, "two numbers"),
    ({"lr": {"lg": [0.1, 1]}}, 'there is no "lg"; did you mean "log"'),
    ({"lr": {"log": [0.1, 1], "linear": [0, 1]}}, "exactly one of"),
    ({"lr": 3}, "expected a mapping"),
    ({"lr": {"choice": []}}, "list of options"),
    ({"n": {"choice": [1, {"model.norm": "batch"}]}}, "all values or all mappings"),
    ({"lr": {"choice": [1, 2], "epochs": True}}, "cannot be combined"),
    ({"m": {"log": [0.1, 2], "one_minus": True}}, "bounds of 0 to 1"),
    ({"lr": {"linear": [0, 1]}, "n": {"choice": [{"lr": 1}]}}, "lr is set twice"),
    ({}, "no axes"),
]


@pytest.mark.parametrize(("axes", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_wrong_space_is_one_line(axes, message):
    with pytest.raises(UserError, match=message) as caught:
        space.parse("wrong", {"axes": axes})
    assert "\n" not in str(caught.value) and "wrong" in str(caught.value)


def test_unknown_keys_and_spaces_and_zero_trials_are_mistakes():
    with pytest.raises(UserError, match='there is no "axis"; did you mean "axes"'):
        space.parse("wrong", {"axis": {}})
    with pytest.raises(UserError, match='there is no space "nesterof"; did you mean "nesterov"'):
        space.read("nesterof")
    with pytest.raises(UserError, match="n_trials=0: expected 1 or more"):
        space.points(3, 0, 0)


def test_elements_of_a_list_have_their_places_whatever_the_order():
    axes = {"betas[1]": {"linear": [0.9, 0.99]}, "lr": {"linear": [0, 1]}, "betas[0]": {"linear": [0.5, 0.6]}}
    drawn = space.parse("swapped", {"axes": axes}).trial([0.5, 0.5, 0.5], 1)
    assert [float(value) for value in drawn["betas"]] == pytest.approx([0.55, 0.945]) and float(drawn["lr"]) == 0.5


@pytest.mark.parametrize(
    ("fixed", "axes", "message"),
    [
        ({}, ["betas[1]"], r"betas\[1\]: all elements of a list are axes, from betas\[0\] on, or none"),
        ({}, ["betas[0]", "betas[2]"], r"betas\[0\]: all elements"),
        ({"betas": [0.9, 0.99]}, ["betas[0]"], r"betas\[0\]: all elements"),
        ({}, ["betas[first]"], r"betas\[first\] is no setting; an element of a list is betas\[0\]"),
    ],
)
def test_a_list_of_which_something_is_missing_is_a_mistake(fixed, axes, message):
    with pytest.raises(UserError, match=message):
        space.parse("wrong", {"fixed": fixed, "axes": {key: {"linear": [0, 1]} for key in axes}})


@pytest.mark.parametrize("name", space.names())
def test_both_corners_of_every_space_are_runs(name):
    """Every setting a space draws exists, and its optimizer and model take both ends of each range."""
    found = space.read(name)
    for u in (0.0, 0.999):
        drawn = found.trial([u] * len(found.axes), 30)
        words = [space.override(key, value) for key, value in drawn.items()]
        text = ["data=pydocs", "model=bert_tiny", "task=masked_language"] if name.endswith("_text") else []
        config = configure(f"optimizer={re.sub('_(text|short)$', '', name)}", "epochs=30", *text, *words)
        build.validate(config)
        assert config.peak_lr == float(drawn["lr"])


def test_a_star_in_a_spaces_name_is_the_optimizers():
    assert [space.of("lamb", name).name for name in (None, "*", "*_text", "adamw")] == [
        "lamb",
        "lamb",
        "lamb_text",
        "adamw",
    ]
    with pytest.raises(UserError, match='there is no space "lars_text"; did you mean "lamb_text"'):
        space.of("lars", "*_text")
