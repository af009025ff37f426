import copy
import csv
import io
import json
import re
import shutil
import statistics
import subprocess

import pytest
from planted import make
from support import REPOSITORY

from lbt import records
from lbt.cli import main
from lbt.report.frame import load
from lbt.report.kit import escape, render
from lbt.report.tables import make as make_table
from lbt.report.tables import names, write_tables
from lbt.report.tables.grid import Table

TABLE1 = ("data=cifar10", "epochs=100", "lr_scaling=linear", "precision=bf16", "protocol.schedule_lag=0")


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def quickstart(results_dir):
    return make_table("quickstart", load(results_dir))


def text_of(table):
    return render.markdown(table.page())


def test_mean_spread_and_n(tmp_path):
    values = [91.25, 93.5, 96.0]
    for seed, value in enumerate(values):
        make(tmp_path, value, "optimizer=lars", "batch=64", f"seed={seed}")
    table = quickstart(tmp_path)
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    assert f"{mean:.2f} ± {spread:.2f} (n=3)" in text_of(table)
    (row,) = [row for row in rows(table.csv()) if row["n"] != "0"]
    assert (float(row["mean"]), float(row["sd"])) == pytest.approx((mean, spread), abs=1e-4)
    assert (float(row["min"]), float(row["max"])) == (91.25, 96.0)
    assert len(row["runs"].split()) == 3


def test_a_single_run_has_no_spread(tmp_path):
    make(tmp_path, 91.0, "optimizer=lars", "batch=64")
    assert "91.00 (n=1)" in text_of(quickstart(tmp_path))
    assert "±" not in text_of(quickstart(tmp_path)).split("mean ±")[0]


