import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from support import TINY, run_tiny

from lbt import records
from lbt.cli import PIPE_CLOSED, main
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
from lbt.cli import PIPE_CLOSED, main
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
    (["experiment=quickstart"], "add an experiment with a plus sign, +experiment=quickstart"),
    (["experiment=mine"], "experiment=mine: name=mine names a sweep of your own"),
    (["name=a/b"], "name=a/b: expected a folder's name"),
    (["name=.."], "name=..: expected a folder's name"),
    (["name=.hidden"], "name=.hidden: expected a folder's name"),
    (["name="], "name=: expected a folder's name"),
    (["+experiment=quickstart", "name=-a"], "name=-a: expected a folder's name"),
    ([f"name={'x' * 101}"], "is longer than 100 bytes"),
    (["name=[a]"], "name=['a']: expected a text"),
    (["-m", "name=a,b", "seed=0,1"], "name: one name for the whole sweep"),
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
    (["plugins=mine"], "plugins=mine: expected a list, plugins=[mine]"),
    (["+data=synthetic"], "+data: one is chosen already; data=<name>, without the plus sign, takes its place"),
    (["model=torchvision", "model.norm=group"], "model.norm: not a setting of the model that is chosen"),
    (["data.lenght=64"], 'data.lenght: no such setting; did you mean "data.length"?'),  # another choice's
    (["data.length=64"], "data.length: not a setting of the data that is chosen"),
    (["micro_batch=inf"], "micro_batch=inf: expected a whole number or null"),
    (["model.bn_eps=inf"], "model.bn_eps=inf: expected a number"),
    (
        ["schedule.batch=2048"],
        "schedule.batch=2048: expected epochs and batch sizes, '{30:2048,60:8192}' in quotes, or null",
    ),
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
    (["seed=99999999999999999999"], "seed=99999999999999999999: expected 0 or more, below 2^53"),
    (["results_dir=/data/lr=0.1"], """quote twice, 'results_dir="/data/lr=0.1"'"""),
    (["-m", "data.root=/data/images(1)"], """quote twice, 'data.root="/data/images(1)"'"""),
    (["-m", "seed=0,"], "seed=0,: a value is missing after the last comma"),
    (["experiment='a"], "experiment='a: its quotes do not close"),
    (["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
    (["wandb.entity='${oc.env:HOME}'"], "wandb.entity: takes its value from the environment, which would be recorded"),
    (["-m", "seed=0,1", "study={of:['${oc.env:HOME}']}"], "study.of[0]: takes its value from the environment"),
    (["batch='${oc.decode:${oc.env:HOME}}'"], "batch: takes its value from the environment"),
    (["results_dir='${oc.env:HOME}'", "wandb.project='${results_dir}'"], "wandb.project: takes its value"),
    (["epochs=100000000000"], "epochs=100000000000: expected 1 or more, at most"),
    (["task=barlow_twins", "task.probe.seed=-1"], "task.probe.seed=-1: expected 0 or more"),
    (["data.root=/\udcff"], "is not UTF-8; give the folder such a name"),
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
    assert f"results/{blocked}" in err and err.startswith("lbt: ") and err.count("\n") == 1
    assert "Traceback" not in out


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


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("batch=8,4000", "batch=4000: larger than the training set"),
        ("data.subset_seed=0,4294967296", "data.subset_seed=4294967296: expected 0 or more, below 2^32"),
        ("data.val_seed=0,-1", "data.val_seed=-1: expected 0 or more, below 2^32"),
        ("data.subset=22,44", "data.subset=44: synthetic has 44 training images"),
        ("data.augment=none,barlow_twins", "needs 1 view(s) of an image, data.augment=barlow_twins gives 2"),
    ],
)
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_mistake_of_one_run_is_told_before_any_starts(tmp_path, capfd, axis, message, parallel):
    assert main(["train", "-m", *TINY, axis, f"sweep.parallel={parallel}"]) == 2
    err = capfd.readouterr().err
    assert message in err and err.count("\n") == 1
    assert written(tmp_path) == []


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


@pytest.fixture
def slow_runs(monkeypatch):
    """Has the clock that budgets are measured with go on by two hours in each run."""
    import lbt.run
    from lbt.sweep import execution

    run, clock = lbt.run.run, [1e9]

    def slow(*arguments, **keywords):
        outcome = run(*arguments, **keywords)
        clock[0] += 7200
        return outcome

    monkeypatch.setattr(lbt.run, "run", slow)
    monkeypatch.setattr(execution, "time", SimpleNamespace(time=lambda: clock[0]))
    return clock


def test_a_time_budget_counts_from_the_start_of_the_sweep(tmp_path, slow_runs):
    assert main(["train", "-m", *TINY, "seed=0,1,2", "time_budget=1h"]) == 0
    assert len(records.paths(tmp_path / "results")) == 1


def test_each_command_of_a_process_has_its_own_time(tmp_path, slow_runs):
    before = dict(os.environ)
    assert main(["train", *TINY, "time_budget=1h"]) == 0
    assert main(["train", "-m", *TINY, "seed=1,2", "time_budget=3h"]) == 0
    assert len(records.paths(tmp_path / "results")) == 3
    assert {key for key in os.environ.keys() - before.keys() if key.startswith("LBT")} == set()


