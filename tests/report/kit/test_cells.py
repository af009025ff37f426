import json

import pytest
from planted import make

from lbt import records
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
