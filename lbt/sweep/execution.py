"""Executes the runs of a command, within its time."""

import os
import time

from lbt.config import Config, seconds
from lbt.devices import started as started_together
from lbt.errors import UserError, said
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome

STARTED = "LBT_SWEEP_STARTED"  # seconds since 1970 that a script sets to give several commands one clock


def started() -> float:
    """Returns when the time of a command that begins now started, in seconds since 1970.

    Raises:
        UserError: `$LBT_SWEEP_STARTED` is no such number.
    """
    given = os.environ.get(STARTED)
    try:
        return time.time() if given is None else float(given)
    except ValueError:
        raise UserError(f"{STARTED}={given}: expected seconds since 1970, as date +%s gives them") from None


def execute(config: Config, interrupt: Interrupt, reporter: Reporter, *, began: float) -> Outcome:
    """Executes a run, unless the command's time budget is used up.

    Args:
        config: of the run.
        interrupt: asked between two updates.
        reporter: shows its progress.
        began: when the command began, in seconds since 1970.

    Raises:
        UserError: a mistake that keeps it from starting.
    """
    budget = seconds(config.time_budget)
    if budget is not None and _first_says(config, time.time() - began > budget):
        return Outcome("", "not started", config)

    from lbt.run import run

    try:
        return run(config, interrupt=interrupt, reporter=reporter)
    except OSError as error:  # a folder that is a file, a full disk: a sweep's other runs may lie elsewhere
        raise UserError(said(error)) from error


def _first_says(config: Config, over: bool) -> bool:
    """Returns whether time is over, of several processes by the first one's clock."""
    if not started_together():
        return over
    from lbt import runtime
    from lbt.devices.processes import joined

    with joined(runtime.settle(config).device) as group:
        return group.first(lambda: over)
