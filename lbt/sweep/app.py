"""Gives `lbt train` to Hydra: one run or a sweep, with every mistake told in one line."""

import os
import re
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from lbt import sweep
from lbt.config import CONFIG_DIR, register_resolvers, resolve
from lbt.devices import speaks
from lbt.devices import started as one_of_several
from lbt.errors import UserError
from lbt.session.console import ConsoleReporter, Reporter, Screen, sweep_table
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.sweep.execution import execute, started
from lbt.sweep.mistakes import in_one_line, one_line


def train(arguments: Sequence[str]) -> int:
    """Runs `lbt train ...` and returns the exit code.

    Raises:
        UserError: a mistake in the command.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    sweep.register()
    for word in arguments:
        if word.startswith("~"):  # a default would take its place, of which the run's id knows nothing
            raise UserError(f"{word}: a setting cannot be taken away; set it to what means off: null, false or 0")
    task = Task(started())
    main = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(task)
    before, sys.argv = sys.argv, ["lbt", *_without_verb(arguments)]
    try:
        with in_one_line():
            main()
    finally:
        sys.argv = before
    return _close(task.results)


class Task:
    """What Hydra calls for each configuration, in this process or a launcher's.

    Args:
        began: when the command began, in seconds since 1970; its time budget counts from there.

    Attributes:
        results: what became of the command's runs, or what kept them from starting; a sweeper puts them in their order,
            those of other processes among them.
    """

    def __init__(self, began: float):
        self.began = began
        self.results: list[Outcome | UserError] = []

    def __call__(self, composed: DictConfig) -> Outcome | UserError:
        """Executes one configuration and returns its outcome, or the mistake that kept it from starting.

        Raises:
            SystemExit: it was interrupted, and the launcher takes care of that; a sweep stops, too.
        """
        register_resolvers()
        interrupt = Interrupt(patient=one_of_several())  # torchrun hands on what the processes have heard themselves
        try:
            reporter = ConsoleReporter() if speaks() else Reporter()
            result = execute(resolve(composed), interrupt, reporter, began=self.began)
        except UserError as error:
            result = error
        self.results.append(result)
        if isinstance(result, Outcome) and result.status == "interrupted":
            try:
                interrupt.hand_on()
            except Exception as error:  # the launcher does not requeue the job
                print(f"lbt: {one_line(error)}", file=sys.stderr)
            else:
                raise SystemExit(interrupt.exit_code)
        return result


def _without_verb(arguments: Sequence[str]) -> list[str]:
    if "train" in arguments[:1]:
        flags = [word for word in arguments[1:] if word in ("-m", "--multirun")]  # wherever they stand
        return flags[:1] + [word for word in arguments[1:] if word not in flags]
    # Tab completion calls the bare command and hands the words typed so far over in the environment.
    line = os.environ.get("COMP_LINE", "")
    bare = re.sub(r"^(\s*\S+)\s+train\b", r"\1", line)
    if bare != line:
        os.environ["COMP_LINE"] = bare
        os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", len(line))) - len(line) + len(bare))
    return list(arguments)


def _close(results: Sequence[Outcome | UserError]) -> int:
    """Shows a sweep's runs and returns the exit code.

    Raises:
        UserError: what kept the first of those from starting that could not.
    """
    outcomes = [result for result in results if isinstance(result, Outcome)]
    if len(outcomes) > 1 and speaks():
        Screen().print(sweep_table(outcomes))
    for result in results:
        if isinstance(result, UserError):
            raise result
    return 1 if any(outcome.status in ("failed", "oom", "interrupted") for outcome in outcomes) else 0
