import os

import pytest
from support import tiny_config

from lbt.session.outcome import Outcome
from lbt.sweep import gpus
from lbt.sweep.parallel import launch
from lbt.sweep.tally import Tally


@pytest.mark.parametrize(
    ("count", "workers", "devices", "expected"),
    [
        (8, 8, 1, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        (8, 4, 2, ["0,1", "2,3", "4,5", "6,7"]),
        (8, 2, "auto", ["0,1,2,3", "4,5,6,7"]),
        (2, 4, 1, ["0", "1", "0", "1"]),  # more runs than GPUs: they share
        (3, 2, 2, ["0,1", "0,1"]),  # one GPU is left over rather than a run given less than it asked for
        (1, 3, "auto", ["0", "0", "0"]),
        (2, 1, 4, ["0,1"]),  # the run itself says that there are too few
        (0, 3, 1, [None, None, None]),
    ],
)
def test_gpus_are_divided_among_the_processes(count, workers, devices, expected):
    assert gpus.divided([str(number) for number in range(count)], workers, devices) == expected


def seen(config, interrupt, reporter):
    return Outcome(os.environ.get(gpus.VISIBLE, "all"), "done", config)


def test_each_process_of_a_sweep_sees_its_own_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv(gpus.VISIBLE, "GPU-a,GPU-b,GPU-c")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    configs = [tiny_config(tmp_path, "device=cuda", f"seed={seed}") for seed in range(3)]
    outcomes = launch(seen, configs, 3, Tally(configs, [None] * 3, 3))
    assert {outcome.id for outcome in outcomes} <= {"GPU-a", "GPU-b", "GPU-c"}
    assert gpus.shares(configs, 3) == ["GPU-a", "GPU-b", "GPU-c"]


def test_runs_on_the_cpu_leave_the_gpus_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert gpus.shares([tiny_config(tmp_path, "device=cpu")] * 2, 2) == [None, None]