def test_diverged_unfinished_and_missing_cells_are_shown_as_such(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", "seed=0")
    make(tmp_path, None, "optimizer=lars", "batch=64", "seed=1", status="diverged")
    make(tmp_path, None, "optimizer=lamb", "batch=64", status="diverged")
    make(tmp_path, 50.0, "optimizer=tvlars", "batch=64", status=None)
    text = text_of(quickstart(tmp_path))
    assert "| 64 | - | 50.00 ± 56.57 (n=2, 1 diverged at 10 %) | 1 diverged | 1 unfinished |" in text
    assert "| 512 | - | - | - | - |" in text
    missing = [row for row in rows(quickstart(tmp_path).csv()) if row["status"] == "missing"]
    assert len(missing) == 5


def test_runs_without_the_tables_figure_are_not_an_empty_cell(tmp_path):
    path = make(tmp_path, 90.0, "optimizer=lars", "batch=64", "data.val=0.2")
    lines = path.read_text().replace("test_accuracy", "val_accuracy").splitlines(keepends=True)
    writer = records.RecordWriter(path, [line.strip() for line in lines[:-1]])
    writer.end("done", json.loads(lines[-1])["summary"])
    assert "| 64 | - | 1 done without test_accuracy | - | - |" in text_of(quickstart(tmp_path))


def test_figures_on_different_data_never_share_a_table(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", fingerprint="a" * 16)
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "seed=1", fingerprint="b" * 16)
    text = text_of(quickstart(tmp_path))
    assert "90.00 (n=1)" in text and "10.00 (n=1)" in text and "50.00" not in text
    assert f"data a (pixels {'a' * 16})" in text and f"data b (pixels {'b' * 16})" in text


def test_figures_of_different_lengths_never_share_a_table(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64", "epochs=5")
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "epochs=6", "seed=1")
    text = text_of(quickstart(tmp_path))
    assert "90.00 (n=1)" in text and "10.00 (n=1)" in text and "5 epochs" in text and "6 epochs" in text


def test_a_cell_of_mixed_settings_shows_no_figure_and_names_them(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "optimizer.eta=0.01", "seed=1")
    table = quickstart(tmp_path)
    assert "mixed settings |" in text_of(table)
    assert "optimizer.eta: 0.001 against 0.01" in text_of(table)
    assert "90.00" not in text_of(table)
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
    assert "90.00 (n=1)" in text_of(quickstart(tmp_path))  # whose folder is not the first
    elsewhere = make(tmp_path / "elsewhere", 99.0, "optimizer=lars", "batch=64")
    other.write_text(elsewhere.read_text())
    frame = load(tmp_path)
    assert frame.runs.empty and "differs" in frame.problems[0]


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
@pytest.mark.parametrize("folder", ["a_copy", "the_last"])
def test_a_finished_run_counts_whatever_was_left_behind_where_it_was_broken_off(tmp_path, status, folder):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    make(tmp_path, 50.0, "optimizer=lars", "batch=64", status=status, folder=folder)
    frame = load(tmp_path)
    assert list(frame.runs["status"]) == ["done"] and not frame.problems
    assert "90.00 (n=1)" in text_of(quickstart(tmp_path))


def test_published_values_stand_beside_ours_in_their_own_columns(tmp_path):
    make(
        tmp_path,
        80.0,
        *TABLE1,
        "optimizer=tvlars",
        "batch=16384",
        "lr=17",
        "lr_scaling=none",
        "protocol=released",
        folder="tvlars_table1_x",
    )
    table = make_table("tvlars_table1", load(tmp_path))
    header = "| batch | lr | published: LARS | published: LAMB | published: TVLARS | ours, paper protocol: LARS |"
    assert header in text_of(table)
    line = next(line for line in text_of(table).splitlines() if line.startswith("| 16384 | 17 |"))
    assert line == "| 16384 | 17 | **80.62** | 11.97 | 80.42 | - | - | - | - | - | 80.00 (n=1) |"
    found = [row for row in rows(table.csv()) if row["runs"]]
    assert [(row["mean"], row["published"]) for row in found] == [("80.0000", "80.42")]


def test_runs_of_another_length_do_not_enter_table_1(tmp_path):
    make(tmp_path, 80.0, *TABLE1, "optimizer=tvlars", "batch=16384", "lr=17", "epochs=10", folder="tvlars_table1_x")
    assert make_table("tvlars_table1", load(tmp_path)).runs.empty


def test_all_published_cells_are_in_table_1(tmp_path):
    table = make_table("tvlars_table1", load(tmp_path))
    published = [row["published"] for row in rows(table.csv()) if row["published"]]
    assert len(published) == 216 * 2  # beside each protocol
    assert text_of(table).count("No run yet.") == 4


def test_the_best_of_a_row_is_marked_in_each_block_alone(tmp_path):
    for optimizer, accuracy in {"lars": 82.0, "lamb": 83.0, "tvlars": 81.0}.items():
        make(tmp_path, accuracy, *TABLE1, f"optimizer={optimizer}", "batch=512", "lr=2", folder="tvlars_table1_x")
    make(
        tmp_path,
        None,
        *TABLE1,
        "optimizer=lars",
        "batch=512",
        "lr=2",
        "protocol=released",
        status="diverged",
        folder="tvlars_table1_x",
    )
    make(
        tmp_path,
        40.0,
        *TABLE1,
        "optimizer=tvlars",
        "batch=512",
        "lr=2",
        "protocol=released",
        "lr_scaling=none",
        folder="tvlars_table1_x",
    )
    make(
        tmp_path,
        None,
        *TABLE1,
        "optimizer=lars",
        "batch=512",
        "lr=3",
        "protocol=released",
        status="diverged",
        folder="tvlars_table1_x",
    )
    make(
        tmp_path,
        None,
        *TABLE1,
        "optimizer=lamb",
        "batch=512",
        "lr=3",
        "protocol=released",
        status="diverged",
        folder="tvlars_table1_x",
    )
    page = make_table("tvlars_table1", load(tmp_path)).page()
    first, second = (next(row for row in page.sections[0].rows if row[1].text == rate) for rate in "23")
    assert [entry.text for entry in first if entry.best] == ["81.42", "83.00 (n=1)", "40.00 (n=1)"]
    assert [entry.text for entry in second if entry.best] == ["81.56"]  # none where all diverged
    assert r"\textbf{83.00 (n=1)}" in render.latex(page) and "**83.00 (n=1)**" in render.markdown(page)


def test_the_figures_runs_that_depart_from_table_1_do_not_enter_it(tmp_path):
    place = (*TABLE1, "batch=1024", "lr=3")
    make(tmp_path, 80.0, *place, "optimizer=tvlars", folder="fig7_lr")
    make(tmp_path, 81.0, *place, "optimizer=lars", folder="fig7_lr")
    for other in ("optimizer.lam=0.01", "model.init=xavier_normal"):
        make(tmp_path, 10.0, *place, "optimizer=tvlars", other, folder="fig8_init")
    make(tmp_path, 10.0, *place, "optimizer=lars", "schedule=warmup_polynomial", "warmup=0", folder="fig2_warmup")
    text = text_of(make_table("tvlars_table1", load(tmp_path)))
    assert "80.00 (n=1)" in text and "81.00 (n=1)" in text and "mixed" not in text and "10.00" not in text


LATEX_LETTERS = "50 % of $x_1 & {y} #2 ~ ^ \\ < > | * ± −"


def test_latex_escapes_what_would_break_it():
    text = escape.latex_of_markup(LATEX_LETTERS + " `runs/*/<id>.jsonl`")
    assert r"\%" in text and r"\_1" in text and r"\textbackslash{} " in text and r"\texttt{runs/" in text
    assert not re.search(r"(?<!\\)[%$#&]", text)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("name", names())
def test_latex_compiles(tmp_path, name):
    page = make_table(name, load(REPOSITORY / "results")).page()
    page.legend.append(LATEX_LETTERS)
    page.notes.append(f"`{LATEX_LETTERS} 漢字 `\n\n{LATEX_LETTERS}")
    (tmp_path / "table.tex").write_text(render.latex(page))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 10_000


@pytest.mark.parametrize("name", names())
def test_the_same_records_give_the_same_bytes(tmp_path, name):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    first = make_table(name, load(tmp_path))
    again = make_table(name, load(tmp_path))
    assert (text_of(first), first.csv()) == (text_of(again), again.csv())


def test_the_command_writes_what_has_runs_and_says_where(tmp_path, capsys):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    assert main(["tables", "--results-dir", str(tmp_path)]) == 0
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "quickstart.csv", "quickstart.md", "quickstart.tex",
    ]  # fmt: skip
    assert "quickstart.md" in capsys.readouterr().out


