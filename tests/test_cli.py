import os
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from support import TINY, run_tiny

from lbt import records
from lbt.cli import main
from lbt.config import CONFIG_DIR
from lbt.config.groups import choices
from lbt.records import places
from lbt.sweep import status


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command starts in an empty folder, and its budget's clock with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LBT_DEBUG", raising=False)
    monkeypatch.delenv("LBT_SWEEP_STARTED", raising=False)


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_help_lists_the_verbs_without_loading_torch_or_hydra():
    code = """
import sys
from lbt.cli import main
try:
    main(["--help"])
finally:
    assert not {"torch", "hydra", "pandas", "rich"} & set(sys.modules), set(sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(verb in said for verb in ("train", "tables", "status"))


def test_train_help_shows_groups_settings_and_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert "optimizer: " in said and "tvlars" in said and "lbt train optimizer=tvlars batch=16384" in said
    assert "micro_batch: null" in said


def test_cfg_job_shows_the_composed_settings(capsys):
    assert main(["train", "--cfg", "job", "optimizer=tvlars", "batch=16384"]) == 0
    said = capsys.readouterr().out
    assert "name: tvlars" in said and "batch: 16384" in said and "name: constant" in said


MISTAKES = [
    (["optimzer=lars"], 'optimzer: no such setting; did you mean "optimizer"?'),
    (["optimizer=larz"], 'optimizer=larz: there is no optimizer "larz"; did you mean "lars"?'),
    (["optimizer.etaa=1"], 'optimizer.etaa: no such setting; did you mean "optimizer.eta"?'),
    (["+optimizer.etaa=1"], 'optimizer.etaa: no such setting; did you mean "eta"?'),
    (["+colour=red"], "colour: no such setting"),
    (["+experiment=quickstrt"], 'experiment=quickstrt: there is no experiment "quickstrt"; did you mean "quickstart"?'),
    (["experiment=quickstart"], "add an experiment with a plus sign"),
    (["batch=abc"], "batch=abc: expected a whole number"),
    (["batch=0"], "batch=0: expected a whole number, 1 or more"),
    (["batch=45"], "batch=45: larger than the training set of 44 images"),
    (["warmup=9"], "warmup=9: expected 0 to 4 epochs"),
    (["lr=quick"], "lr=quick: expected a number"),
    (["optimizer.eta=big"], "optimizer.eta=big: expected a number"),
    (["optimizer=sgd", "optimizer.momentum=2"], "momentum"),
    (["schedule.warmup=ten"], "schedule.warmup=ten: expected a number"),
    (["data.size=-1"], "size"),
    (["model.name=resnet18", "model.stem=cifr"], 'model.stem=cifr: no such choice; did you mean "cifar"?'),
    (["batch=1,2"], "batch=1,2: several values are a sweep, lbt train -m"),
    (["-m", "batch=8,abc"], "batch=abc: expected a whole number"),
    (["-m", "+experiment=quickstart,cifar10_short"], "one experiment at a time"),
    (["batch"], "batch"),
    (["micro_batch=inf"], "micro_batch=inf: expected a whole number or null"),
    (["model.bn_eps=inf"], "model.bn_eps=inf: expected a number"),
    (["schedule.batch=2048"], "schedule.batch=2048: expected epochs and batch sizes, {30:2048,60:8192}, or null"),
    (["schedule=warmup_step", "schedule.milestones=[inf]"], "schedule.milestones[0]=inf: expected a number"),
    (["optimizer=sam", "optimizer.base.eta=1"], "optimizer.base.eta: not an argument of what is inside, which"),
    (["optimizer=sam", "optimizer.base=lars"], "chosen by optimizer@optimizer.base=lars"),
    (["optimizer=sam", "optimizer@optimizer.base=lrs"], 'there is no optimizer "lrs"; did you mean "lars"?'),
    (["optimizer=sam", "optimizer.base.momentum=high"], "optimizer.base.momentum=high: expected a number"),
    (["~optimizer.momentum"], "~optimizer.momentum: a setting cannot be taken away; set it to what means off"),
    (["-m", "~data"], "~data: a setting cannot be taken away"),
    (["wandb=null"], "wandb=None: expected settings, wandb.<name>=<value>"),
    (["optimizer.name=[a]"], "optimizer=['a']: there is no optimizer"),
    (["optimizer=tvlars", "optimizer.delay_epochs=abc"], "optimizer.delay_epochs=abc: expected a number or null"),
    (["seed=99999999999999999999"], "seed=99999999999999999999: expected 0 or more, below 2^63"),
    (["optimizer=sam", "optimizer@optimizer.base=sam"], "Invalid base name: 'sam' (must be one of adam, "),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_with_exit_code_2_and_nothing_is_written(tmp_path, capfd, overrides, message):
    assert main(["train", *TINY, *overrides]) == 2
    out, err = capfd.readouterr()
    assert message in err and err.startswith("lbt: ") and err.count("\n") == 1
    assert "Traceback" not in out + err
    assert written(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_a_mistake(tmp_path, capfd):
    assert main(["train", *TINY, "device=cuda"]) == 2
    assert "device=cuda: this torch sees no CUDA device" in capfd.readouterr().err
    assert written(tmp_path) == []


def test_a_results_folder_that_cannot_be_is_a_mistake(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["train", *TINY, f"results_dir={tmp_path}/file/results"]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"lbt: results_dir={tmp_path}/file/results: cannot be written to (") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("blocked", "words"), [("runs", ["train", *TINY]), ("tables", ["tables"]), ("figures", ["plots", "fig5_phi"])]
)
def test_what_cannot_be_written_is_one_line(tmp_path, capfd, blocked, words):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / blocked).touch()
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert f"results/{blocked}" in err and err.splitlines()[-1].startswith("lbt: ") and "Traceback" not in out + err


def test_missing_data_is_a_mistake(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    assert main(["train", "data=image_folder", f"data.root={tmp_path}/empty"]) == 2
    err = capfd.readouterr().err
    assert "empty" in err and err.count("\n") == 1
    assert written(tmp_path) == ["empty"]


def test_lbt_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("LBT_DEBUG", "1")
    with pytest.raises(Exception, match="batch=0"):
        main(["train", "batch=0"])


@pytest.mark.parametrize("words", [["tabels"], [], ["tables", "quickstat"], ["status"], ["status", "optimzer=a"]])
def test_other_verbs_refuse_mistakes(words, capfd):
    try:
        code = main(words)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    assert code == 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_sweep_runs_the_grid_and_ends_with_a_table(tmp_path, capsys):
    command = ["train", "-m", *TINY, "optimizer=lars,tvlars", "seed=0,1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 runs" in said and said.count("tvlars") >= 2
    paths = records.paths(tmp_path / "results")
    assert [records.read(path).status for path in paths] == ["done"] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"results"}  # and nothing of Hydra's

    before = [path.read_bytes() for path in paths]
    assert main(command) == 0
    assert capsys.readouterr().out.count("done before") == 4
    assert [path.read_bytes() for path in paths] == before


def test_an_experiments_grid_can_be_changed_on_the_command_line(tmp_path, monkeypatch, capsys):
    words = [word for word in TINY if not word.startswith("data=")]
    changed = ["optimizer=lars,nesterov", "batch=8", "seed=0", "data=synthetic"]
    assert main(["train", "-m", "+experiment=quickstart", *words, *changed]) == 0
    made = [records.read(path) for path in records.paths(tmp_path / "results")]
    assert sorted(record.run["config"]["optimizer"]["name"] for record in made) == ["lars", "nesterov"]
    assert {record.run["config"]["experiment"] for record in made} == {"quickstart"}


def test_a_mistake_of_one_run_does_not_stop_the_others(tmp_path, capfd):
    assert main(["train", "-m", *TINY, "batch=4000,8"]) == 2
    assert "batch=4000: larger than the training set" in capfd.readouterr().err
    assert [records.read(path).run["config"]["batch"] for path in records.paths(tmp_path / "results")] == [8]


def test_divergence_and_failure_decide_the_exit_code(tmp_path, monkeypatch, capsys):
    diverging = ["optimizer=sgd", "lr=1e30", "schedule=constant"]
    assert main(["train", *TINY, *diverging]) == 0
    assert "diverged" in capsys.readouterr().out

    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lbt.train.Training._update", broken)
    assert main(["train", "-m", *TINY, "seed=0,1"]) == 1
    assert [records.read(path).status for path in records.paths(tmp_path / "results")].count("failed") == 2


def test_a_used_up_time_budget_starts_no_further_run(tmp_path, capsys):
    assert main(["train", "-m", *TINY, "seed=0,1", "time_budget=0s"]) == 0
    assert capsys.readouterr().out.count("not started") == 2
    assert written(tmp_path) == []


def test_a_time_budget_counts_from_the_start_of_the_sweep(tmp_path, monkeypatch):
    import lbt.run

    run = lbt.run.run

    def slow(*arguments, **keywords):
        outcome = run(*arguments, **keywords)
        monkeypatch.setenv("LBT_SWEEP_STARTED", "0")  # as if the first run had taken decades
        return outcome

    monkeypatch.setattr(lbt.run, "run", slow)
    assert main(["train", "-m", *TINY, "seed=0,1,2", "time_budget=1h"]) == 0
    assert len(records.paths(tmp_path / "results")) == 1


def test_status_shows_every_state(tmp_path, capsys):
    grid = [*TINY, "seed=0,1,2,3", "results_dir=results"]
    run_tiny("results", "seed=0")
    running = run_tiny("results", "seed=1")
    lines = running.path.read_text().splitlines()
    running.path.write_text("".join(f"{line}\n" for line in lines[:3]))  # two epochs so far
    run_tiny("results", "seed=2")
    killed = run_tiny("results", "seed=2")
    killed.path.write_text(killed.path.read_text().splitlines()[0] + "\n")
    with FileLock(places.lock_of("results", running.id)):
        assert main(["status", *grid]) == 0
    said = capsys.readouterr().out
    assert "4 runs: 1 done, 1 interrupted, 1 missing, 1 running" in said
    assert "2/4" in said


def test_status_takes_the_copy_that_got_furthest(tmp_path, capsys):
    run = run_tiny("results")
    copy = tmp_path / "results" / "runs" / "copied" / run.path.name
    copy.parent.mkdir()
    copy.write_text("".join(f"{line}\n" for line in run.path.read_text().splitlines()[:3]))
    assert main(["status", *TINY]) == 0
    assert "1 runs: 1 done" in capsys.readouterr().out


def test_status_of_a_folder_that_can_only_be_read(tmp_path, monkeypatch, capsys):
    run = run_tiny("results")
    run.path.write_text(run.path.read_text().splitlines()[0] + "\n")
    lock, opened = places.lock_of("results", run.id), os.open

    def refuse(path, flags, *rest, **more):  # whoever runs the tests may be allowed everything
        if str(path).endswith(".lock") and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **more)

    with FileLock(lock):
        monkeypatch.setattr(os, "open", refuse)
        assert main(["status", *TINY]) == 0
    assert main(["status", *TINY]) == 0
    said = capsys.readouterr().out
    assert "1 runs: 1 running" in said and "1 runs: 1 interrupted" in said


def test_a_growing_batchs_length_is_said_as_it_is(tmp_path, capsys):
    assert main(["train", *TINY, "epochs=4", "schedule.batch={1:22,3:44}"]) == 0
    assert "4 epochs of 3 to 1 updates" in capsys.readouterr().out


def test_status_says_what_else_a_grid_varies(tmp_path, capsys):
    assert main(["status", *TINY, "seed=0,1", "optimizer=tvlars", "optimizer.lam=0.5,0.25", "data.val=0.5"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "missing" in line and "│" in line]
    assert [[word in row for word in ("lam=0.5 ", "lam=0.25 ")] for row in rows] == [[True, False], [False, True]] * 2
    assert not any("val" in row for row in rows)  # all of them have it


def test_a_run_another_process_holds_is_said_and_left_alone(tmp_path, capsys):
    run = run_tiny("results")
    run.path.unlink()
    with FileLock(places.lock_of("results", run.id)):
        assert main(["train", *TINY]) == 0
    assert f"run {run.id} is being executed by another process" in capsys.readouterr().out
    assert not run.path.exists()


def test_status_of_a_diverged_and_a_failed_run(tmp_path, monkeypatch):
    from support import tiny_config

    diverging = ["optimizer=sgd", "lr=1e30", "schedule=constant"]
    run_tiny("results", *diverging)
    failed = run_tiny("results")
    text = failed.path.read_text().replace('"status": "done"', '"status": "failed"')
    failed.path.write_text(text)
    states = status.find([tiny_config("results", *diverging), tiny_config("results")])
    assert [state for state, _ in states] == ["diverged", "failed"]


def test_python_m_lbt_runs_a_source_tree(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(CONFIG_DIR.parent)}
    command = [sys.executable, "-m", "lbt", "status", "+experiment=quickstart"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path).stdout
    assert "missing" in said


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("lbt train optimizer=la", {"optimizer=lamb", "optimizer=lars"}),
        ("lbt train data=digits warm", {"warmup="}),
        ("lbt train +experiment=quick", {"+experiment=quickstart"}),
    ],
)
def test_tab_completion_after_the_verb(line, wanted):
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "lbt", "-sc", "query=bash"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert wanted <= set(said.split())


def test_choices_are_the_groups_files():
    assert choices("protocol") == ["paper", "released"]
