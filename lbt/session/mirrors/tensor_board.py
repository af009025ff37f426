"""A copy of the record for TensorBoard: `tensorboard --logdir results/tensorboard`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lbt.config import Config
from lbt.errors import UserError
from lbt.identity import to_json
from lbt.session.mirrors.lines import numbers


class TensorBoard:
    """Writes a run's lines to `<results>/tensorboard/<experiment>/<id>`, the epoch being the step.

    Args:
        config: of the run.
        run_id: the run's id.

    Raises:
        UserError: it is not installed.
    """

    def __init__(self, config: Config, run_id: str):
        self._open = self.require()
        self._folder = Path(config.results_dir) / "tensorboard" / config.experiment / run_id
        self._settings = to_json(config)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = None

    @staticmethod
    def require() -> Any:
        """Returns torch's `SummaryWriter`.

        Raises:
            UserError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "mirror=tensorboard: tensorboard is not installed; pip install 'lbt[tensorboard]'"
            ) from None
        return SummaryWriter

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Writes an epoch's numbers."""
        writer, step = self._writer_from(line["epoch"]), line["epoch"]
        for name, number in numbers(line):
            if name != "epoch":
                writer.add_scalar(name, number, step)
        writer.flush()

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Writes how the run ended."""
        step = summary.get("epochs", 0)
        self._writer_from(step + 1).add_text("status", status, step)

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _writer_from(self, epoch: int) -> Any:
        """Returns the writer; the first call opens it, and of an earlier file the epochs from this one on are gone."""
        if self._writer is None:
            goes_on = any(self._folder.glob("events.*"))
            self._writer = self._open(str(self._folder), purge_step=epoch if goes_on else None)
            if not goes_on:
                lines = OmegaConf.to_yaml(OmegaConf.create(self._settings)).splitlines()
                self._writer.add_text("configuration", "\n".join(f"    {line}" for line in lines), 0)
        return self._writer
