"""Sweeps: a grid's jobs, checked before the first one starts, and the Hydra sweepers that launch them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lbt.config import CONFIG_DIR, Config, register_resolvers, resolve
from lbt.errors import UserError

Compose = Callable[[list[str]], DictConfig]  # overrides of one run -> its composed configuration

outcomes: list[Any] = []  # of this command's runs, in their order
errors: list[UserError] = []  # that kept runs of this command from starting


@dataclass
class GridSweeperConf:
    """Settings of `GridSweeper`: `params`, the axes an experiment's file sweeps over, and Hydra's batching of jobs."""

    _target_: str = "hydra_plugins.lbt.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class GridSweeper(Sweeper):
    """Hydra's Cartesian grid; checks every job's configuration before it launches the first, and leaves no file."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None):
        self.max_batch_size, self.params = max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra hands over before the sweep."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def plan(self, config_loader: Any, master: DictConfig, arguments: Sequence[str]) -> list[tuple]:
        """Returns the sweep's jobs in their order, each as its overrides and its composed configuration."""
        return jobs(config_loader, master, self.params, arguments)

    def sweep(self, arguments: list[str]) -> Any:
        """Launches the sweep's jobs.

        Raises:
            UserError: a job's configuration is wrong; nothing has been started.
        """
        grid = self.plan(self.hydra_context.config_loader, self.config, arguments)
        for _, composed in grid:
            resolve(composed)
        size = self.max_batch_size or len(grid)
        returns = []
        for first in range(0, len(grid), size):
            batch = [overrides for overrides, _ in grid[first : first + size]]
            returns += self.launcher.launch(batch, initial_job_idx=first)
        # A launcher may have used other processes: what the jobs returned is what counts.
        results = [returned.return_value for returned in returns]
        outcomes[:] = [result for result in results if not isinstance(result, UserError)]
        errors[:] = [result for result in results if isinstance(result, UserError)]
        return returns


def jobs(config_loader: Any, master: DictConfig, params: dict | None, arguments: Sequence[str]) -> list[tuple]:
    """Returns a grid's jobs, each as its overrides and its composed configuration.

    Args:
        config_loader: Hydra's.
        master: the configuration composed for the sweep.
        params: an experiment's axes, `{"batch": "512,1024"}`; an argument for the same key replaces one.
        arguments: the command line's overrides.
    """
    texts = [f"{key}={value}" for key, value in (params or {}).items()] + list(arguments)
    overrides = OverridesParser.create(config_loader=config_loader).parse_overrides(texts)
    for override in overrides:
        if override.get_key_element() == "+experiment" and override.is_sweep_override():
            raise UserError("+experiment: one experiment at a time; a grid lies in each one's own file")
    (grid,) = BasicSweeper.split_arguments(overrides, None)
    return [(job, config_loader.load_sweep_config(master, job)) for job in grid]


class CellSweeper(GridSweeper):
    """A grid each of whose cells stands for several runs; all cells advance together, a run of each in turn."""

    def expand(self, overrides: list[str], composed: DictConfig, compose: Compose) -> list[list[str]]:
        """Returns the overrides of a cell's runs.

        Args:
            overrides: the cell's own.
            composed: what they compose to.
            compose: composes others.

        Raises:
            UserError: the cell cannot be run as it is.
        """
        raise NotImplementedError

    def plan(self, config_loader: Any, master: DictConfig, arguments: Sequence[str]) -> list[tuple]:
        """Returns the runs of all cells."""

        def compose(overrides: list[str]) -> DictConfig:
            return config_loader.load_sweep_config(master, overrides)

        cells = jobs(config_loader, master, self.params, arguments)
        runs = [self.expand(overrides, composed, compose) for overrides, composed in cells]
        turns = [run for turn in itertools.zip_longest(*runs) for run in turn if run is not None]
        return [(run, compose(run)) for run in turns]


def register() -> None:
    """Makes the sweepers known to Hydra.

    Hydra takes plugins from the namespace package `hydra_plugins` only, and would load what lies there into every
    Hydra program of the environment; under that name, but from here, the sweepers are known to this program alone.
    """
    plugins = Plugins.instance()
    for name, (settings, kind) in _sweepers().items():
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node=settings, provider="lbt")
        plugins.register(kind)
        plugins.class_name_to_class[settings._target_] = kind


def _sweepers() -> dict[str, tuple[type, type[GridSweeper]]]:
    from lbt.tuning.sweepers import SWEEPERS  # they are made of this module's

    # "basic" is Hydra's default choice, taken over here: one named in train.yaml could not be changed by an experiment.
    return {"basic": (GridSweeperConf, GridSweeper), **SWEEPERS}


@contextmanager
def _hydra() -> Iterator[None]:
    register()
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        yield


def compose(overrides: Sequence[str]) -> DictConfig:
    """Returns the composed configuration of one run."""
    with _hydra():
        return hydra_compose("train", overrides=list(overrides))


def grid(overrides: Sequence[str]) -> list[Config]:
    """Returns the resolved configurations of a sweep's jobs, without launching anything."""
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", overrides=list(overrides), run_mode=RunMode.MULTIRUN)
        settings = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
        kinds = {known._target_: kind for known, kind in _sweepers().values()}
        sweeper = kinds.get(settings.pop("_target_"), GridSweeper)(**settings)
        return [resolve(composed) for _, composed in sweeper.plan(loader, master, overrides)]
