"""A copy of the record in Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from lbt.config import Config
from lbt.errors import UserError, flat
from lbt.identity import to_json
from lbt.records import places
from lbt.session.mirrors.lines import numbers


class WeightsAndBiases:
    """Sends a run's lines to Weights & Biases.

    Args:
        config: of the run.
        run_id: the run's id, there too.

    Raises:
        UserError: it is not installed, or refuses: no key is configured, say.
    """

    def __init__(self, config: Config, run_id: str):
        wandb = self.require()
        folder = places.work_folder(config.results_dir)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                mode=config.wandb.mode,
                project=config.wandb.project,
                entity=config.wandb.entity,
                id=run_id,
                resume="allow" if config.wandb.mode == "online" else None,
                group=config.experiment,
                config=to_json(config),
                dir=str(folder),
                reinit="finish_previous",
                settings=wandb.Settings(quiet=True),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:  # not what a network fails at
            raise UserError(f"wandb.mode={config.wandb.mode}: {flat(error)}") from error

    @staticmethod
    def require() -> Any:
        """Returns the wandb module.

        Raises:
            UserError: it is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise UserError("wandb is not installed; pip install wandb, or wandb.mode=disabled") from None
        return wandb

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Sends an epoch's numbers."""
        self._run.log(dict(numbers(line)), step=line["epoch"])

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Sends the end's line."""
        self._run.summary.update({"status": status, **summary})

    def close(self) -> None:
        """Ends the run there; without it the runs of one process would merge into one."""
        self._run.finish()
