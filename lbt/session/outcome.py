"""What became of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbt.config import Config


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        id: the run's, empty where it was not started.
        status: its record's, `running` where another process holds it, or `not started` where time was used up.
        config: as it was executed.
        path: its record.
        summary: the last epoch's figures and the run's length.
        recorded_before: it had been finished before.
        unmeasured: probes that were asked for, and that it was made without.
        changed: what is not as it was when the run was recorded, a text for each plug-in.
    """

    id: str
    status: str
    config: Config
    path: Path | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    recorded_before: bool = False
    unmeasured: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
