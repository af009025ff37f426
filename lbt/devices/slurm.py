"""The tasks of a Slurm step as the processes of a run: what torch's launchers tell a process, from what Slurm does."""

import os
import re
import subprocess

from lbt.devices import GIVEN, started
from lbt.errors import UserError, flat

PORTS = range(15000, 31000)  # below those that systems give out by themselves


def take_part(devices: int | str) -> None:
    """Makes this process, one of several tasks of a Slurm step, one of the processes of a run; else does nothing.

    `srun --ntasks=8 lbt train devices=8`, or a launcher that starts several tasks, then trains one run. With another
    number of devices the tasks are commands of their own, as several terminals would be.

    Args:
        devices: of the run; "auto": as many as there are tasks.

    Raises:
        UserError: Slurm does not tell where its first task is.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if started() or tasks == "1" or "SLURM_PROCID" not in os.environ or str(devices) not in (tasks, "auto"):
        return
    given = {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": re.match(r"\d*", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))[0] or "1",
        "MASTER_ADDR": _first_host(),
        "MASTER_PORT": str(PORTS[int(os.environ["SLURM_JOB_ID"]) % len(PORTS)]),
    }
    assert given.keys() >= set(GIVEN)
    os.environ.update(given)


def _first_host() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", os.environ.get("SLURM_STEP_NODELIST", "")]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return said.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise UserError(f"devices: Slurm does not tell the nodes of this step ({flat(error)})") from error
