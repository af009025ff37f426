"""scripts/run_table.sh: once with the real command on a tiny grid, and with one that only notes how it was called."""

import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from support import REPOSITORY

from lbt import records

SCRIPT = REPOSITORY / "scripts" / "run_table.sh"
FAKE = """
echo "$LBT_SWEEP_STARTED $*" >>calls
[[ "$*" != *=wrong* ]] || exit 2
[[ "$*" != *=slow* ]] || { trap 'echo stopped >>calls; exit 143' TERM; touch begun; while :; do sleep 0.05; done; }
mkdir -p other/runs/e
for status in done diverged failed interrupted; do
  printf '{}\\n{"kind": "end", "status": "%s", "summary": {}}\\n' $status >other/runs/e/$status.jsonl
done
echo '{"kind": "epoch"}' >other/runs/e/unfinished.jsonl
"""


def start(folder, *words, command, jobs=1):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LBT": command, "JOBS": str(jobs)}
    environment.pop("LBT_SWEEP_STARTED", None)
    return subprocess.Popen(
        [SCRIPT, *words], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process):
    out, err = process.communicate(timeout=170)
    return process.returncode, out, err


def packed(archive):
    with tarfile.open(archive) as file:
        return sorted(file.getnames())


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "lbt.sh").write_text(FAKE)
    return f"bash {tmp_path / 'lbt.sh'}"


def test_records_are_packed_unpacked_elsewhere_and_not_made_again(tmp_path):
    command = f"{sys.executable} -m lbt"
    words = ["quickstart", "--", "epochs=1", "device=cpu", "precision=fp32", "seed=0", "lr=0.1", "batch=64"]
    words.append("data.subset=128")
    code, _, err = finish(start(tmp_path, "5m", "new.tgz", *words, "optimizer=nesterov", command=command))
    assert code == 0, err
    (first,) = packed(tmp_path / "new.tgz")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "results").mkdir(parents=True)
    subprocess.run(["tar", "xzf", tmp_path / "new.tgz", "-C", elsewhere / "results"], check=True)
    code, out, err = finish(start(elsewhere, "5m", "out/more.tgz", *words, "optimizer=nesterov,lars", command=command))
    assert code == 0, err
    assert "1 of 2 runs have been finished before" in out and "1 new records in out/more.tgz" in out
    (second,) = packed(elsewhere / "out" / "more.tgz")
    assert first != second
    assert [records.read(path).status for path in records.paths(elsewhere / "results")] == ["done", "done"]


def test_what_came_to_an_end_since_the_start_is_packed(tmp_path, fake):
    old = tmp_path / "other" / "runs" / "e" / "old.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text('{"kind": "end", "status": "done", "summary": {}}\n')
    time.sleep(0.05)  # the file system's clock ticks
    code, out, err = finish(start(tmp_path, "5m", "new.tgz", "e", "--", "results_dir=other", command=fake))
    assert code == 0, err
    assert packed(tmp_path / "new.tgz") == [f"runs/e/{status}.jsonl" for status in ("diverged", "done", "failed")]
    assert "3 new records" in out


def test_all_experiments_share_one_clock_and_a_mistake_stops_none(tmp_path, fake):
    words = ["one", "wrong", "two", "--", "seed=0", "results_dir=other"]
    code, _, err = finish(start(tmp_path, "90s", "new.tgz", *words, command=fake, jobs=2))
    assert code == 2, err
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert len({clock for clock, *_ in calls}) == 1 and abs(float(calls[0][0]) - time.time()) < 100
    wanted = [
        f"train -m +experiment={name} time_budget=90s seed=0 results_dir=other" for name in ("one", "wrong", "two")
    ]
    assert [" ".join(words) for _, *words in calls] == [text for text in wanted for _ in range(2)]
    assert len(packed(tmp_path / "new.tgz")) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_sweep_and_packs_what_there_is(tmp_path, fake, number, code):
    process = start(tmp_path, "5m", "new.tgz", "one", "slow", "two", "--", "results_dir=other", command=fake)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert finish(process)[0] == code
    calls = (tmp_path / "calls").read_text()
    assert "stopped" in calls and "=two" not in calls
    assert len(packed(tmp_path / "new.tgz")) == 3


@pytest.mark.parametrize("words", [[], ["5m"], ["5m", "new.tgz"], ["5m", "new.tgz", "--", "seed=1"]])
def test_too_few_arguments_show_the_usage(tmp_path, words):
    code, out, err = finish(start(tmp_path, *words, command="false"))
    assert code == 2 and out == "" and "scripts/run_table.sh BUDGET ARCHIVE EXPERIMENT" in err
    assert "set -e" not in err and list(tmp_path.iterdir()) == []


GPU_SCRIPT = REPOSITORY / "scripts" / "run_gpu.sh"
FAKE_PYTHON = """
echo "$*" >>calls
echo "said $*"
[[ "$*" != *pytest* || "$*" != *optim* || ! -e broken ]] || exit 1
"""


def spend(folder, fake, *words):
    (folder / "python.sh").write_text(FAKE_PYTHON)
    environment = {**os.environ, "PYTHON": f"bash {folder / 'python.sh'}", "LBT": fake, "EXPERIMENTS": "one two"}
    environment.pop("LBT_SWEEP_STARTED", None)
    process = subprocess.run(
        [GPU_SCRIPT, *words], cwd=folder, env=environment, text=True, capture_output=True, timeout=170
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return process, calls


def test_the_gpu_script_tests_first_then_measures_then_trains_and_packs_all_of_it(tmp_path, fake):
    process, calls = spend(tmp_path, fake, "5m", "new.tgz", "--", "results_dir=other")
    assert process.returncode == 0, process.stderr
    kinds = ["tests/optim", "tests/train", "bench_gpu", "bench_optimizers", "=one", "=two"]
    assert [any(kind in call for call in calls) for kind in kinds] == [True] * 6
    assert [next(i for i, call in enumerate(calls) if kind in call) for kind in kinds] == list(range(6))
    names = packed(tmp_path / "new.tgz")
    assert {f"./runs/e/{status}.jsonl" for status in ("done", "diverged", "failed")} < set(names)
    assert {"./gpu/tests_optimizers.txt", "./gpu/bench_gpu.txt"} < set(names)


def test_a_failed_gpu_test_is_the_exit_code_and_the_rest_is_done_all_the_same(tmp_path, fake):
    (tmp_path / "broken").touch()
    process, calls = spend(tmp_path, fake, "5m", "new.tgz", "--", "results_dir=other")
    assert process.returncode == 1 and any("=two" in call for call in calls)
    assert "./runs/e/done.jsonl" in packed(tmp_path / "new.tgz")


@pytest.mark.parametrize("words", [["9", "new.tgz"], ["9m"], ["9m", "new.tgz", "one"]])
def test_the_gpu_script_says_how_it_is_called(tmp_path, fake, words):
    process, calls = spend(tmp_path, fake, *words)
    assert process.returncode == 2 and "BUDGET" in process.stderr and not calls


def test_what_a_gpu_has_measured_is_packed_before_it_trains(tmp_path, fake):
    (tmp_path / "python.sh").write_text(FAKE_PYTHON)
    environment = {**os.environ, "PYTHON": f"bash {tmp_path / 'python.sh'}", "LBT": fake, "EXPERIMENTS": "slow"}
    environment.pop("LBT_SWEEP_STARTED", None)
    words = [GPU_SCRIPT, "5m", "new.tgz"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {"./gpu/tests_optimizers.txt", "./gpu/bench_gpu.txt"} < set(packed(tmp_path / "new.tgz"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
