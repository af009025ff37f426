"""Sweeps: a grid's jobs, checked before the first one starts, and the Hydra sweepers that launch them."""

import copy
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lbt.config import CONFIG_DIR, Config, register_resolvers, resolve, seconds
from lbt.errors import UserError, flat
from lbt.records import index, places
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.sweep.parallel import launch

Compose = Callable[[list[str]], Config]  # overrides of one run -> its configuration

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

    def plan(self, config_loader: Any, master: DictConfig, arguments: Sequence[str]) -> list["Job"]:
        """Returns the sweep's jobs in their order."""
        return jobs(config_loader, master, self.params, arguments)

    def sweep(self, arguments: list[str]) -> Any:
        """Launches the sweep's jobs that have not come to an end before, each run once.

        Raises:
            UserError: a job's configuration is wrong; nothing has been started.
        """
        grid = self.plan(self.hydra_context.config_loader, self.config, arguments)
        results = _finished([job.config for job in grid])
        left = [place for place, result in enumerate(results) if result is None]
        if len(left) < len(grid):
            print(f"{len(grid) - len(left)} of {len(grid)} runs have been finished before")
        jobs_left = [grid[place] for place in left]
        for place, result in zip(left, self._execute(jobs_left), strict=True):
            results[place] = result
        outcomes[:] = [result for result in results if not isinstance(result, UserError)]
        errors[:] = [result for result in results if isinstance(result, UserError)]
        return results

    def _execute(self, left: Sequence["Job"]) -> list[Any]:
        """Returns what became of each job: several at a time in processes of our own, or through Hydra's launcher."""
        parallel = max((job.config.sweep.parallel for job in left), default=1)
        if parallel == 1:
            return self._launch([job.overrides for job in left])
        kind = type(self.launcher).__name__  # Hydra loads its plugins a second time: no class to compare with
        if kind != "BasicLauncher":
            raise UserError(f"sweep.parallel={parallel}: {kind} has processes of its own")
        return launch(execute, [job.config for job in left], parallel)

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


def _finished(configs: Sequence[Config]) -> list[Outcome | None]:
    """Returns the outcome of each run that has come to an end before, None for the others.

    What this machine cannot tell (it lacks the device or the data) is left to the job, which may run on another.
    """
    from lbt.run import finished

    known = {results_dir: index.by_key(results_dir) for results_dir in {config.results_dir for config in configs}}
    found: list[Outcome | None] = []
    fingerprints: dict[str, str] = {}
    for config in configs:
        try:
            found.append(finished(config, known[config.results_dir], fingerprints))
        except UserError:
            found.append(None)
    for results_dir in known:
        places.clear(results_dir, [one.id for one in found if one and one.config.results_dir == results_dir])
    return found


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
    texts = [f"{key}={value}" for key, value in (params or {}).items()] + list(arguments)
    overrides = OverridesParser.create(config_loader=config_loader).parse_overrides(texts)
    for override in overrides:
        if override.get_key_element() == "+experiment" and override.is_sweep_override():
            raise UserError("+experiment: one experiment at a time; a grid lies in each one's own file")
    (grid,) = BasicSweeper.split_arguments(overrides, None)
    composer = _Composer(config_loader, master)
    return _each_once([Job(job, resolve(composer(job))) for job in grid])


def _each_once(found: Sequence[Job]) -> list[Job]:
    return [found[place] for place in index.first_of_each([job.config for job in found])]


class _Composer:
    """Composes the jobs of a grid; those that differ in values alone share one composition, which is what takes time.

    Args:
        config_loader: Hydra's.
        master: the configuration composed for the sweep.
    """

    def __init__(self, config_loader: Any, master: DictConfig):
        self._loader, self._master = config_loader, master
        self._parse = cache(lambda text: OverridesParser.create(config_loader).parse_override(text))
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Returns what Hydra's `load_sweep_config` gives, without the node `hydra`."""
        parsed = [self._parse(text) for text in overrides if not text.startswith("hydra.")]
        chosen = [override for override in parsed if self._loader.repository.group_exists(override.key_or_group)]
        choices = tuple(override.input_line for override in chosen)
        if choices not in self._composed:
            composed = self._loader.load_sweep_config(self._master, list(choices))
            with open_dict(composed):
                del composed["hydra"]
            self._composed[choices] = composed
        composed = copy.deepcopy(self._composed[choices])
        self._loader._apply_overrides_to_config([override for override in parsed if override not in chosen], composed)
        return composed


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
        composer = _Composer(config_loader, master)

        def compose(overrides: list[str]) -> Config:
            return resolve(composer(overrides))

        cells = jobs(config_loader, master, self.params, arguments)
        runs = [self.expand(cell.overrides, cell.config, compose) for cell in cells]
        turns = [run for turn in itertools.zip_longest(*runs) for run in turn if run is not None]
        return _each_once([Job(run, compose(run)) for run in turns])


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
    from lbt.sweep.tuning.sweepers import SWEEPERS  # they are made of this module's

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


def grid(overrides: Sequence[str]) -> list[Job]:
    """Returns a sweep's jobs, without launching anything."""
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", overrides=list(overrides), run_mode=RunMode.MULTIRUN)
        settings = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
        kinds = {known._target_: kind for known, kind in _sweepers().values()}
        sweeper = kinds.get(settings.pop("_target_"), GridSweeper)(**settings)
        return sweeper.plan(loader, master, overrides)
