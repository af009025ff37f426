"""Which GPUs each of a sweep's processes has, where several run side by side."""

import os
from collections.abc import Sequence

from lbt.config import Config

VISIBLE = "CUDA_VISIBLE_DEVICES"  # CUDA's own variable: a process sees these, as its devices 0, 1, ...


def shares(configs: Sequence[Config], workers: int) -> list[str | None]:
    """Returns what each worker's `CUDA_VISIBLE_DEVICES` is to be; None: as it is, where no run asks for a GPU.

    Args:
        configs: of the sweep's runs, settled or not.
        workers: processes at once.
    """
    if all(config.device == "cpu" for config in configs):
        return [None] * workers
    return divided(visible(), workers, max((config.devices for config in configs), key=_wanted))


def _wanted(devices: int | str) -> int:
    return 0 if devices == "auto" else int(devices)


def visible() -> list[str]:
    """Returns the GPUs that this process may use, by what CUDA calls them; starts no CUDA."""
    import torch

    named = os.environ.get(VISIBLE)
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def divided(gpus: Sequence[str], workers: int, devices: int | str) -> list[str | None]:
    """Returns each worker's GPUs, joined by commas; as few workers as possible share one.

    Args:
        gpus: those there are.
        workers: processes at once.
        devices: GPUs of one run; "auto": a worker's equal share of all.
    """
    if not gpus:
        return [None] * workers
    size = max(1, len(gpus) // workers) if devices == "auto" else min(int(devices), len(gpus))
    groups = [",".join(gpus[first : first + size]) for first in range(0, len(gpus) - size + 1, size)]
    return [groups[worker % len(groups)] for worker in range(workers)]
