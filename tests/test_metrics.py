"""A task with figures of its own gets its summary, its columns and its table without another line."""

import io
import json
import math
import subprocess
import sys

import pytest
from rich.console import Console
from support import run_tiny

from lbt import metrics, records
from lbt.metrics import LOSS, Metric
from lbt.report.frame import load
from lbt.report.kit import render
from lbt.report.tables.grid import Table
from lbt.session.console import ConsoleReporter, scores, sweep_table
from lbt.tasks import TASKS, Classification


class Perplexed(Classification):
    """Scored by perplexity, and by an error that only the record keeps."""

    metrics = (LOSS, Metric("perplexity", higher_is_better=False), Metric("error", "cm", False, shown=("summary",)))

    def evaluate(self, model, sets, epoch, epochs):
        loss = super().evaluate(model, sets, epoch, epochs)["loss"]
        return {"loss": loss, "perplexity": math.exp(loss), "error": loss / 100, "unheard_of": 1.0}


@pytest.fixture
def outcomes(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "perplexed", Perplexed)
    return [
        run_tiny(tmp_path, "task.name=perplexed", f"optimizer={name}", f"lr={lr}", f"seed={seed}", "epochs=2")
        for name, lr in (("sgd", 1e-30), ("nesterov", 0.05))
        for seed in range(2)
    ]


def test_the_summary_and_the_screen_have_what_the_task_declares(outcomes):
    summary = outcomes[0].summary
    assert summary["test_perplexity"] == pytest.approx(math.exp(summary["test_loss"]))
    assert summary["test_error"] == pytest.approx(summary["test_loss"] / 100)
    assert "test_unheard_of" not in summary and "test_accuracy" not in summary
    line = records.read(outcomes[0].path).epochs[-1]
    assert line["test_unheard_of"] == 1.0
    said = scores(line, outcomes[0].config)
    assert f"test perplexity {line['test_perplexity']:.3f}" in said
    assert "error" not in said and "unheard" not in said
    console = Console(file=io.StringIO(), width=200)
    ConsoleReporter(console).not_executed(outcomes[0])
    assert f"test perplexity {summary['test_perplexity']:.3f};" in console.file.getvalue()


def test_a_sweeps_table_has_a_column_for_it(outcomes):
    table = sweep_table(outcomes)
    (column,) = [column for column in table.columns if column.header == "perplexity"]
    assert list(column.cells) == [f"{one.summary['test_perplexity']:.3f}" for one in outcomes]
    assert not [column for column in table.columns if "accuracy" in str(column.header) or "error" in str(column.header)]


SPEC = {
    "title": "A table", "about": "About it.", "select": {}, "best": True, "rows": ["batch"],
    "columns": ["optimizer.name"], "metric": "test_perplexity",
}  # fmt: skip


def test_the_best_of_a_table_is_the_lowest_where_the_task_says_so(outcomes, tmp_path, monkeypatch):
    monkeypatch.delitem(TASKS, "perplexed")  # a report has the records alone
    table = Table("mine", SPEC, load(tmp_path))
    (row,) = table.page().sections[0].rows
    assert [entry.best for entry in row] == [False, True, False]  # nesterov has trained, sgd has not
    values = [one.summary["test_perplexity"] for one in outcomes[2:]]
    assert row[1].text.startswith(f"{sum(values) / 2:.3f} ± ") and row[1].text.endswith("(n=2)")
    text = render.markdown(table.page())
    assert "test perplexity after the last epoch" in text and "bold: the lowest mean" in text
    error = Table("mine", {**SPEC, "metric": "test_error"}, load(tmp_path))
    assert "test error in cm after the last epoch" in render.markdown(error.page())


def test_a_record_from_before_the_declarations_reads_as_it_did(tmp_path):
    outcome = run_tiny(tmp_path, "epochs=2")
    path = outcome.path
    first, *rest = path.read_text().splitlines()
    run, end = json.loads(first), json.loads(rest.pop())
    assert [one["name"] for one in run.pop("metrics")] == ["loss", "accuracy"]
    end.pop("sha256")
    path.write_text("\n".join([json.dumps(run), *rest, json.dumps(end)]) + "\n")
    frame = load(tmp_path)
    assert not frame.problems and frame.runs["summary"].iloc[0]["test_accuracy"] == outcome.summary["test_accuracy"]
    assert {"train_loss", "test_loss", "test_accuracy"} == {key for key in end["summary"] if "_" in key} - {
        "wall_seconds"
    }


@pytest.mark.parametrize("key", ["test_loss", "test_accuracy"])
def test_a_summary_that_lacks_a_declared_metric_contradicts_its_record(tmp_path, key):
    path = run_tiny(tmp_path, "epochs=2").path
    *lines, last = path.read_text().splitlines()
    summary = json.loads(last)["summary"]
    del summary[key]
    records.RecordWriter(path, lines).end("done", summary)
    (problem,) = load(tmp_path).problems
    assert f"its end does not say the last epoch's {key}" in problem


def line(**figures):
    return {"epoch": 3, "train_loss": 1.0, "test_loss": 1.0, "test_perplexity": 2.0, **figures}


@pytest.mark.parametrize(
    ("figures", "in_the_middle", "at_the_end"),
    [
        ({}, False, False),
        ({"train_loss": math.nan}, True, True),
        ({"train_loss": math.inf}, True, True),
        ({"train_loss": None}, True, True),  # as a record has it
        ({"test_loss": math.nan}, False, True),
        ({"test_perplexity": math.inf}, False, False),  # it is not said to have to be finite
    ],
)
def test_a_run_has_diverged_where_a_metric_that_must_be_finite_is_not(figures, in_the_middle, at_the_end):
    declared = metrics.declared_by(Perplexed)
    assert metrics.diverged(line(**figures), declared, last=False) is in_the_middle
    assert metrics.diverged(line(**figures), declared, last=True) is at_the_end


@pytest.mark.parametrize("declared", [[{"name": 5, "unit": "", "shown": []}], [{"colour": "red"}], 7])
def test_a_record_that_declares_nonsense_is_named(tmp_path, declared):
    path = run_tiny(tmp_path, "epochs=2").path
    first, *lines, last = path.read_text().splitlines()
    first = json.dumps(json.loads(first) | {"metrics": declared})
    records.RecordWriter(path, [first, *lines]).end("done", json.loads(last)["summary"])
    assert [problem for problem in load(tmp_path).problems if str(path) in problem]


def test_every_task_declares_what_it_measures():
    for kind in TASKS.values():
        assert all(isinstance(one, Metric) for one in kind.metrics)


def test_reports_load_neither_torch_nor_the_training():
    modules = ["tables", "figures", "audit", "claims.table", "reality.page", "reality.selection", "overview"]
    code = "; ".join([*[f"import lbt.report.{name}" for name in modules], "import sys; print(*sys.modules)"])
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "lbt.metrics" in loaded
    assert not {"torch", "lbt.train", "lbt.tasks.probe", "matplotlib"} & set(loaded)
