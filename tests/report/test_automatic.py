"""Tables and figures of a sweep that no file describes."""

import csv
import io
import json
import re
import statistics
from dataclasses import replace

import pytest
from planted import plant
from support import TINY, configure

from lbt import records
from lbt.cli import main
from lbt.report.figures import _described
from lbt.report.frame import load
from lbt.report.layout import Wanted, choose
from lbt.report.tables import make as make_table

LARS = {"name": "lars", "momentum": 0.9, "eta": 0.001}
SGD = {"name": "nesterov", "momentum": 0.9}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def base():
    return replace(configure(*TINY), experiment="mine")


def accuracy(name, batch, lr, seed):
    return 60 + 10 * (name == "lars") - batch / 4 + 20 * lr + seed / 2


@pytest.fixture(scope="module")
def results(tmp_path_factory, base):
    """Two optimizers at two batches and two rates; one rate diverges, one seed is missing, one cell is."""
    folder = tmp_path_factory.mktemp("named")
    for optimizer in (LARS, SGD):
        for batch in (8, 16):
            for lr in (0.1, 0.2):
                for seed in SEEDS:
                    name = optimizer["name"]
                    if (name, batch) == ("lars", 16) or (name, batch, lr, seed) == ("lars", 8, 0.2, 2):
                        continue
                    lost = (name, batch, lr) == ("nesterov", 16, 0.2) or (name, batch, lr, seed) == ("lars", 8, 0.2, 1)
                    config = replace(base, optimizer=optimizer, batch=batch, lr=lr, seed=seed)
                    value = None if lost else accuracy(name, batch, lr, seed)
                    plant(folder, config, value, status="diverged" if lost else "done")
    return folder


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines if "---" not in line]


def written(results, capsys, *words):
    assert main(["tables", "mine", *words, "--results-dir", str(results)]) == 0
    text = (results / "tables" / "mine.md").read_text()
    assert text in capsys.readouterr().out
    return text


