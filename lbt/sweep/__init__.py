"""Sweeps: a grid's runs, composed and checked before the first one starts, and how they are executed."""

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
