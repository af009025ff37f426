"""Copies of a run's record somewhere else, as it grows: TensorBoard, Weights & Biases. The record stays the source.

Both only where they are asked for, by `mirror=tensorboard` or `mirror=[tensorboard,wandb]`, and imported only then.
What a mirror fails at (a disk, a network) is said once, and the run goes on without it.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from lbt.config import Config
from lbt.errors import UserError, said
from lbt.session.mirrors.tensor_board import TensorBoard
from lbt.session.mirrors.weights_and_biases import WeightsAndBiases

KINDS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}  # each is opened with (config, the run's id)


class Mirror(Protocol):
    """What a run tells a mirror."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Takes an epoch's line of the record."""

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Takes what the record's last line says."""

    def close(self) -> None:
        """Ends the copy; it may be gone on with by another process."""


class Mirrors:
    """Several mirrors as one, none of which can end a run.

    Args:
        opened: the mirrors by their names; none: nothing is copied.
    """

    def __init__(self, opened: Mapping[str, Mirror]):
        self._opened = dict(opened)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Hands an epoch's line on."""
        self._each(lambda mirror: mirror.epoch(line))

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Hands the end's line on."""
        self._each(lambda mirror: mirror.end(status, summary))

    def close(self) -> None:
        """Ends all copies."""
        self._each(lambda mirror: mirror.close())

    def _each(self, tell: Callable[[Mirror], None]) -> None:
        for name, mirror in list(self._opened.items()):
            try:
                tell(mirror)
            except Exception as error:  # whatever a library of somebody else raises
                del self._opened[name]
                _give_up(name, error)
                with suppress(Exception):
                    mirror.close()


def asked_for(config: Config) -> list[str]:
    """Returns the names of the mirrors that a run is to have."""
    return [*config.mirror, *(["wandb"] if config.wandb.mode != "disabled" else [])]


def require(config: Config) -> None:
    """Raises a `UserError` where a mirror that is asked for is not installed."""
    for name in asked_for(config):
        KINDS[name].require()


def opened(config: Config, run_id: str) -> Mirrors:
    """Returns a run's mirrors.

    Raises:
        UserError: one is not installed, or refuses: no key is configured, say.
    """
    found = {}
    for name in asked_for(config):
        try:
            found[name] = KINDS[name](config, run_id)
        except UserError:
            raise
        except Exception as error:
            _give_up(name, error)
    return Mirrors(found)


def _give_up(name: str, error: Exception) -> None:
    print(f"lbt: mirror={name}: {said(error)}; the run goes on without it", file=sys.stderr)