def shown(values):
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} (n={len(values)}"


def test_optimizers_are_columns_batches_rows_and_each_cell_has_the_best_of_its_rates(results, capsys):
    text = written(results, capsys)
    header, *rows = cells(text)
    assert header == ["batch", "lars", "nesterov"]
    of = {batch: dict(zip(header[1:], row, strict=True)) for batch, *row in rows}
    # lars at rate 0.2: a diverged seed beside a good one; its mean is worse than that of rate 0.1
    assert of["8"]["lars"] == shown([accuracy("lars", 8, 0.1, seed) for seed in SEEDS]) + ") at lr 0.1"
    assert of["8"]["nesterov"] == shown([accuracy("nesterov", 8, 0.2, seed) for seed in SEEDS]) + ") at lr 0.2"
    assert of["16"]["nesterov"] == shown([accuracy("nesterov", 16, 0.1, seed) for seed in SEEDS]) + ") at lr 0.1"
    assert of["16"]["lars"] == "-"
    assert "Each figure is the best of its lr, chosen on test data." in text
    assert "differ in optimizer (lars, nesterov), batch (8, 16), lr (0.1, 0.2), seed (0, 1, 2)" in text
    assert text.rstrip().endswith("Made by `lbt tables mine`.")
    rows = list(csv.DictReader(io.StringIO((results / "tables" / "mine.csv").read_text())))
    assert [(row["batch"], row["optimizer.name"], row["lr"], row["n"], row["status"]) for row in rows] == [
        ("8", "lars", "0.1", "3", "done:3"), ("8", "nesterov", "0.2", "3", "done:3"),
        ("16", "nesterov", "0.1", "3", "done:3"), ("16", "lars", "", "0", "missing"),
    ]  # fmt: skip
    assert (results / "tables" / "mine.tex").exists()


def test_the_command_changes_what_stands_where(results, capsys):
    options = ["--rows", "lr,batch", "--columns", "optimizer", "--metric", "test_accuracy"]
    text = written(results, capsys, *options)
    header, *rows = cells(text)
    assert header == ["lr", "batch", "lars", "nesterov"]
    assert [row[:2] for row in rows] == [["0.1", "8"], ["0.1", "16"], ["0.2", "8"], ["0.2", "16"]]
    assert rows[3][2:] == ["-", "3 diverged"] and "(n=2, 1 diverged" in rows[2][2]
    assert "best of" not in text
    made_by = re.search(r"Made by `lbt tables mine(.*)`", text)[1]
    assert made_by == " --rows lr,batch --columns optimizer --metric test_accuracy"
    assert "| batch | lars | nesterov |" in written(results, capsys, "--best", "lr")  # what was found by itself


def test_a_name_that_a_file_describes_is_the_files(tmp_path, base, capsys):
    plant(tmp_path, replace(base, experiment="quickstart", optimizer=LARS), 50.0)
    assert main(["tables", "quickstart", "--results-dir", str(tmp_path)]) == 0
    assert "Quickstart: four optimizers" in capsys.readouterr().out
    assert main(["tables", "quickstart", "--rows", "lr", "--results-dir", str(tmp_path)]) == 2
    assert "--rows: what table quickstart shows is said by its file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tables", "mien"], 'there is no table, study or sweep "mien"; did you mean "mine"?'),
        (["tables", "quickstat"], 'did you mean "quickstart"?'),
        (["plots", "mien"], 'there is no figure, study or sweep "mien"; did you mean "mine"?'),
        (["tables", "mine", "--rows", "bach"], '--rows bach: none of the runs has such a setting; did you mean'),
        (["tables", "mine", "--columns", "xyz"], "such a setting; choose from batch, lr, optimizer.name"),
        (["tables", "mine", "--metric", "accuracy"], '--metric accuracy: none of the runs has such a figure; did you'),
        (["plots", "--best", "lr"], "--best: name the sweep that it is for"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(results, capsys, words, message):
    assert main([*words, "--results-dir", str(results)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def layout(results_dir, base, *changes):
    for number, change in enumerate(changes):
        plant(results_dir, replace(base, experiment="other", optimizer=SGD, **change), 40.0 + number)
    return choose(load(results_dir).runs, Wanted())


@pytest.mark.parametrize(
    ("changes", "rows", "columns", "best", "sections"),
    [
        ([{"lr": 0.1}, {"lr": 0.2}], ["lr"], ["optimizer.name"], [], []),
        ([{"ema": 0.5}, {"ema": 0.9}], ["ema"], ["optimizer.name"], [], []),
        ([{"lr": lr, "ema": ema} for lr in (0.1, 0.2) for ema in (0.5, 0.9)], ["ema"], ["optimizer.name"], ["lr"], []),
        ([{"batch": b, "ema": ema} for b in (8, 16) for ema in (None, 0.9)], ["batch"], ["ema"], [], []),
        ([{"batch": 8}, {"batch": 16, "epochs": 2}], ["batch"], ["optimizer.name"], [], ["epochs"]),
        ([{}], ["batch"], ["optimizer.name"], [], []),
    ],
)
def test_where_batches_or_optimizers_do_not_vary_others_take_their_place(
    tmp_path, base, changes, rows, columns, best, sections
):
    found = layout(tmp_path, base, *changes)
    assert (found.rows, found.columns, found.best, found.sections) == (rows, columns, best, sections)


def test_runs_of_two_lengths_have_parts_of_their_own(tmp_path, base):
    for epochs in (2, 4):
        plant(tmp_path, replace(base, epochs=epochs, optimizer=LARS), 50.0)
    page = make_table("mine", load(tmp_path)).page()
    assert [section.title for section in page.sections] == ["epochs 2", "epochs 4"]


def test_what_was_held_out_decides_where_there_is_such_a_split(tmp_path, base):
    held_out = replace(base, data=replace(base.data, val=0.25), epochs=2)
    for lr, batch in ((0.1, 8), (0.2, 8), (0.1, 16)):
        path = plant(tmp_path, replace(held_out, lr=lr, batch=batch), [20.0, 100 * lr])
        lines = path.read_text().replace("test_accuracy", "val_accuracy").splitlines()
        records.RecordWriter(path, lines[:-1]).end("done", json.loads(lines[-1])["summary"])
    frame = load(tmp_path)
    found = choose(frame.runs, Wanted())
    assert (found.metric, found.curve, found.best) == ("val_accuracy", "val_accuracy", ["lr"])
    assert all(curve[0] == 20.0 for curve in frame.runs["curve"])
    (section,) = make_table("mine", frame).page().sections
    assert "the best of its lr, chosen on validation data" in section.caption
    assert [row[-1].text for row in section.rows] == ["20.00 (n=1) at lr 0.2", "10.00 (n=1) at lr 0.1"]


def test_figures_by_batch_and_over_training_are_drawn(results, capsys):
    assert main(["plots", "mine", "--results-dir", str(results)]) == 0
    assert sorted(path.name for path in (results / "figures").iterdir()) == [
        "mine.png", "mine.svg", "mine_curves.png", "mine_curves.svg",
    ]  # fmt: skip
    said = (results / "figures" / "mine.svg").read_text()
    assert "mine: test accuracy by batch, each line at the best of its lr, chosen on test data" in said
    page = (results / "README.md").read_text()
    assert "(figures/mine_curves.png)" in page and "`lbt plots mine`" in page


def test_a_figures_settings_without_a_place_are_at_their_best(results):
    frame, wanted = load(results), Wanted(rows=("lr",), columns=("batch",))
    (_, lines, command), (_, curves, _) = _described(["mine"], frame, wanted)
    assert command == "lbt plots mine --rows lr --columns batch"
    assert (lines["x"], lines["series"], lines["columns"], lines["rows"]) == ("lr", "batch", "optimizer.name", None)
    assert (curves["columns"], curves["rows"], curves["best_of"]) == ("lr", "optimizer.name", ["lr"])
    losses = Wanted(metric="test_accuracy", best=("batch",), rows=("lr",))
    assert (
        "each line at the best of its batch, chosen on test data"
        in next(_described(["mine"], frame, losses))[1]["title"]
    )


def test_without_names_only_what_a_file_describes_is_written(results, capsys):
    assert main(["tables", "--results-dir", str(results)]) == 0
    assert capsys.readouterr().out == "of sweeps without a file of their own: lbt tables mine\n"


def test_runs_that_begin_from_different_weights_have_columns_of_their_own(tmp_path, base, capsys, monkeypatch):
    for value, run, sha256 in ((50.0, "a" * 16, "1" * 64), (70.0, "b" * 16, "2" * 64)):
        for batch in (8, 16):
            begins = {"sha256": sha256, "run": run}
            plant(tmp_path, replace(base, optimizer=LARS, batch=batch, init_from=begins), value)
    header, *rows = cells(written(tmp_path, capsys))
    assert header == ["batch", "init_from 1111111111", "init_from 2222222222"]
    assert rows == [[batch, "50.00 (n=1)", "70.00 (n=1)"] for batch in ("8", "16")]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["status", "mine", "--results-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("2" * 10) == 2
