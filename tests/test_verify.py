"""The records are checked, and a recorded run is repeated from its record alone."""

import json
import math

import pytest
from planted import make
from support import StopAfter, run_tiny

from lbt import records
from lbt.cli import main
from lbt.verify import compare


@pytest.fixture
def recorded(tmp_path):
    return run_tiny(tmp_path)


def verify(results_dir, *words):
    return main(["verify", *words, "--results-dir", str(results_dir)])


def rewrite(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1].pop("sha256", None)
    change(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize("epochs", [1, 2, 4, 9])
def test_a_run_comes_out_bit_for_bit_and_leaves_nothing(tmp_path, recorded, capsys, epochs):
    before = sorted(tmp_path.rglob("*")), recorded.path.read_bytes()
    assert verify(tmp_path, recorded.id[:8], "--epochs", str(epochs)) == 0
    assert f"{recorded.id}: bit-equal after {min(epochs, 4)} of 4 epochs" in capsys.readouterr().out
    assert (sorted(tmp_path.rglob("*")), recorded.path.read_bytes()) == before


def test_small_maps_are_computed_as_they_were_when_the_record_was_made(tmp_path, capsys):
    """A ResNet on images all of whose maps are small; records from before do not say how they were computed."""
    words = ("model.name=resnet18", "epochs=1")
    before = run_tiny(tmp_path, *words, "small_maps=convolutions")
    rewrite(before.path, lambda lines: lines[0]["config"].pop("small_maps"))
    assert verify(tmp_path, before.id) == 0
    assert "bit-equal" in capsys.readouterr().out
    rewrite(before.path, lambda lines: lines[0]["config"].update(small_maps="products"))
    verify(tmp_path, before.id)
    assert "bit-equal" not in capsys.readouterr().out


def test_other_figures_are_different(tmp_path, recorded, capsys):
    rewrite(recorded.path, lambda lines: lines[1].update(train_loss=lines[1]["train_loss"] * 1.01))
    assert verify(tmp_path, recorded.id) == 1
    said = capsys.readouterr().out
    assert "epoch 1 train_loss: recorded" in said and "different after 1 of 4 epochs" in said


def test_rounding_is_said(tmp_path, recorded, capsys):
    rewrite(recorded.path, lambda lines: lines[1].update(train_loss=lines[1]["train_loss"] * (1 + 1e-6)))
    assert verify(tmp_path, recorded.id) == 0
    assert "within rounding" in capsys.readouterr().out


def test_without_a_run_all_records_are_checked_and_one_is_repeated(tmp_path, recorded, capsys):
    assert verify(tmp_path) == 0
    said = capsys.readouterr().out
    assert "1 records: 0 wrong" in said and "bit-equal" in said
    rewrite(recorded.path, lambda lines: lines[-1]["summary"].update(epochs=3))
    assert verify(tmp_path) == 1
    assert f"{recorded.path}: its end counts 3 epochs" in capsys.readouterr().out


def test_other_data_are_no_repetition(tmp_path, capsys):
    path = make(tmp_path, 90.0, "optimizer=lars")
    assert verify(tmp_path, path.stem) == 2
    assert "was made from other data" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["0" * 16, "", "missing.jsonl"])  # none, all, no file
def test_an_unknown_run_is_one_line(tmp_path, recorded, capsys, named):
    run_tiny(tmp_path, "seed=1")
    assert verify(tmp_path, named) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_without_a_whole_epoch_cannot_be_compared(tmp_path, capsys):
    stopped = run_tiny(tmp_path, interrupt=StopAfter(1))
    assert records.read(stopped.path).epochs == []
    assert verify(tmp_path, stopped.id) == 2
    assert "no whole epoch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("precision", "key", "recorded", "made", "verdict"),
    [
        ("fp32", "train_loss", 2.0, 2.0, "bit-equal"),
        ("fp32", "train_loss", None, None, "bit-equal"),
        ("fp32", "wall_train_seconds", 2.0, 3.0, "bit-equal"),
        ("fp32", "train_loss", 2.0, 2.0001, "within rounding"),
        ("fp32", "train_loss", 2.0, 2.001, "different"),
        ("bf16", "train_loss", 2.0, 2.001, "within rounding"),
        ("bf16", "train_loss", 2.0, 2.1, "different"),
        ("fp32", "test_accuracy", 14.249999999999998, 14.25, "bit-equal"),  # 57 of 400
        ("fp32", "train_loss", 14.249999999999998, 14.25, "within rounding"),
        ("fp32", "test_accuracy", 60.0, 60.04, "within rounding"),
        ("fp32", "test_accuracy", 60.0, 60.1, "different"),
        ("fp32", "train_loss", 2.0, None, "different"),
        ("fp32", "step", 13, 14, "different"),
        ("fp32", "test_perplexity", math.exp(8.0), math.exp(8.0004), "within rounding"),
        ("fp32", "test_perplexity", math.exp(8.0), math.exp(8.004), "different"),
        ("fp32", "batch_norm", {"change": 0.1}, {"change": 0.10001}, "within rounding"),
        ("fp32", "batch_norm", {"change": 0.1}, None, "different"),
    ],
)
def test_what_counts_as_rounding(precision, key, recorded, made, verdict):
    assert compare([{key: recorded}], [{key: made}], precision)[0] == verdict
