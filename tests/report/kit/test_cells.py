import json
from dataclasses import replace

import pytest
from planted import make, plant
from support import configure

from lbt import records, runtime
from lbt.report.frame import load
from lbt.report.kit.cells import make_cells

KEYS = ("batch", "optimizer.name")


def cells(folder, keys=KEYS):
    return make_cells(load(folder).runs, keys, "test_accuracy")


@pytest.mark.parametrize(
    "other", ["bias_lr_factor=0", "optimizer.momentum=0.8", "grad_clip=1", "ema=0.5", "schedule=constant"]
)
def test_runs_of_two_configurations_are_never_averaged(tmp_path, other):
    base = ("optimizer=lars", "batch=64")
    make(tmp_path, 80.0, *base, "seed=0")
    make(tmp_path, 20.0, *base, "seed=1", other)
    assert len({run["id"] for run in map(_first, tmp_path.rglob("*.jsonl"))}) == 2
    (cell,) = cells(tmp_path)
    assert cell.differing and cell.text() == "mixed settings"
    assert cell.notes() and cell.figures()["n"] == 0


def _first(path):
    return records.read(path).run


@pytest.mark.parametrize(
    ("settings", "other"),
    [("cuda_graph", True), ("compile", True), ("device", "cuda"), ("deterministic", True), ("time_budget", "1h")],
)
def test_what_is_no_part_of_a_runs_identity_splits_no_cell(tmp_path, settings, other):
    make(tmp_path, 80.0, "optimizer=lars", "batch=64", "seed=0")
    path = make(tmp_path, 82.0, "optimizer=lars", "batch=64", "seed=1")
    first, *lines = path.read_text().splitlines()
    run = json.loads(first)
    run["config"][settings] = other
    writer = records.RecordWriter(path, [json.dumps(run), *lines[:-1]])
    writer.end("done", json.loads(lines[-1])["summary"])
    assert not load(tmp_path).problems
    (cell,) = cells(tmp_path)
    assert sorted(cell.values) == [80.0, 82.0] and not cell.differing


def test_cells_are_in_order_whatever_kinds_of_values_their_keys_have(tmp_path):
    make(tmp_path, 80.0, "optimizer=tvlars", "batch=64")  # has a lambda, the others have none
    make(tmp_path, 81.0, "optimizer=lars", "batch=64")
    make(tmp_path, 82.0, "optimizer=adam", "lr=0.001", "batch=64")
    found = cells(tmp_path, ("optimizer.lam", "optimizer.betas", "optimizer.name"))
    assert [cell.key["optimizer.name"] for cell in found] == ["lars", "adam", "tvlars"]


def test_a_cell_of_finished_and_diverged_runs_counts_these_as_chance(tmp_path):
    """80, 90 and 10 for the run that was left with 55: mean 60, standard deviation sqrt(1900)."""
    for seed, (accuracy, status) in enumerate([(80.0, "done"), (90.0, "done"), (55.0, "diverged")]):
        make(tmp_path, accuracy, "optimizer=lars", "batch=64", f"seed={seed}", status=status)
    (cell,) = cells(tmp_path)
    assert cell.text() == "60.00 ± 43.59 (n=3, 1 diverged at 10 %)"
    assert cell.worth() == 60.0 and cell.figures()["mean"] == "60.0000" and cell.figures()["n"] == 3
    (of_loss,) = make_cells(load(tmp_path).runs, KEYS, "test_loss")
    assert of_loss.text() == "2 done without test_loss, 1 diverged"


def test_a_cell_whose_runs_all_diverged_has_no_mean(tmp_path):
    make(tmp_path, 55.0, "optimizer=lars", "batch=64", status="diverged")
    (cell,) = cells(tmp_path)
    assert (cell.text(), cell.mean, cell.values) == ("1 diverged", None, [])


@pytest.mark.parametrize(("last", "noted"), [((70.0, 74.0, 70.0, 74.0, 70.0), True), ((70.0,) * 5, False)])
def test_the_last_five_epochs_stand_beside_the_last_one(tmp_path, last, noted):
    config = replace(runtime.settle(configure("+experiment=quickstart", "precision=fp32", "epochs=30")), batch=64)
    plant(tmp_path, config, [60.0] * 25 + list(last))
    (cell,) = cells(tmp_path)
    mean = sum(last) / 5
    assert cell.figures()["last5_mean"] == f"{mean:.4f}"
    said = [f"oscillates at batch 64, optimizer.name {config.optimizer['name']}: last epoch 70.00, "
            f"mean of the last 5 epochs {mean:.2f}"]  # fmt: skip
    assert cell.notes() == (said if noted else [])
