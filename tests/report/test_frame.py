"""What the frame takes for a repetition and what for a contradiction, and what it says of the code behind a run."""

import json
import math

import numpy as np
import pytest
from planted import make

from lbt.report.frame import load


def plant_again(path, results_dir, change):
    """Writes a changed copy of a record, without checksum, into another experiment's folder."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[-1]["sha256"]
    change(lines)
    other = results_dir / "runs" / "zzz" / path.name
    other.parent.mkdir()
    other.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def set_accuracy(value):
    def change(lines):
        for line in lines[1:-1]:
            line["test_accuracy"] = value
        lines[-1]["summary"]["test_accuracy"] = value

    return change


@pytest.mark.parametrize("again", [42.69999, 42.7000001])
def test_a_rerun_that_agrees_within_rounding_is_a_repetition(tmp_path, again):
    plant_again(make(tmp_path, 42.7, "optimizer=lars"), tmp_path, set_accuracy(again))
    frame = load(tmp_path)
    assert not frame.problems and [row["test_accuracy"] for row in frame.runs["summary"]] == [42.7]


@pytest.mark.parametrize("again", [42.71, 42.0, None])
def test_one_image_more_is_a_contradiction(tmp_path, again):
    plant_again(make(tmp_path, 42.7, "optimizer=lars"), tmp_path, set_accuracy(again))
    frame = load(tmp_path)
    assert frame.runs.empty and "differs" in frame.problems[0]


def test_curves_that_differ_on_the_way_are_a_contradiction(tmp_path):
    plant_again(make(tmp_path, 42.7, "optimizer=lars"), tmp_path, lambda lines: lines[2].update(test_accuracy=60.0))
    assert load(tmp_path).runs.empty


def test_what_says_how_a_run_was_executed_is_no_figure(tmp_path):
    def executed(lines):
        lines[-1]["summary"]["compile"] = "compiled"

    plant_again(make(tmp_path, 42.7, "optimizer=lars"), tmp_path, executed)
    assert len(load(tmp_path).runs) == 1


@pytest.mark.parametrize(("dirty", "said"), [("true", "+changes"), ("false", ""), ("null", " (changes unknown)")])
def test_whether_the_code_had_changes_is_said_or_said_to_be_unknown(tmp_path, dirty, said):
    path = make(tmp_path, 42.7, "optimizer=lars")
    lines = path.read_text().splitlines()
    end = json.loads(lines[-1])
    del end["sha256"]
    text = lines[0].replace('"dirty": false', f'"dirty": {dirty}')
    path.write_text("\n".join([text, *lines[1:-1], json.dumps(end)]) + "\n")
    assert list(load(tmp_path).runs["commit"]) == [f"0123456789{said}"]


def test_runs_that_differ_in_the_seed_alone_keep_their_own(tmp_path):
    for seed in (0, 1, 7):
        make(tmp_path, 40.0 + seed, "optimizer=lars", f"seed={seed}")
    make(tmp_path, 20.0, "optimizer=lamb", "seed=7")
    runs = load(tmp_path).runs
    assert sorted(zip(runs["optimizer.name"], runs["seed"], strict=True)) == [
        ("lamb", 7), ("lars", 0), ("lars", 1), ("lars", 7),
    ]  # fmt: skip
    assert [one.get("seed") for one in runs.sort_values("seed")["settings"]][:2] == [None, 1]
    assert {name for one in runs["settings"] for name in one} >= {"optimizer.name", "batch"}
    assert all(math.isclose(np.nanmax(curve), curve[-1]) for curve in runs["curve"])
