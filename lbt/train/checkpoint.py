"""What an interrupted run needs to go on bit for bit, in one file beside the records: a dictionary of parts' states."""

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from lbt.devices.group import ALONE, Group
from lbt.errors import UserError, flat
from lbt.records import replace_file
from lbt.train.memory import is_out_of_memory

SCHEMA = 2


class OtherDeviceError(UserError):
    """Another kind of device wrote the checkpoint, whose generators are others."""


class Stateful(Protocol):
    """A part of a training: what it gives is what it takes up."""

    def state_dict(self) -> Mapping[str, Any]:
        """Returns tensors, numbers, texts and containers of them."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Takes up what `state_dict` gave."""


def save(path: Path, device: torch.device, lines: list[str], parts: Mapping[str, Stateful]) -> None:
    """Writes the parts' states and the record's lines that belong to them; as a whole or not at all."""
    state = {"schema": SCHEMA, "device": device.type, "lines": lines}
    buffer = io.BytesIO()
    torch.save({**state, **{name: part.state_dict() for name, part in parts.items()}}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def restore(path: Path, device: torch.device, parts: Mapping[str, Stateful], group: Group = ALONE) -> list[str] | None:
    """Puts parts that have just been made where `save` found them, on all devices; the file need only be on the first.

    Returns:
        The record's lines. None: there is no checkpoint, or a damaged one; the run starts from the beginning.

    Raises:
        UserError: it is that of other parts, another version of the program or another kind of device
            (`OtherDeviceError`), or it is no file.
    """
    found = group.first(partial(_find, path, copied=group.size > 1))
    state = None if found is None else _load(found, device)
    if state is None:
        return None
    if (wrote := state.get("device", device.type)) != device.type:
        raise OtherDeviceError(
            f"{path}: was written on {wrote}, and this is {device.type}: device={wrote} goes on with the run; "
            "without the file it starts again"
        )
    try:
        if state["schema"] != SCHEMA:
            raise ValueError(f"it is of schema {state['schema']}, not {SCHEMA}")
        lines = list(state["lines"])
        if not lines or not all(isinstance(line, str) for line in lines):
            raise ValueError("it holds no lines of a record")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except Exception as error:  # a part given another one's state may raise anything
        if is_out_of_memory(error):
            raise
        said = f"{path}: does not fit this version of lbt; without it the run starts again"
        raise UserError(f"{said} ({type(error).__name__}: {flat(error)})") from error
    return lines


def _find(path: Path, *, copied: bool) -> Path | bytes | None:
    """Returns the file, None where there is none; `copied`: its content."""
    if not path.exists():
        return None
    if not path.is_file():  # reading a pipe would wait for ever
        raise UserError(f"{path}: not a file; without it the run starts again")
    return path.read_bytes() if copied else path


def _load(found: Path | bytes, device: torch.device) -> dict[str, Any] | None:
    try:
        source = io.BytesIO(found) if isinstance(found, bytes) else found
        state = torch.load(source, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        if is_out_of_memory(error):
            raise
        return None
    return state if isinstance(state, dict) and "schema" in state else None
