import copy
import csv
import io
import json
import statistics

import pytest
from support import configure

from lbt import records, runtime
from lbt.cli import main
from lbt.config import identity, run_id, to_json
from lbt.report.frame import load
from lbt.report.tables import Table, names, write_tables

PROVENANCE = {
    "lbt": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.11.0", "device_name": "a machine",
    "data": "digits (scikit-learn)", "data_fingerprint": "f" * 16,
}  # fmt: skip


def make(results_dir, accuracy, *overrides, status="done", fingerprint="f" * 16, experiment="quickstart", run=None):
    """Writes a record as a run of this configuration would have left it."""
    config = runtime.settle(configure(f"+experiment={experiment}", "precision=fp32", *overrides))
    name = run or run_id(identity(config), fingerprint)
    made_by = {**PROVENANCE, "data_fingerprint": fingerprint, "data": f"data {fingerprint[0]}"}
    first = {"kind": "run", "schema": 1, "id": name, "config": to_json(config), "provenance": made_by}
    writer = records.RecordWriter(records.path_of(results_dir, config.experiment, name), [records.to_line(first)])
    writer.append({"kind": "epoch", "epoch": 1, "step": 1, "test_accuracy": accuracy})
    if status:
        writer.end(status, {"epochs": 1, "test_accuracy": accuracy, "wall_seconds": 1.0})
    return writer.path


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def quickstart(results_dir):
    return Table("quickstart", load(results_dir))


def test_mean_spread_and_n(tmp_path):
    values = [91.25, 93.5, 96.0]
    for seed, value in enumerate(values):
        make(tmp_path, value, "optimizer=lars", "batch=64", f"seed={seed}")
    table = quickstart(tmp_path)
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    assert f"{mean:.2f} ± {spread:.2f} (n=3)" in table.markdown()
    (row,) = [row for row in rows(table.csv()) if row["n"] != "0"]
    assert (float(row["mean"]), float(row["sd"])) == pytest.approx((mean, spread), abs=1e-4)
    assert (float(row["min"]), float(row["max"])) == (91.25, 96.0)
    assert len(row["runs"].split()) == 3


def test_a_single_run_has_no_spread(tmp_path):
    make(tmp_path, 91.0, "optimizer=lars", "batch=64")
    assert "91.00 (n=1)" in quickstart(tmp_path).markdown()
    assert "±" not in quickstart(tmp_path).markdown().split("mean ±")[0]


