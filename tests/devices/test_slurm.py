import os

import pytest

from lbt import devices
from lbt.devices import slurm

STEP = {
    "SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "3(x2)",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456",
}  # fmt: skip


@pytest.fixture
def step(monkeypatch, tmp_path):
    """The environment of a task, and a `scontrol` that names its nodes."""
    monkeypatch.setattr(os, "environ", {**STEP, "PATH": str(tmp_path)})
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[07-08]" ] && echo gpu07 && echo gpu08\n')
    program.chmod(0o755)
    return os.environ


@pytest.mark.parametrize("wanted", [6, "auto"])
def test_a_task_is_the_process_that_slurm_counts(step, wanted):
    slurm.take_part(wanted)
    assert devices.started() and devices.world_size() == 6 and not devices.speaks()
    known = {key: step[key] for key in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")}
    assert known == {"RANK": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "gpu07"}
    port = step["MASTER_PORT"]
    step.update(STEP, SLURM_PROCID="0")
    for name in devices.GIVEN:
        del step[name]
    slurm.take_part(wanted)
    assert devices.speaks() and step["MASTER_PORT"] == port  # all tasks meet at one place


@pytest.mark.parametrize("wanted", [1, 2])
def test_tasks_with_another_number_of_devices_are_commands_of_their_own(step, wanted):
    slurm.take_part(wanted)
    assert not devices.started() and devices.speaks()


def test_one_task_and_torchs_own_processes_are_left_alone(step):
    step["SLURM_STEP_NUM_TASKS"] = "1"
    slurm.take_part("auto")
    assert not devices.started()
    step["SLURM_STEP_NUM_TASKS"] = "6"
    torchs = dict.fromkeys(devices.GIVEN, "9")
    step.update(torchs)
    slurm.take_part(6)
    assert {name: step[name] for name in devices.GIVEN} == torchs
