import os
import signal
import subprocess
import sys
import time

import pytest
from support import TINY, run_tiny

from lbt import records, sweep
from lbt.cli import main
from lbt.errors import UserError

# A file, not a text: the processes of the sweep import the main module, which brings the tests' small model with it.
PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
from support import TINY
import lbt.run

if os.environ.get("BREAK"):
    def broken(config, **keywords):
        if config.seed == int(os.environ["BREAK"].split(":")[1]):
            if os.environ["BREAK"].startswith("die"):
                os.kill(os.getpid(), 9)
            raise ZeroDivisionError("a bug")
        return whole(config, **keywords)
    lbt.run.run, whole = broken, lbt.run.run

if __name__ == "__main__":
    from lbt.cli import main
    sys.exit(main(["train", "-m", *TINY, *sys.argv[1:]]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts the sweep of given overrides in a process of its own, the leader of a process group."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=os.path.dirname(__file__)))
    (tmp_path / "run").mkdir()

    def started(*overrides, **environment):
        return subprocess.Popen(
            [sys.executable, program, *overrides],
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


def test_runs_side_by_side_leave_the_records_of_runs_alone(tmp_path, start):
    process = start("seed=0,1,2,3", "optimizer=tvlars,adam", "sweep.parallel=3")
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "8 runs" in said and error == ""
    made = records.paths(tmp_path / "run" / "results")
    assert len(made) == 8
    for line in said.splitlines():  # every line of a run says whose it is
        if "epoch 4/4" in line:
            assert any(line.startswith(f"[{path.stem[:6]}] ") for path in made)
    for path in made:
        config = records.read(path).run["config"]
        name, seed = config["optimizer"]["name"], config["seed"]
        alone = run_tiny(tmp_path / "alone", f"optimizer={name}", f"seed={seed}")
        assert alone.id == path.stem
        first, other = content(path), content(alone.path)
        first[0]["provenance"].pop("threads"), other[0]["provenance"].pop("threads")
        assert first == other


def test_a_second_sweep_finds_everything_done(tmp_path, start):
    start("seed=0,1,2", "sweep.parallel=2").communicate(timeout=120)
    before = [path.read_bytes() for path in records.paths(tmp_path / "run" / "results")]
    said, _ = start("seed=0,1,2", "sweep.parallel=2").communicate(timeout=120)
    assert said.count("done before") == 3 and len(before) == 3
    assert [path.read_bytes() for path in records.paths(tmp_path / "run" / "results")] == before


@pytest.mark.parametrize(("number", "code", "group"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_a_signal_stops_all_runs_and_leaves_them_resumable(tmp_path, start, number, code, group):
    process = start("seed=0,1,2,3", "epochs=100000", "sweep.parallel=2")
    folder = tmp_path / "run" / "results"
    deadline = time.monotonic() + 120
    while [path.read_text().count("\n") > 1 for path in records.paths(folder)] != [True, True]:
        assert process.poll() is None and time.monotonic() < deadline
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


@pytest.mark.parametrize(("kind", "said"), [("die", "exit code -9"), ("raise", "ZeroDivisionError: a bug")])
def test_a_run_that_takes_its_process_with_it_leaves_the_others_alone(tmp_path, start, kind, said):
    process = start("seed=0,1,2,3", "sweep.parallel=2", BREAK=f"{kind}:1")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said in error
    made = [records.read(path) for path in records.paths(tmp_path / "run" / "results")]
    assert [record.status for record in made] == ["done"] * 3
    assert sorted(record.run["config"]["seed"] for record in made) == [0, 2, 3]


def test_a_mistake_only_the_data_shows_is_one_line_and_stops_no_other_run(tmp_path, start):
    process = start("batch=8,4000", "sweep.parallel=2")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error == "lbt: batch=4000: larger than the training set of 44 images\n"
    assert len(records.paths(tmp_path / "run" / "results")) == 1


def test_mistakes_are_found_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *TINY, "sweep.parallel=0"]) == 2
    assert "sweep.parallel=0: expected 1 or more" in capsys.readouterr().err
    assert main(["train", "-m", *TINY, "sweep.parallel=2", "seed=0,1", "epochs=0"]) == 2
    assert not (tmp_path / "results").exists()


def test_another_launcher_has_its_own_processes():
    sweeper = sweep.GridSweeper(None, None)
    with sweep._hydra():
        loader = sweep.GlobalHydra.instance().config_loader()
        sweeper.hydra_context = type("Context", (), {"config_loader": loader})
        words = [*TINY, "sweep.parallel=2", "seed=0,1"]
        sweeper.config = loader.load_configuration("train", overrides=words, run_mode=sweep.RunMode.MULTIRUN)
        sweeper.launcher = object()
        with pytest.raises(UserError, match="sweep.parallel=2: object has processes of its own"):
            sweeper.sweep(words)