def test_diverged_unfinished_and_missing_cells_are_shown_as_such(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", "seed=0")
    make(tmp_path, None, "optimizer=lars", "batch=64", "seed=1", status="diverged")
    make(tmp_path, None, "optimizer=lamb", "batch=64", status="diverged")
    make(tmp_path, 50.0, "optimizer=tvlars", "batch=64", status=None)
    text = quickstart(tmp_path).markdown()
    assert "| 64 | - | 90.00 (n=1, 1 diverged) | 1 diverged | 1 unfinished |" in text
    assert "| 512 | - | - | - | - |" in text
    missing = [row for row in rows(quickstart(tmp_path).csv()) if row["status"] == "missing"]
    assert len(missing) == 5


def test_figures_on_different_data_never_share_a_table(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", fingerprint="a" * 16)
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "seed=1", fingerprint="b" * 16)
    text = quickstart(tmp_path).markdown()
    assert "90.00 (n=1)" in text and "10.00 (n=1)" in text and "50.00" not in text
    assert f"data a (pixels {'a' * 16})" in text and f"data b (pixels {'b' * 16})" in text


def test_figures_of_different_lengths_never_share_a_table(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", "epochs=5")
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "epochs=6", "seed=1")
    text = quickstart(tmp_path).markdown()
    assert "90.00 (n=1)" in text and "10.00 (n=1)" in text and "5 epochs" in text and "6 epochs" in text


def test_a_cell_of_mixed_settings_shows_no_figure_and_names_them(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "optimizer.eta=0.01", "seed=1")
    table = quickstart(tmp_path)
    assert "mixed settings |" in table.markdown()
    assert "optimizer.eta: 0.001 | 0.01" in table.markdown()
    assert "90.00" not in table.markdown()
    (row,) = [row for row in rows(table.csv()) if row["runs"]]
    assert (row["n"], row["mean"], row["status"]) == ("0", "", "mixed")


def test_a_damaged_record_is_named_and_left_out(tmp_path, capsys):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    path = make(tmp_path, 10.0, "optimizer=lars", "batch=64", "seed=1")
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    assert write_tables(["quickstart"], tmp_path) == 0
    assert str(path) in capsys.readouterr().err
    text = (tmp_path / "tables" / "quickstart.md").read_text()
    assert "90.00 (n=1)" in text and f"left out: {path}" in text


def test_copies_of_one_run_count_once_and_contradicting_ones_not_at_all(tmp_path):
    path = make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    other = tmp_path / "runs" / "copied" / path.name
    other.parent.mkdir()
    other.write_text(path.read_text())
    assert len(load(tmp_path).runs) == 1 and not load(tmp_path).problems
    other.write_text(path.read_text().replace("90.0", "99.0"))
    frame = load(tmp_path)
    assert frame.runs.empty and "differs" in frame.problems[0]


def test_published_values_stand_beside_ours_in_their_own_columns(tmp_path):
    make(tmp_path, 80.0, "data=cifar10", "optimizer=tvlars", "batch=16384", "lr=17", "epochs=100", "protocol=released")
    table = Table("tvlars_table1", load(tmp_path))
    header = "| batch | lr | lars published | lars paper | lars released | lamb published |"
    assert header in table.markdown()
    line = next(line for line in table.markdown().splitlines() if line.startswith("| 16384 | 17 |"))
    assert line == "| 16384 | 17 | 80.62 | - | - | 11.97 | - | - | 80.42 | - | 80.00 (n=1) |"
    found = [row for row in rows(table.csv()) if row["runs"]]
    assert [(row["mean"], row["published"]) for row in found] == [("80.0000", "80.42")]


def test_runs_of_another_length_do_not_enter_table_1(tmp_path):
    make(tmp_path, 80.0, "data=cifar10", "optimizer=tvlars", "batch=16384", "lr=17", "epochs=10")
    assert Table("tvlars_table1", load(tmp_path)).runs.empty


def test_all_published_cells_are_in_table_1(tmp_path):
    table = Table("tvlars_table1", load(tmp_path))
    published = [row["published"] for row in rows(table.csv()) if row["published"]]
    assert len(published) == 216 * 2  # beside each protocol
    assert table.markdown().count("No run yet.") == 4


@pytest.mark.parametrize("name", names())
def test_the_same_records_give_the_same_bytes(tmp_path, name):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    first = Table(name, load(tmp_path))
    again = Table(name, load(tmp_path))
    assert (first.markdown(), first.csv()) == (again.markdown(), again.csv())


def test_the_command_writes_what_has_runs_and_says_where(tmp_path, capsys):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    assert main(["tables", "--results-dir", str(tmp_path)]) == 0
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["quickstart.csv", "quickstart.md"]
    assert "quickstart.md" in capsys.readouterr().out


def test_no_results_is_one_line(tmp_path, capsys):
    assert main(["tables", "--results-dir", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_record_of_an_older_program_is_read(tmp_path):
    """A setting that did not exist yet is absent from the record; it must not keep the run out of its cell."""
    path = make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    first, *rest = path.read_text().splitlines()
    older = copy.deepcopy(json.loads(first))
    del older["config"]["model"]["ghost_size"]
    path.write_text("\n".join([json.dumps(older), *rest]) + "\n")
    make(tmp_path, 92.0, "optimizer=lars", "batch=64", "seed=1")
    assert "91.00 ± 1.41 (n=2)" in quickstart(tmp_path).markdown()
