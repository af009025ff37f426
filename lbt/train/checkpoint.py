"""What an interrupted run needs to go on bit for bit, in one file beside the records."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from lbt.errors import UserError, flat
from lbt.records import replace_file

SCHEMA = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors, numbers, texts and containers of them; as a whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Returns the state `save` wrote, or None where there is none that can be read by this version."""
    if not path.is_file():  # nor a pipe, at which a read would wait
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, LookupError, ValueError, OSError, pickle.UnpicklingError):
        return None  # a damaged file: the run starts again
    return state if isinstance(state, dict) and state.get("schema") == SCHEMA else None


def state_of(training: Any) -> dict[str, Any]:
    """Returns what decides the rest of a `lbt.train.Training`, as `save` takes it."""
    state = {
        "device": training.device.type,
        **{part: owner.state_dict() for part, owner in _parts(training)},
        "random": torch.get_rng_state(),
        "step": training.step,
        "epoch": training.epoch,
        "seen": training.seen,
        "sums": training.sums,
        "wall_seconds": training.seconds(),
        "lines": training.record.lines,
    }
    if training.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state()
    return state


def restore(training: Any, state: dict[str, Any]) -> None:
    """Puts a training that has just been made where `state_of` found it; its record is the caller's to open.

    Raises:
        UserError: the state is that of other parts: another version of the program wrote it.
    """
    try:
        _restore(training, state)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{training.checkpoint_path}: does not fit this version of lbt; without it the run starts again "
            f"({flat(error)})"
        ) from error


def _restore(training: Any, state: dict[str, Any]) -> None:
    for part, owner in _parts(training):
        owner.load_state_dict(state[part])
    torch.set_rng_state(state["random"].cpu())
    if "random_cuda" in state and training.device.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"].cpu())
    training.step, training.epoch, training.seen = state["step"], state["epoch"], state["seen"]
    training.sums, training.wall_seconds = state["sums"], state["wall_seconds"]


def _parts(training: Any) -> list[tuple[str, Any]]:
    parts = ("model", "optimizer", "data", "average", "norms")
    return [(part, getattr(training, part)) for part in parts if getattr(training, part) is not None]
