"""`lbt train devices=2` as a user meets it: killed, told to stop, gone on with, and with a mistake."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import support
import torch
from exact import numbers
from support import TINY, run_tiny, tiny_config

from lbt import build, records
from lbt.cli import main
from lbt.devices.group import Group
from lbt.devices.launch import _error
from lbt.devices.processes import Processes
from lbt.records import places
from lbt.run import run
from lbt.session.console import ConsoleReporter
from lbt.train.beginning import placed

distributed = pytest.importorskip("torch.distributed")
if not (distributed.is_available() and distributed.is_gloo_available()):
    pytest.skip("needs gloo", allow_module_level=True)

# A file, not a text: the processes of a run import the main module, which brings the tests' small model with it.
PROGRAM = """
import sys

sys.path.insert(0, {tests!r})
import support

if __name__ == "__main__":
    from lbt.cli import main
    sys.exit(main(["train", *sys.argv[1:]]))
"""
LONG = ["epochs=4000", "schedule=constant", "optimizer=sgd", "lr=0.01"]


@pytest.fixture
def start(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=os.path.dirname(support.__file__)))

    begun = []

    def started(*words, launcher=()):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launcher, program, *TINY, *words]
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes))
        return begun[-1]

    yield started
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def processes(command, results):
    """The processes of a command's run, once its first epoch is recorded; the first that it starts is Python's own."""
    began = time.time()
    while time.time() < began + 240 and command.poll() is None:
        written = [path for path in records.paths(results) if path.stat().st_mtime > began]
        if written and written[0].read_bytes().count(b"\n") > 1:
            return sorted(int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and parent(pid) == command.pid)[1:]
        time.sleep(0.05)
    raise AssertionError(command.communicate())


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return -1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_killed_or_told_to_stop_a_run_goes_on_with_the_same_command(tmp_path, start):
    results = tmp_path / "results"
    command = start(*LONG, "devices=2")
    victim = processes(command, results)[-1]
    os.kill(victim, signal.SIGKILL)
    said, error = command.communicate(timeout=60)
    assert command.returncode == 1
    assert error.count("\n") == 1 and f"(process {victim}) was killed by SIGKILL" in error
    assert "the same command goes on" in error
    assert said.count("run ") == 1  # one process speaks

    command = start(*LONG, "devices=2")
    processes(command, results)
    os.killpg(command.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    said, error = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGINT and error == ""
    assert said.count("interrupted after") == 1 and "on 2 devices" in said
    (path,) = records.paths(results)
    stopped = records.read(path)
    assert stopped.status == "interrupted" and stopped.run["provenance"]["devices"] == 2
    state = torch.load(places.checkpoint_of(results, path.stem), weights_only=True)
    assert state["progress"]["step"] == stopped.end["summary"]["steps"]


def test_torchruns_processes_make_one_run_and_tell_a_mistake_once(tmp_path, start):
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--log-dir={tmp_path / 'torchrun'}"]
    command = start(launcher=torchrun)
    said, error = command.communicate(timeout=240)
    assert command.returncode == 0, error
    assert said.count("done") == said.count("epoch 4/4") == 1
    alone = run_tiny(tmp_path / "alone")
    (path,) = records.paths(tmp_path / "results")
    assert path.stem == alone.id
    for line, wanted in zip(numbers(path), numbers(alone.path), strict=True):
        assert line == pytest.approx(wanted, rel=1e-4)

    command = start("optimizer=larz", launcher=torchrun)
    said, error = command.communicate(timeout=240)
    assert command.returncode != 0 and said == ""
    assert error.count('there is no optimizer "larz"') == 1


def test_a_sweep_is_counted_by_the_process_that_writes(tmp_path, monkeypatch, capfd):
    def launch(work, arguments, *, count, interrupt):
        config, reporter = pickle.loads(pickle.dumps(arguments))  # as to another process
        return work(interrupt, replace(config, devices=1), reporter)

    monkeypatch.setattr("lbt.run.launch", launch)
    words = ["epochs=1", "devices=2", "seed=1,2", f"results_dir={tmp_path}"]
    assert main(["train", "-m", *TINY, *words]) == 0
    said = capfd.readouterr().out
    assert said.count("run 1 of 2") == said.count("run 2 of 2 (1 done") == 1


class Full(torch.Tensor):
    """Images for which a device has no room."""

    def to(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_images_without_room_are_told_with_their_size_on_each_device(tmp_path, monkeypatch, capsys):
    config = tiny_config(tmp_path)
    images = build.images(config)
    huge = torch.zeros(1, dtype=torch.uint8).expand(3 * 2**30).as_subclass(Full)
    images = replace(images, train_images=huge)
    with pytest.raises(MemoryError, match=r"data=synthetic: its images take 3\.0 GiB, whole on each of 4 ") as caught:
        placed(config, images, torch.device("cpu"), 4)
    message = {"message": f"{type(caught.value).__name__}: {caught.value}"}
    error = _error(2, SimpleNamespace(pid=7, exitcode=1, message=message))
    assert error.out_of_memory and str(error) == f"device 2 (process 7): {caught.value}"

    images = replace(images, train_images=build.images(config).train_images.as_subclass(Full))
    monkeypatch.setattr("lbt.run._images", lambda config: images)
    monkeypatch.setattr("lbt.fit.fits", lambda config, images: None)
    assert run(config, reporter=ConsoleReporter()).status == "oom"
    assert "its images take 0.0 GiB, for which there is no memory; data=image_stream" in capsys.readouterr().out


@pytest.mark.parametrize("count", ["0", "half", "1.5"])
def test_a_number_of_devices_that_is_none_is_a_mistake(count, capfd, tmp_path):
    assert main(["train", *TINY, f"results_dir={tmp_path}", f"devices={count}"]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"lbt: devices={count}: expected") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("count", "micro", "unit", "size"), [(16, None, 1, 3), (34, 5, 1, 2), (40, 16, 4, 3), (2, None, 1, 3), (9, 4, 4, 2)]
)
def test_the_devices_parts_make_up_the_batch(count, micro, unit, size):
    """Each image is computed once, or all of a micro-batch by every device; parts are whole units and nearly equal."""
    made = []
    for rank in range(size):
        group = Processes.__new__(Processes)
        group.rank, group.size = rank, size
        made.append(group.parts(count, micro, unit))
    whole = Group().parts(count, micro, unit)
    for parts, alone in zip(zip(*made, strict=True), whole, strict=True):
        if parts[0].everywhere:
            assert all(part == alone for part in parts) and -(-alone.size // unit) < size
            continue
        rows = [row for part in parts for row in range(part.start, part.stop)]
        assert rows == list(range(alone.start, alone.stop))
        assert all((part.start - part.first) % unit == 0 for part in parts)
        assert max(part.size for part in parts) - min(part.size for part in parts) <= max(unit, 1)
        assert sum(part.weight for part in parts) == pytest.approx(size)
