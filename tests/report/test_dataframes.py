"""Records as pandas tables: what a plain reading of the files says, and what reports leave out."""

import json
import math
import shutil
import warnings

import pytest
from planted import make

import lbt
from lbt import records
from lbt.report import frame


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two optimizers, one with two seeds, one of these recorded for a second experiment, too, and one unfinished."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        path = make(folder, 40.0 + seed, "optimizer=tvlars", f"seed={seed}")
    make(folder, None, "optimizer=lamb", "batch=1024", status="diverged", folder="other")
    make(folder, 7.0, "optimizer=lamb", "seed=5", status=None)
    records.copy(path, folder / "runs" / "other" / path.name)
    return folder


def read(results):
    """Each run's lines by its id, from the files alone."""
    paths = sorted(results.glob("runs/*/*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}


def test_a_row_is_what_the_record_says(results):
    table, expected = lbt.runs(results), read(results)
    assert list(table["id"]) == sorted(expected) and len(expected) == 4
    for row in table.to_dict("records"):
        first, *_, last = expected[row["id"]]
        config, made_by = first["config"], first["provenance"]
        for name in ("batch", "lr", "peak_lr", "epochs", "seed"):
            assert row[name] == config[name]
        for group, name in (("optimizer", "name"), ("schedule", "name"), ("data", "augment")):
            assert row[f"{group}.{name}"] == config[group][name]
        for name in ("commit", "dirty", "torch", "device_name", "data_fingerprint"):
            assert row[name] == made_by[name]
        assert row["status"] == last.get("status", "unfinished")
        figure = last["summary"]["test_accuracy"] if "summary" in last else None
        assert row["test_accuracy"] == figure or (figure is None and math.isnan(row["test_accuracy"]))
        assert row["epochs_done"] == sum(line["kind"] == "epoch" for line in expected[row["id"]])
    assert table.columns.is_unique and "end_epochs" not in table


def test_a_run_of_two_experiments_is_one_row_of_both(results):
    table = lbt.runs(results)
    both = table[table["experiments"].map(len) == 2]
    assert list(both["experiments"]) == [("other", "quickstart")] and list(both["seed"]) == [1]
    assert len(lbt.runs(results, experiment="other")) == 2
    assert len(lbt.runs(results, experiment="quick*")) == 3
    assert len(lbt.runs(results, experiment=["other", "quickstart"])) == len(table) == 4


def test_runs_are_chosen_by_any_column(results):
    assert list(lbt.runs(results, where={"batch": 1024})["optimizer.name"]) == ["lamb"]
    assert set(lbt.runs(results, where={"seed": [0, 5]})["seed"]) == {0, 5}
    assert set(lbt.runs(results, where={"status": "done", "optimizer.name": "tv*"})["seed"]) == {0, 1}
    assert len(lbt.runs(results, where={"optimizer.lam": None})) == 2  # LAMB has no such setting
    assert lbt.runs(results, where={"batch": 77}).empty


def test_an_epoch_is_a_row_with_its_runs_settings(results):
    table, expected = lbt.epochs(results), read(results)
    lines = [(name, line) for name, of_run in sorted(expected.items()) for line in of_run if line["kind"] == "epoch"]
    assert [(name, line["epoch"]) for name, line in lines] == list(zip(table["id"], table["epoch"], strict=True))
    for (name, line), row in zip(lines, table.to_dict("records"), strict=True):
        config = expected[name][0]["config"]
        assert row["test_accuracy"] == line["test_accuracy"] or line["test_accuracy"] is None
        assert (row["batch"], row["optimizer.name"], row["seed"]) == (
            config["batch"], config["optimizer"]["name"], config["seed"],
        )  # fmt: skip
    assert set(lbt.epochs(results, where={"seed": 5})["status"]) == {"unfinished"}


def test_an_epochs_own_rate_and_batch_stand_beside_the_settings(tmp_path):
    path = make(tmp_path, 40.0, "optimizer=lars", "epochs=2")
    lines = path.read_text().splitlines()
    first = json.loads(lines[1]) | {"lr": 0.25, "batch": 9, "some_probe": {"angle": 3.0, "angles": [1.0, 2.0]}}
    end = json.loads(lines[-1])
    del end["sha256"]
    path.write_text("\n".join([lines[0], json.dumps(first), *lines[2:-1], json.dumps(end)]) + "\n")
    row = lbt.epochs(tmp_path).iloc[0]
    config = json.loads(lines[0])["config"]
    assert (row["epoch_lr"], row["epoch_batch"], row["some_probe.angle"]) == (0.25, 9, 3.0)
    assert (row["lr"], row["batch"]) == (config["lr"], config["batch"])
    assert "some_probe.angles" not in row


def test_what_reports_leave_out_is_left_out_and_named(results, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    path = records.paths(folder)[0]
    path.write_text(path.read_text().replace('"torch": "2', '"torch": "3'))
    with pytest.warns(UserWarning, match="left out: .*edited") as caught:
        table = lbt.runs(folder)
    assert caught[0].filename == __file__
    assert table.attrs["left_out"] == frame.load(folder).problems and len(table.attrs["left_out"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sorted(table["id"]) == sorted(set(lbt.epochs(folder)["id"])) == sorted(frame.load(folder).runs["id"])


def test_suspect_records_are_kept_and_named(tmp_path):
    path = make(tmp_path, 40.0, "optimizer=lars", "precision=bf16")
    lines = path.read_text().splitlines()
    end = json.loads(lines[-1])
    del end["sha256"]
    text = lines[0].replace('"provenance": {', '"provenance": {"device": "cpu", ')
    path.write_text("\n".join([text, *lines[1:-1], json.dumps(end)]) + "\n")
    with pytest.warns(UserWarning, match=f"suspect.*{path.stem}"):
        table = lbt.runs(tmp_path)
    assert list(table["suspect"]) == [True]


def test_a_folder_without_records_gives_empty_tables(tmp_path):
    assert lbt.runs(tmp_path).empty and lbt.epochs(tmp_path).empty
    assert {"id", "experiments", "status"} <= {*lbt.runs(tmp_path)} & {*lbt.epochs(tmp_path)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": {"optimiser.name": "lars"}}, 'did you mean "optimizer.name"'),
        ({"experiment": "quikstart"}, 'did you mean "quickstart"'),
        ({"results_dir": "nowhere"}, "nowhere: no such folder"),
    ],
)
@pytest.mark.parametrize("table", [lbt.runs, lbt.epochs])
def test_a_mistake_is_one_line(results, table, options, said):
    with pytest.raises(lbt.UserError, match=said):
        table(**{"results_dir": results, **options})


def test_plug_ins_are_one_text(tmp_path):
    path = make(tmp_path, 40.0, "optimizer=tvlars")
    lines = path.read_text().splitlines()
    first = json.loads(lines[0])
    first["provenance"]["plugins"] = [{"name": "mine", "version": None, "sha256": "1" * 64}]
    path.unlink()
    writer = records.RecordWriter(path, [records.to_line(first), *lines[1:-1]])
    writer.end("done", json.loads(lines[-1])["summary"])
    table = lbt.runs(tmp_path)
    assert list(table["plugins"]) == ["mine 1111111111"]
    assert len(lbt.runs(tmp_path, where={"plugins": "mine*"})) == 1
