"""A copy of the record in Weights & Biases; the record stays the source."""

from collections.abc import Iterator, Mapping
from typing import Any

from lbt.config import Config
from lbt.errors import UserError, flat
from lbt.identity import to_json
from lbt.records import places


class Mirror:
    """Sends a run's lines to Weights & Biases; does nothing, and imports nothing, where `wandb.mode=disabled`.

    Raises:
        UserError: it is switched on and not installed, or refuses: no key is configured, say.
    """

    def __init__(self, config: Config, name: str):
        self._run = None
        if config.wandb.mode == "disabled":
            return
        wandb = require()
        folder = places.work_folder(config.results_dir)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                mode=config.wandb.mode,
                project=config.wandb.project,
                entity=config.wandb.entity,
                id=name,
                resume="allow" if config.wandb.mode == "online" else None,
                group=config.experiment,
                config=to_json(config),
                dir=str(folder),
                reinit="finish_previous",
                settings=wandb.Settings(quiet=True),
            )
        except wandb.Error as error:
            raise UserError(f"wandb.mode={config.wandb.mode}: {flat(error)}") from error

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Sends an epoch's numbers, those of a probe as `<probe>/<name>`; lists of them stay in the record."""
        if self._run is not None:
            self._run.log(dict(_numbers(line)), step=line["epoch"])

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Sends the end's line."""
        if self._run is not None:
            self._run.summary.update({"status": status, **summary})

    def close(self) -> None:
        """Ends the mirror's run; without it the runs of one process would merge into one."""
        if self._run is not None:
            self._run.finish()


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in _numbers(value))
        elif isinstance(value, int | float):
            yield key, value


def require() -> Any:
    """Returns the wandb module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise UserError("wandb.mode: wandb is not installed; pip install 'lbt[wandb]' or wandb.mode=disabled") from None
    return wandb
