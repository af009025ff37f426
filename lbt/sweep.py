"""Sweeps: a grid's jobs, checked before the first one starts, and the Hydra sweeper that launches them."""

import os
import time
from collections.abc import Iterator, Sequence
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

from lbt.config import CONFIG_DIR, Config, register_resolvers, resolve, seconds
from lbt.console import Reporter
from lbt.errors import UserError
from lbt.interrupt import Interrupt
from lbt.outcome import Outcome
from lbt.parallel import launch

outcomes: list[Any] = []  # of this command's runs, in their order
STARTED = "LBT_SWEEP_STARTED"  # when the command began; inherited by the processes of a launcher
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

    def sweep(self, arguments: list[str]) -> Any:
        """Launches the grid's jobs.

        Raises:
            UserError: a job's configuration is wrong; nothing has been started.
        """
        grid = jobs(self.hydra_context.config_loader, self.config, self.params, arguments)
        configs = [resolve(composed) for _, composed in grid]
        parallel = max(config.sweep.parallel for config in configs)
        if parallel > 1:
            kind = type(self.launcher).__name__  # Hydra loads its plugins a second time: no class to compare with
            if kind != "BasicLauncher":
                raise UserError(f"sweep.parallel={parallel}: {kind} has processes of its own")
            results = launch(execute, configs, parallel)
        else:
            results = self._launch([overrides for overrides, _ in grid])
        outcomes[:] = [result for result in results if not isinstance(result, UserError)]
        errors[:] = [result for result in results if isinstance(result, UserError)]
        return results

    def _launch(self, overrides: list) -> list[Any]:
        """Hands the jobs to Hydra's launcher; it may use other processes: what the jobs return is what counts."""
        size = self.max_batch_size or len(overrides)
        returns = []
        for first in range(0, len(overrides), size):
            returns += self.launcher.launch(overrides[first : first + size], initial_job_idx=first)
        return [returned.return_value for returned in returns]


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


def execute(config: Config, interrupt: Interrupt, reporter: Reporter) -> Outcome:
    """Executes a run, unless the command's time budget is used up.

    Raises:
        UserError: a mistake that keeps it from starting.
    """
    budget = seconds(config.time_budget)
    if budget is not None and time.time() - float(os.environ.get(STARTED, time.time())) > budget:
        return Outcome("", "not started", config)

    from lbt.run import run

    return run(config, interrupt=interrupt, reporter=reporter)


def register() -> None:
    """Makes the sweeper known to Hydra.

    Hydra takes plugins from the namespace package `hydra_plugins` only, and would load what lies there into every
    Hydra program of the environment; under that name, but from here, the sweeper is known to this program alone.
    """
    ConfigStore.instance().store(group="hydra/sweeper", name="lbt_grid", node=GridSweeperConf, provider="lbt")
    plugins = Plugins.instance()
    plugins.register(GridSweeper)
    plugins.class_name_to_class[GridSweeperConf._target_] = GridSweeper


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
        params = OmegaConf.to_container(master.hydra.sweeper.params) if master.hydra.sweeper.params else {}
        return [resolve(composed) for _, composed in jobs(loader, master, params, overrides)]
