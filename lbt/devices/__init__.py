"""Several devices for one run: which process is which, what it computes of a batch, and what they tell each other.

The number of devices changes nothing of a run but rounding. `batch` is the whole batch; each device computes a part of
it, gradients are averaged by DistributedDataParallel, batch norm goes over all parts, and one process writes.
"""

import os

GIVEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torch's launchers tell a process

# Torch's C++ warns of each process that no parameter is unused, which is as it should be (see `Processes.exchange`).
QUIET = ("TORCH_CPP_LOG_LEVEL", "ERROR")


def started() -> bool:
    """Says whether torch's launcher started this process as one of several."""
    return world_size() > 1


def world_size() -> int:
    """Returns the number of processes that torch's launcher started, 1 without one."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in GIVEN) else 1


def speaks() -> bool:
    """Says whether this process is the one that writes to the console."""
    return not started() or os.environ["RANK"] == "0"
