"""What a run is executed on: device, precision, seeds, provenance."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torchvision

from lbt.config import Config
from lbt.devices import started, world_size
from lbt.errors import UserError


def settle(config: Config, *, elsewhere: bool = False) -> Config:
    """Returns the configuration as it is used on this machine.

    `device`, `devices` and `precision` are resolved, `init_from` is by its content, and what files leave out is stated
    where it is on by default.

    Args:
        config: as composed.
        elsewhere: the run is only asked about; `device=cuda` may mean another machine, with a GPU of these years.

    Raises:
        UserError: CUDA is asked for and there is none, more devices than there are, or more threads than this machine
            has cores; there are no such weights.
    """
    if config.init_from is not None:
        from lbt import weights  # few runs need it

        config = replace(config, init_from=weights.settled(config.init_from, config.results_dir))
    if config.device == "cuda" and not torch.cuda.is_available():
        if elsewhere:
            return replace(_complete(config), precision="bf16" if config.precision == "auto" else config.precision)
        raise UserError("device=cuda: this torch sees no CUDA device; use device=cpu or device=auto")
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _computes_in_bf16(device) else "fp32"
    if config.threads != "auto" and config.threads > (most := cores()) and not elsewhere:
        raise UserError(f"threads={config.threads}: there are {most} cores here; use threads={most} or threads=auto")
    config = _complete(config)
    return replace(config, device=device, devices=_devices(config.devices, device), precision=precision)


def _complete(config: Config) -> Config:
    from lbt import build  # what asks for a device and no run need not load it

    return build.completed(config)


def _devices(wanted: int | str, device: str) -> int:
    """Returns the number of processes that share a run's batches, each with a device."""
    if started():
        if wanted not in (1, "auto", world_size()):
            raise UserError(f"devices={wanted}: {world_size()} processes have been started; leave the setting out")
        return world_size()
    found = torch.cuda.device_count() if device == "cuda" else None
    if wanted == "auto":
        return found or 1  # a CPU's cores work in one process
    if found is not None and wanted > found:
        raise UserError(f"devices={wanted}: this machine has {found} GPU(s); use devices={found} or devices=auto")
    return wanted


def _computes_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return any(getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile"))


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Has torch compute with so many CPU threads from now on; nothing else says how many."""
    torch.set_num_threads(count)


@contextmanager
def own_threads() -> Iterator[None]:
    """Gives the process its number of CPU threads back afterwards: what one run uses is not the next one's."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        use_threads(before)


def prepare(config: Config) -> torch.device:
    """Seeds torch, sets the threads and what `deterministic` asks for and returns the device."""
    torch.manual_seed(config.seed)
    if config.threads != "auto":
        use_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.allow_tf32 = False  # fp32 is what it says, and what it is on a CPU
    return torch.device(config.device)


def provenance(device: torch.device) -> dict[str, Any]:
    """Returns what made a record: code, libraries, machine and time."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name")
    return {
        "lbt": _own_version(),
        **_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": device.type,
        "device_name": name or platform.machine(),
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _own_version() -> str:
    try:
        return version("lbt")
    except PackageNotFoundError:  # run from a source tree
        return "source"


@cache
def _commit() -> dict[str, Any]:
    """Returns the source tree's commit and whether it had changes; nulls for an installed package.

    A copy of a source tree without its history (a container, a remote job) may say its commit in `$LBT_COMMIT`.
    """
    tree = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tree), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != tree:
            return {"commit": None, "dirty": None}
        # Results are what runs write; only code and configuration decide what a run computes.
        changes = git("status", "--porcelain", "--", "lbt", "configs", "pyproject.toml")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": os.environ.get("LBT_COMMIT"), "dirty": None}
