"""What to say where one run is trained of an experiment that is a sweep: somebody forgot `-m`."""

from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lbt.sweep.grids import cells
from lbt.sweep.tuning import space

_EACH = {"n_trials": "trials", "n_seeds": "seeds"}  # of a sweeper: how many runs stand for each cell


def told(composed: DictConfig) -> str | None:
    """Returns a line about the sweep that a single run is a cell of; None where there is no sweep, or it is being run.

    Args:
        composed: the run's configuration, in the Hydra that composed it.
    """
    settings = HydraConfig.get()
    if settings.mode != RunMode.RUN:
        return None
    params, words = OmegaConf.to_container(settings.sweeper).get("params"), list(settings.overrides.task)
    try:
        grid = [dict(word.split("=", 1) for word in cell) for cell in _cells(params, words)]
    except HydraException:  # axes that cannot be read are the sweep's matter
        return None
    axes = [key.lstrip("+") for key in grid[0] if len({cell[key] for cell in grid}) > 1]
    each = next((f"{settings.sweeper[key]} {name} each" for key, name in _EACH.items() if key in settings.sweeper), "")
    if not axes and not each:
        return None
    cell = ", ".join(f"{key}={_value(composed, key)}" for key in axes)
    size = f"a grid of {len(grid)} ({' x '.join(axes)})" if axes else "a sweep"
    name = settings.runtime.choices.get("experiment", composed.experiment)
    alone = f"this trains one run alone{cell and f': {cell}'}"
    return f"experiment {name} is {size}{each and f', {each}'}, which the same command trains with -m; {alone}"


def _cells(params: dict[str, Any] | None, words: list[str]) -> list[list[str]]:
    return cells(GlobalHydra.instance().config_loader(), params, words)


def _value(composed: DictConfig, key: str) -> str:
    """Returns what a run has of an axis: the name of a choice, or a value."""
    chosen = HydraConfig.get().runtime.choices.get(key)
    return space.text(OmegaConf.select(composed, key) if chosen is None else chosen)
