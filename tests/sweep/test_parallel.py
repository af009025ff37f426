import io
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import support
import torch
from hydra.types import RunMode
from rich.console import Console
from support import TINY, run_tiny

from lbt import records, sweep
from lbt.cli import main
from lbt.errors import UserError
from lbt.session.outcome import Outcome
from lbt.sweep import parallel
from lbt.sweep.hydra_session import loader
from lbt.sweep.tally import Tally

# A file, not a text: the processes of the sweep import the main module, which brings the tests' small model with it.
PROGRAM = """
import os, sys

sys.path.insert(0, {tests!r})
import lbt.run
import support

if __name__ == "__main__":
    from lbt.cli import main
    sys.exit(main(["train", "-m", *sys.argv[1:]]))

def broken(config, **keywords):
    if str(config.seed) == os.environ.get("DIES"):
        os.kill(os.getpid(), 9)
    if str(config.seed) == os.environ.get("FAILS"):
        raise ZeroDivisionError("a bug")
    return whole(config, **keywords)

lbt.run.run, whole = broken, lbt.run.run
"""


@pytest.fixture
def start(tmp_path):
    """Starts the sweep of given overrides in a process of its own, the leader of a process group."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=os.path.dirname(support.__file__)))
    (tmp_path / "run").mkdir()

    def started(*overrides, **environment):
        return subprocess.Popen(
            [sys.executable, program, *TINY, *overrides],
            cwd=tmp_path / "run",
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return started


def content(path):
    """A record's lines but for times and the moment it began."""
    record = records.read(path)
    lines = [record.run | {"provenance": record.run["provenance"] | {"started": ""}}, *record.epochs, record.end]
    lines[-1] = lines[-1]["summary"]
    return [{key: value for key, value in line.items() if not key.startswith("wall_")} for line in lines]


@contextmanager
def threads(count):
    """Has this process compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def test_runs_side_by_side_leave_the_records_of_runs_alone_and_are_not_repeated(tmp_path, start, monkeypatch, capsys):
    command = ["seed=0,1", "optimizer=tvlars,adam", "sweep.parallel=2"]
    process = start(*command)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "4 runs" in said and error == ""
    made = records.paths(tmp_path / "run" / "results")
    assert len(made) == 4
    told = [line.split(" (")[0] for line in said.splitlines() if " of 4 runs (" in line]
    assert told == [f"{count} of 4 runs" for count in (1, 2, 3, 4)] and "4 of 4 runs (4 done)" in said
    ends = [line for line in said.splitlines() if "epoch 4/4" in line]  # every line of a run says whose it is
    assert sorted(line[1:7] for line in ends) == [path.stem[:6] for path in made]
    for path in made:
        config = records.read(path).run["config"]
        name, seed = config["optimizer"]["name"], config["seed"]
        with threads(records.read(path).run["provenance"]["threads"]):  # sums are rounded by how they are shared out
            alone = run_tiny(tmp_path / "alone", f"optimizer={name}", f"seed={seed}")
        assert alone.id == path.stem
        first, other = content(path), content(alone.path)
        assert first == other

    before = [path.read_bytes() for path in made]
    monkeypatch.chdir(tmp_path / "run")
    assert main(["train", "-m", *TINY, *command]) == 0
    assert capsys.readouterr().out.count("done before") == 4
    assert [path.read_bytes() for path in made] == before


@pytest.mark.parametrize(("number", "code", "group"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_a_signal_stops_all_runs_and_leaves_them_resumable(tmp_path, start, number, code, group):
    process = start("seed=0,1,2,3", "epochs=100000", "sweep.parallel=2")
    folder = tmp_path / "run" / "results"
    deadline = time.monotonic() + 120
    while [path.read_text().count("\n") > 1 for path in records.paths(folder)] != [True, True]:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if group:  # as a terminal's Ctrl-C
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert [records.read(path).status for path in records.paths(folder)] == ["interrupted"] * 2
    assert len(list((folder / "work").glob("*.pt"))) == 2


def lay_own_folder(folder):
    """A folder of one's own, with an optimizer that a plug-in brings."""
    (folder / "optimizer").mkdir(parents=True)
    (folder / "lbt.yaml").write_text("plugins: [of_my_own]\n")
    (folder / "optimizer" / "of_my_own.yaml").write_text("name: of_my_own\nlr: 0.1\nlr_scaling: none\n")
    text = "from torch.optim import SGD\n\nOPTIMIZERS = {'of_my_own': lambda params, lr: SGD(params, lr=lr)}\n"
    (folder / "of_my_own.py").write_text(text)