def test_a_script_gives_its_commands_one_clock(tmp_path, monkeypatch, slow_runs, capfd):
    monkeypatch.setenv("LBT_SWEEP_STARTED", str(slow_runs[0]))
    assert main(["train", *TINY, "time_budget=1h"]) == 0
    assert main(["train", *TINY, "seed=1", "time_budget=1h"]) == 0
    assert len(records.paths(tmp_path / "results")) == 1
    monkeypatch.setenv("LBT_SWEEP_STARTED", "noon")
    assert main(["train", *TINY, "seed=2"]) == 2
    assert "LBT_SWEEP_STARTED=noon: expected seconds since 1970" in capfd.readouterr().err


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
    *lines, end = failed.path.read_text().splitlines()
    end = {key: value for key, value in json.loads(end).items() if key != "sha256"} | {"status": "failed"}
    failed.path.write_text("".join(f"{line}\n" for line in (*lines, json.dumps(end))))
    states = status.find([tiny_config("results", *diverging), tiny_config("results")])
    assert [state for state, _ in states] == ["diverged", "failed"]


def test_python_m_lbt_runs_a_source_tree(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(CONFIG_DIR.parent)}
    command = [sys.executable, "-m", "lbt", "status", "+experiment=quickstart"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path).stdout
    assert "missing" in said


def test_tab_completion_after_the_verb():
    line, wanted = "lbt train optimizer=la", {"optimizer=lamb", "optimizer=lars"}
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "lbt", "-sc", "query=bash"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert wanted <= set(said.split())


def test_choices_are_the_groups_files():
    assert choices("protocol") == ["ladder", "paper", "plain", "released"]


@pytest.fixture
def own_experiment(tmp_path):
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nhydra: {sweeper: {params: {seed: '3,4'}}}\nexperiment: mine\n"
    (folder / "mine.yaml").write_text(text)
    return ["--config-dir", str(tmp_path / "own"), *TINY, "+experiment=mine"]


def test_an_experiment_of_ones_own_is_trained_and_shown(own_experiment, tmp_path, capsys):
    assert main(["status", *own_experiment]) == 0
    assert "2 runs: 2 missing" in capsys.readouterr().out
    assert main(["train", "-m", *own_experiment]) == 0
    assert main(["status", *own_experiment]) == 0
    assert "2 runs: 2 done" in capsys.readouterr().out
    assert main(["status", "--config-dir", "nowhere", *TINY]) == 2
    assert "--config-dir nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_status_of_runs_of_another_machines_gpu(capsys):
    words = [word for word in TINY if not word.startswith(("device", "precision"))]
    assert main(["status", *words, "device=cuda", "seed=0,1"]) == 0
    assert "2 runs: 2 missing" in capsys.readouterr().out


def lbt(*words, **changes):
    return {"args": [sys.executable, "-m", "lbt", *words], "env": {**os.environ, **changes}, "stderr": subprocess.PIPE}


@pytest.mark.parametrize(
    "words",
    [
        ("status", "seed=range(1000)", "optimizer=lars,lamb"),  # longer than the pipe's buffer
        ("status", "seed=0"),
        ("profile", "data=digits", "data.subset=64", "batch=32", "device=cpu"),
        ("plots",),
        ("train", "--help"),
    ],
)
def test_a_reader_who_has_enough_is_no_mistake(words):
    """The pipe is closed before anything is read from it: exit code 141, as of any program that SIGPIPE ends."""
    os.makedirs("results/runs")
    process = subprocess.Popen(**lbt(*words), stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == PIPE_CLOSED


def test_a_training_goes_on_without_its_reader(tmp_path):
    words = ["data=synthetic", "data.size=32", "data.test_size=16", "data.resolution=8", "batch=16", "epochs=2"]
    words += ["schedule=constant", "device=cpu"]
    for seeds in ("seed=0,1", "seed=0,1,2"):
        process = subprocess.Popen(**lbt("train", "-m", *words, seeds), stdout=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
    assert [records.read(path).status for path in records.paths(tmp_path / "results")] == ["done"] * 3


def test_output_without_many_letters_is_no_mistake():
    found = subprocess.run(**lbt("status", "seed=0", PYTHONIOENCODING="ascii"), stdout=subprocess.PIPE, check=False)
    assert (found.returncode, found.stderr) == (0, b"") and b"1 missing" in found.stdout


def test_any_error_is_one_line_and_its_place_is_shown_on_demand(monkeypatch, capfd):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr("lbt.sweep.status.find", broken)
    assert main(["status", *TINY]) == 2
    err = capfd.readouterr().err
    assert err.startswith("lbt: KeyError: 'a bug'; LBT_DEBUG=1 shows where") and err.count("\n") == 1
    monkeypatch.setenv("LBT_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["status", *TINY])


def test_a_home_in_quotes_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["train", *TINY, 'results_dir="~/results"']) == 0
    assert len(records.paths(tmp_path / "home" / "results")) == 1
