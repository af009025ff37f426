"""Where the branches of a training begin: its state at the branching point, kept for all of them.

A branch (`lbt.config.BranchConfig`) is a run that can be trained from its beginning like any other: up to the branching
point it is the trunk, update for update. As its siblings, and the branches at later points, have that part in common,
whoever trains it keeps the state it ends with, and the others begin from there: bit for bit what they would have come
to. The kept states may be deleted at any time; then the part before them is trained again.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lbt.config import Config
from lbt.data import ImageSet
from lbt.devices.group import Group
from lbt.identity import identity, run_id
from lbt.records import places
from lbt.train import checkpoint

MADE_BY = ("lbt", "commit", "dirty", "torch", "device_name", "threads", "started")  # of who trained it


class Trunk:
    """The training that a branch departs from.

    Args:
        config: settled configuration of the branch.
        images: its data.

    Attributes:
        name: id of the run that the training would be as a whole.
        at: epochs after which the branch departs.
    """

    def __init__(self, config: Config, images: ImageSet):
        self.name = run_id(identity(replace(config, branch=None)), images.fingerprint)
        self.at = config.branch.at
        self._folder = places.trunks_folder(config.results_dir)
        measured = json.dumps([config.probes, asdict(config.probe)]) if config.probes else ""  # it is in the lines
        self._stem = self.name + (measured and f"-{hashlib.sha256(measured.encode()).hexdigest()[:8]}")

    def keep(self, device: torch.device, lines: list[str], parts: Mapping[str, checkpoint.Stateful]) -> None:
        """Keeps the state at the branching point; a full disk costs time alone."""
        with suppress(OSError):
            checkpoint.save(self._path(self.at), device, lines, parts)

    def restore(
        self, device: torch.device, parts: Mapping[str, checkpoint.Stateful], group: Group
    ) -> tuple[list[str], dict[str, Any]] | None:
        """Puts parts that have just been made at the last kept state up to the branching point.

        Returns:
            The trunk's lines, and what is recorded of who trained them; None: there is no such state.
        """
        for epoch in group.first(self._kept):
            lines = None
            with suppress(checkpoint.OtherDeviceError):
                lines = checkpoint.restore(self._path(epoch), device, parts, group)
            if lines is not None:
                made_by = json.loads(lines[0])["provenance"]
                return lines, {"epochs": epoch, **{key: made_by[key] for key in MADE_BY if key in made_by}}
        return None

    def _path(self, epoch: int) -> Path:
        return self._folder / f"{self._stem}_{epoch}.pt"

    def _kept(self) -> list[int]:
        """Returns after how many epochs there is a state that fits, the latest first."""
        return [epoch for epoch in range(self.at, 0, -1) if self._path(epoch).exists()]
