"""The runs of a grid, each with its configuration, before any of them is started."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lbt.config import Config
from lbt.errors import UserError
from lbt.records import index
from lbt.sweep.composer import Composer


class Job(NamedTuple):
    """One run of a grid: its overrides, as Hydra takes them, and its resolved configuration."""

    overrides: list[str]
    config: Config


def jobs(config_loader: Any, master: DictConfig, params: dict | None, arguments: Sequence[str]) -> list[Job]:
    """Returns a grid's jobs in the order of its axes, the last one fastest; of several that are one run, the first.

    Args:
        config_loader: Hydra's.
        master: the configuration composed for the sweep.
        params: an experiment's axes, `{"batch": "512,1024"}`; an argument for the same key replaces one.
        arguments: the command line's overrides.

    Raises:
        UserError: a job's configuration is wrong.
    """
    composer = Composer(config_loader, master)
    return each_once([Job(job, composer(job)) for job in cells(config_loader, params, arguments)])


def cells(config_loader: Any, params: dict | None, arguments: Sequence[str]) -> list[list[str]]:
    """Returns the overrides of each of a grid's cells; arguments and errors as of `jobs`."""
    texts = [f"{key}={value}" for key, value in (params or {}).items()] + list(arguments)
    overrides = OverridesParser.create(config_loader=config_loader).parse_overrides(texts)
    for override in overrides:
        if override.get_key_element() == "+experiment" and override.is_sweep_override():
            raise UserError("+experiment: one experiment at a time; a grid lies in each one's own file")
        if override.get_key_element() == "name" and override.is_sweep_override():
            raise UserError("name: one name for the whole sweep, whose records lie in the folder of that name")
    (grid,) = BasicSweeper.split_arguments(overrides, None)
    return grid


def each_once(found: Sequence[Job]) -> list[Job]:
    """Returns the jobs without those that are the same run as an earlier one."""
    return [found[place] for place in index.first_of_each([job.config for job in found])]
