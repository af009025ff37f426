"""Hydra as this program uses it outside of `lbt train`: its sweepers, and configurations without running anything."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from lbt.config import CONFIG_DIR, groups, register_resolvers
from lbt.sweep.grids import Job
from lbt.sweep.sweepers import GridSweeper, GridSweeperConf
from lbt.sweep.tuning.sweepers import SWEEPERS as TUNING

# "basic" is Hydra's default choice, taken over here: one named in train.yaml could not be changed by an experiment.
SWEEPERS: dict[str, tuple[type, type[GridSweeper]]] = {"basic": (GridSweeperConf, GridSweeper), **TUNING}


def register() -> None:
    """Makes the sweepers and the functions of the configuration files known.

    Hydra takes plugins from the namespace package `hydra_plugins` only, and would load what lies there into every
    Hydra program of the environment; under that name, but from here, the sweepers are known to this program alone.
    """
    register_resolvers()
    plugins = Plugins.instance()
    for name, (settings, kind) in SWEEPERS.items():
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node=settings, provider="lbt")
        plugins.register(kind)
        plugins.class_name_to_class[settings._target_] = kind


@contextmanager
def loader() -> Iterator[Any]:
    """Yields Hydra's configuration loader; another Hydra of this process is as before afterwards.

    Raises:
        UserError: the folder of one's own (`groups.using`) cannot be used.
    """
    register()
    version.setbase("1.3")
    path = create_config_search_path(str(CONFIG_DIR))
    instance = GlobalHydra.instance()
    with groups.using(None) as own:
        if own is not None:  # as Hydra's own --config-dir
            query = SearchPathQuery(provider="schema")
            path.prepend(provider="command-line", path=f"file://{own}", anchor=query)
        before = instance.hydra
        instance.clear()
        try:
            Hydra.create_main_hydra2("lbt", path)
            yield instance.config_loader()
        finally:
            instance.clear()
            if before is not None:
                instance.initialize(before)


def compose(overrides: Sequence[str]) -> DictConfig:
    """Returns the composed configuration of one run, without the node `hydra`."""
    with loader() as found:
        composed = found.load_configuration("train", overrides=list(overrides), run_mode=RunMode.RUN, from_shell=False)
    with open_dict(composed):
        del composed["hydra"]
    return composed


def grid(overrides: Sequence[str]) -> list[Job]:
    """Returns a sweep's jobs, without launching anything."""
    with loader() as found:
        master = found.load_configuration("train", overrides=list(overrides), run_mode=RunMode.MULTIRUN)
        settings = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
        kinds = {known._target_: kind for known, kind in SWEEPERS.values()}
        sweeper = kinds.get(settings.pop("_target_"), GridSweeper)(**settings)
        return sweeper.plan(found, master, overrides)
