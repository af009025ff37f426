"""The Hydra sweepers: a grid's runs, all checked before the first one starts."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lbt.config import Config
from lbt.errors import UserError, flat
from lbt.session import mirrors
from lbt.session.console import Screen
from lbt.session.outcome import Outcome
from lbt.sweep.composer import Composer
from lbt.sweep.execution import execute
from lbt.sweep.finished import finished
from lbt.sweep.grids import Job, cells, each_once, jobs
from lbt.sweep.parallel import launch
from lbt.sweep.tally import Tally

Compose = Callable[[list[str]], Config]  # overrides of one run -> its configuration
HERE = "BasicLauncher"  # Hydra's launcher that runs jobs in this process


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
        """Takes what Hydra hands over before the sweep; the task is an `lbt.sweep.app.Task`."""
        self.hydra_context, self.config, self.task = hydra_context, config, task_function
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def plan(self, config_loader: Any, master: DictConfig, arguments: Sequence[str]) -> list[Job]:
        """Returns the sweep's jobs in their order."""
        return jobs(config_loader, master, self.params, arguments)

    def sweep(self, arguments: list[str]) -> list[Outcome | UserError]:
        """Launches the sweep's jobs that have not come to an end before, each run once.

        Returns:
            What became of each job, or what kept it from starting; the command's task has the same as its `results`.

        Raises:
            UserError: a job's configuration is wrong, or does not fit its data; nothing has been started.
        """
        grid = self.plan(self.hydra_context.config_loader, self.config, arguments)
        results = finished([job.config for job in grid])
        left = [place for place, result in enumerate(results) if result is None]
        if len(left) < len(grid):
            Screen().print(f"{len(grid) - len(left)} of {len(grid)} runs have been finished before", highlight=False)
        if unkept := sum(result.unkept for result in results if result):
            Screen().print(f"{unkept} of them without keep=weights: another results_dir keeps them", highlight=False)
        for text, count in Counter(text for result in results if result for text in result.changed).items():
            told = f"since {count} of these runs {text}; another results_dir trains with what it is now"
            Screen().print(told, highlight=False, markup=False, soft_wrap=True)
        jobs_left = [grid[place] for place in left]
        self._check([job.config for job in jobs_left])
        parallel = max((job.config.sweep.parallel for job in jobs_left), default=1)
        tally = Tally([job.config for job in grid], results, parallel)
        for place, result in zip(left, self._execute(jobs_left, parallel, tally), strict=True):
            results[place] = result
        self.task.results = results
        return results

    def _check(self, configs: Sequence[Config]) -> None:
        from lbt import build, fit  # they load torch, which a mistake in the grid need not wait for

        elsewhere = type(self.launcher).__name__ != HERE
        fit.check_all(configs, elsewhere=elsewhere)
        if not elsewhere:
            for config in configs:
                mirrors.require(config)
        if elsewhere or any(config.sweep.parallel > 1 for config in configs):
            build.forget_images()  # other processes read them anew

    def _execute(self, left: Sequence[Job], parallel: int, tally: Tally) -> list[Any]:
        """Returns what became of each job: several at a time in processes of our own, or through Hydra's launcher."""
        kind = type(self.launcher).__name__  # Hydra loads its plugins a second time: no class to compare with
        if parallel == 1:
            if kind == HERE:  # jobs of other processes are not seen from here
                self.task.tally, self.task.planned = tally, iter([job.config for job in left])
            return self._launch([job.overrides for job in left])
        if kind != HERE:
            raise UserError(f"sweep.parallel={parallel}: {kind} has processes of its own")
        return launch(partial(execute, began=self.task.began), [job.config for job in left], parallel, tally)

    def _launch(self, overrides: list) -> list[Any]:
        """Hands the jobs to Hydra's launcher; it may use other processes: what the jobs return is what counts.

        Raises:
            UserError: the launcher failed: it could not start jobs, or lost one.
        """
        size = self.max_batch_size or len(overrides) or 1
        returns = []
        for first in range(0, len(overrides), size):
            try:
                returns += self.launcher.launch(overrides[first : first + size], initial_job_idx=first)
            except Exception as error:
                raise UserError(f"{type(self.launcher).__name__}: {flat(error)}; the same command goes on") from error
        return [returned.return_value for returned in returns]


class CellSweeper(GridSweeper):
    """A grid each of whose cells stands for several runs; all cells advance together, a run of each in turn."""

    def expand(self, overrides: list[str], config: Config, compose: Compose) -> list[list[str]]:
        """Returns the overrides of a cell's runs.

        Args:
            overrides: the cell's own.
            config: what they mean.
            compose: composes others.

        Raises:
            UserError: the cell cannot be run as it is.
        """
        raise NotImplementedError

    def plan(self, config_loader: Any, master: DictConfig, arguments: Sequence[str]) -> list[Job]:
        """Returns the runs of all cells."""
        composer = Composer(config_loader, master)
        # Cells that are one run by themselves may be several with what the runs of each have besides.
        runs = [self.expand(cell, composer(cell), composer) for cell in cells(config_loader, self.params, arguments)]
        turns = [run for turn in itertools.zip_longest(*runs) for run in turn if run is not None]
        return each_once([Job(run, composer(run)) for run in turns])
