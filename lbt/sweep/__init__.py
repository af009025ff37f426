"""Sweeps: a grid's runs, composed and checked before the first one starts, and how they are executed.

Reports ask it for a number or for the grid of a study: Hydra is imported when one of the names below is used.
"""

import importlib

TYPE_CHECKING = False  # as type checkers understand it
if TYPE_CHECKING:
    from lbt.sweep.execution import STARTED, execute
    from lbt.sweep.grids import Job, jobs
    from lbt.sweep.hydra_session import SWEEPERS, compose, grid, register
    from lbt.sweep.sweepers import CellSweeper, Compose, GridSweeper, GridSweeperConf

__all__ = [
    "STARTED",
    "SWEEPERS",
    "CellSweeper",
    "Compose",
    "GridSweeper",
    "GridSweeperConf",
    "Job",
    "compose",
    "execute",
    "grid",
    "jobs",
    "register",
]

_HOMES = {
    **dict.fromkeys(("STARTED", "execute"), "execution"),
    **dict.fromkeys(("Job", "jobs"), "grids"),
    **dict.fromkeys(("SWEEPERS", "compose", "grid", "register"), "hydra_session"),
    **dict.fromkeys(("CellSweeper", "Compose", "GridSweeper", "GridSweeperConf"), "sweepers"),
}


if not TYPE_CHECKING:  # to them a misspelt name is to be one

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