def test_runs_that_fail_or_take_their_process_with_them_leave_the_others_alone(tmp_path, start):
    """Also where each process is to find the optimizer in a folder of one's own."""
    lay_own_folder(tmp_path / "own")
    words = ["seed=1,2,0,3", "optimizer=of_my_own", "sweep.parallel=2"]  # two that go on when both are lost
    process = start(*words, DIES="1", FAILS="2", LBT_CONFIG_DIR="../own")
    said, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert error.count("exit code -9; the same command goes on with it") == error.count("ZeroDivisionError: a bug") == 1
    made = [records.read(path) for path in records.paths(tmp_path / "run" / "results")]
    assert sorted((one.status, one.run["config"]["seed"]) for one in made) == [("done", 0), ("done", 3)]
    assert {one.run["config"]["optimizer"]["name"] for one in made} == {"of_my_own"}
    assert "4 runs" in said


def test_mistakes_are_found_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "sweep.parallel=0"]) == 2
    assert "sweep.parallel=0: expected 1 or more" in capsys.readouterr().err
    assert main(["train", "-m", *TINY, "sweep.parallel=2", "seed=0,1", "epochs=0"]) == 2
    assert not (tmp_path / "results").exists()


def test_another_launcher_has_its_own_processes():
    sweeper = sweep.GridSweeper(None, None)
    with loader() as hydra:
        sweeper.hydra_context = type("Context", (), {"config_loader": hydra})
        words = [*TINY, "sweep.parallel=2", "seed=0,1"]
        sweeper.config = hydra.load_configuration("train", overrides=words, run_mode=RunMode.MULTIRUN)
        sweeper.launcher = object()
        with pytest.raises(UserError, match=r"sweep\.parallel=2: object has processes of its own"):
            sweeper.sweep(words)


def test_a_launcher_that_loses_a_job_is_one_line():
    class Launcher:
        def launch(self, overrides, initial_job_idx):
            raise RuntimeError("Job 7\nwas lost")

    sweeper = sweep.GridSweeper(None, None)
    sweeper.launcher = Launcher()
    with pytest.raises(UserError, match=r"^Launcher: Job 7 was lost; the same command goes on$"):
        sweeper._launch([["seed=0"]])


def told(config, interrupt, reporter):
    """Stands for a run: says a line, as a run does, and is done."""
    reporter._run = f"{config.seed}23456"
    reporter.say("made here")
    return Outcome(str(config.seed), "done", config, summary={"wall_seconds": 1.0})


def test_a_terminal_has_one_bar_below_the_lines_of_all_runs(monkeypatch, capfd):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(parallel, "Screen", lambda: screen)
    configs = [replace(support.configure(*TINY), seed=seed) for seed in range(3)]
    results = parallel.launch(told, configs, 1, Tally(configs, [None] * 3))
    assert [result.id for result in results] == ["0", "1", "2"]
    said = screen.file.getvalue()
    assert all(f"[{seed}23456]   made here\n" in said for seed in range(3))
    assert capfd.readouterr().out == ""  # of the processes, which would go across the bar
    assert "3/3 runs" in said and "3 of 3 runs" not in said


def test_threads_are_shared_among_the_processes_there_are(monkeypatch):
    shared = []

    def worker(execute, count, *_):
        shared.append(count)
        raise RuntimeError("no process")

    monkeypatch.setattr(parallel, "_Worker", worker)
    configs = [replace(support.configure(*TINY), seed=seed) for seed in range(2)]
    with pytest.raises(RuntimeError, match="no process"):
        parallel.launch(told, configs, 8, Tally(configs, [None] * 2))
    assert shared == [2]
