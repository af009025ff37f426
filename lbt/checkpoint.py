"""What an interrupted run needs to go on bit for bit, in one file beside the records."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from lbt.records import replace_file

SCHEMA = 1


def folder(results_dir: str | Path) -> Path:
    """Returns the folder of checkpoints and locks; nothing in it is a result."""
    return Path(results_dir) / "work"


def path_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns where a run's checkpoint lies."""
    return folder(results_dir) / f"{run_id}.pt"


def lock_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns the file whose lock a process holds while it executes the run."""
    return folder(results_dir) / f"{run_id}.lock"


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers, texts and containers of them; as a whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Returns the state `save` wrote, or None where there is none that can be read by this version."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError):
        return None  # a damaged file: the run starts again
    return state if state.get("schema") == SCHEMA else None
