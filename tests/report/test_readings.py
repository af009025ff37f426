"""What a printed rate may mean: each run stands under the readings whose peak it has."""

import pandas as pd
import pytest

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
