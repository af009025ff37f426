"""What a printed rate may mean: each run stands under the readings whose peak it has."""

import math

import pandas as pd
import pytest
from planted import make

from lbt.report import tables
from lbt.report.frame import load
from lbt.report.tables.readings import COLUMN, placed

READINGS = ["paper", "released", "plain", "ladder"]


def stands(optimizer, batch, peak, protocol="released"):
    """{reading: printed rate} of one run."""
    run = {"optimizer.name": optimizer, "batch": batch, "peak_lr": peak, "protocol.name": protocol, "lr": 0.123}
    found = placed(pd.DataFrame([run]), READINGS)
    return dict(zip(found[COLUMN], found["lr"], strict=True))


def test_a_scaled_run_stands_at_its_printed_rate():
    assert stands("lars", 4096, 8 * 16) == {"released": 8.0}
    assert stands("lars", 4096, 8 * 16, "paper") == {"paper": 8.0}
    assert stands("lamb", 16384, 17 * 64) == {"released": 17.0}


def test_one_run_may_answer_two_readings_at_other_printed_rates():
    # Batch 512: a peak of 1 is the lowest rate if plain and the third column, 0.5 times 2, if the ladder's.
    assert stands("lars", 512, 1.0) == {"plain": 1.0, "ladder": 3.0}
    assert stands("lars", 4096, 8.0) == {"plain": 8.0, "ladder": 10.0}
    assert stands("lars", 512, 2.0) == {"released": 1.0, "plain": 2.0}


def test_the_ladder_ends_where_the_published_cell_collapsed():
    assert stands("lars", 16384, 32.0) == {"ladder": 19.0}
    assert stands("lars", 16384, 19.0) == {"plain": 19.0}


def test_readings_that_say_nothing_new_of_an_optimizer_are_left_out():
    assert stands("tvlars", 512, 1.0) == {"released": 1.0}  # plain in the released code already
    assert stands("lamb", 16384, 15.0) == {"plain": 15.0}  # not the ladder's, too: it is LARS's alone


def test_a_run_at_no_printed_rate_has_no_place():
    assert stands("lars", 512, 1.5) == {} and stands("lars", 600, 1.0) == {}
    assert stands("lars", 512, 1.0, "paper") == {}


@pytest.mark.parametrize("runs", [[], [("lars", 512, 7.77)]])
def test_nothing_to_place_leaves_the_columns(runs):
    columns = ["optimizer.name", "batch", "peak_lr", "protocol.name", "lr"]
    frame = pd.DataFrame([(*run, "released", 1.0) for run in runs], columns=columns)
    assert list(placed(frame, READINGS).columns) == [*columns, COLUMN]


def test_a_diverged_cell_is_as_far_from_the_published_one_as_chance(tmp_path):
    """Batch 512: LARS's printed 74.64 and 77.49."""
    where = "protocol=released", "protocol.schedule_lag=0", "optimizer=lars", "data=cifar10", "epochs=100", "batch=512"
    for rank, (accuracy, status) in enumerate([(72.64, "done"), (None, "diverged")]):
        words = "model=resnet18", "schedule=warmup_cosine", f"lr={1 + rank}", "lr_scaling=linear"
        make(tmp_path, accuracy, *where, *words, status=status, folder="tvlars_table1_cifar10_clf")
    (said,) = [
        note
        for section in tables.make("tvlars_table1", load(tmp_path)).page().sections
        for note in section.notes
        if note.startswith("ours, released protocol, LARS")
    ]
    root = math.sqrt((2**2 + 67.49**2) / 2)
    assert (
        f"{root:.2f} points from the published figures (root mean square of 2 of 18 cells, 1 of them diverged" in said
    )