def test_pages_of_ones_own_beside_the_tables_do_no_harm(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    assert write_tables([], tmp_path) == 0
    (tmp_path / "NOTES.md").write_text("# Notes")
    (tmp_path / "tables" / "mine.md").write_text("# Mine")
    assert write_tables([], tmp_path) == 0
    assert "[Notes](NOTES.md)" in (tmp_path / "README.md").read_text()


def test_no_results_is_one_line(tmp_path, capsys):
    assert main(["tables", "--results-dir", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_record_of_an_older_program_is_read(tmp_path):
    """A setting that did not exist yet is absent from the record; it must not keep the run out of its cell."""
    path = make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    first, *rest = path.read_text().splitlines()
    older = copy.deepcopy(json.loads(first))
    del older["config"]["model"]["ghost_size"]
    end = json.loads(rest.pop())
    del end["sha256"]
    path.write_text("\n".join([json.dumps(older), *rest, json.dumps(end)]) + "\n")
    make(tmp_path, 92.0, "optimizer=lars", "batch=64", "seed=1")
    assert "91.00 ± 1.41 (n=2)" in text_of(quickstart(tmp_path))


def table_by(results_dir, **changes):
    spec = {"title": "Mine", "about": "About it.", "select": {}, "rows": ["optimizer.lam"], "columns": ["batch"]}
    return Table("mine", {**spec, "metric": "test_accuracy", **changes}, load(results_dir))


def test_a_row_key_that_some_runs_lack_has_a_row_of_its_own(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    make(tmp_path, 80.0, "optimizer=tvlars", "batch=64", "optimizer.lam=0.01")
    make(tmp_path, 70.0, "optimizer=tvlars", "batch=64", "optimizer.lam=0.001")
    table = table_by(tmp_path)
    assert [[entry.text for entry in row] for row in table.page().sections[0].rows] == [
        ["-", "90.00 (n=1)"], ["0.001", "70.00 (n=1)"], ["0.01", "80.00 (n=1)"],
    ]  # fmt: skip
    assert [row["optimizer.lam"] for row in rows(table.csv())] == ["", "0.001", "0.01"]
    in_sections = table_by(tmp_path, sections=["optimizer.lam"], rows=["optimizer.name"])
    titles = [section.title for section in in_sections.page().sections]
    assert titles == ["-", "optimizer.lam 0.001", "optimizer.lam 0.01"]
    assert "## optimizer.lam 0.001" in text_of(in_sections)


HOSTILE = "=1|`x` <script>alert(1)</script> [l](javascript:x) $y$ \\input{z}\n\n## Forged\n\n| forged | 99 |"


@pytest.mark.parametrize("field", ["data", "device_name", "torch", "commit"])
def test_what_a_records_provenance_says_is_shown_and_does_nothing(tmp_path, field):
    path = make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    first, *lines, last = path.read_text().splitlines()
    run = json.loads(first)
    run["provenance"][field] = HOSTILE
    records.RecordWriter(path, [json.dumps(run), *lines]).end("done", json.loads(last)["summary"])
    assert write_tables(["quickstart"], tmp_path) == 0
    written = {ending: (tmp_path / "tables" / f"quickstart.{ending}").read_text() for ending in ("md", "tex", "csv")}
    assert "90.00 (n=1)" in written["md"]
    for line in written["md"].splitlines():
        assert "<script>" not in line and "](javascript" not in line
        assert not line.startswith(("## Forged", "| forged"))
    assert r"\input" not in written["tex"] and not re.search(r"(?<!\\)\$", written["tex"])
    assert not [cell for row in csv.reader(written["csv"].splitlines()) for cell in row if cell.startswith("=")]


def test_the_files_of_damaged_records_are_named_whatever_their_names_hold(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    odd = tmp_path / "runs" / "quickstart" / "a|b <img src=x> `c`.jsonl"
    odd.write_text("not a record\n")
    text = text_of(quickstart(tmp_path))
    assert r"a\|b &lt;img src=x> \`c\`.jsonl" in text and "<img" not in text


def test_figures_of_different_precisions_never_share_a_table(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars", "batch=64")
    make(tmp_path, 10.0, "optimizer=lars", "batch=64", "precision=bf16", "seed=1")
    text = text_of(quickstart(tmp_path))
    assert "90.00 (n=1)" in text and "10.00 (n=1)" in text and "mixed" not in text
    assert "; bf16; " in text and "; fp32; " in text and "bf16, fp32" not in text
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert sorted(title.split()[-1] for title in titles) == ["bf16", "fp32"]
    assert text.count("| 64 |") == 2 and text.count("| 512 |") == 1  # what is missing is told once


def test_seeds_of_barlow_twins_are_one_cell_unless_the_probes_seed_is_another(tmp_path):
    words = ("task=barlow_twins", "data=cifar10", "optimizer=lars", "batch=64", "epochs=3")
    for seed, value in enumerate((40.0, 41.0, 42.0)):
        make(tmp_path, value, *words, f"seed={seed}")
    cells = quickstart(tmp_path).cells
    assert [sorted(cell.values) for cell in cells] == [[40.0, 41.0, 42.0]]
    make(tmp_path, 50.0, *words, "seed=3", "task.probe.seed=0")
    assert sorted(len(cell.rows) for cell in quickstart(tmp_path).cells) == [1, 3]


def test_a_part_begins_apart_from_the_notes_of_the_one_before():
    sizes = {"caption": "Where.", "groups": [("", 1)], "header": ["batch"], "rows": [["64"]], "notes": ["a remark"]}
    parts = [render.Section(title, **sizes) for title in ("one", "two")]
    lines = render.markdown(render.Page("Table", "About.", parts, legend=[])).splitlines()
    assert lines[lines.index("## two") - 1] == "" and lines.count("- a remark") == 2
