"""Gives `lbt train` to Hydra: one run or a sweep, with every mistake told in one line."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.types import TaskFunction
from omegaconf import DictConfig

from lbt import sweep
from lbt.config import CONFIG_DIR, Config, groups, register_resolvers, resolve
from lbt.devices import slurm, speaks
from lbt.devices import started as one_of_several
from lbt.errors import UserError
from lbt.records import places
from lbt.session.console import ConsoleReporter, Reporter, Screen, sweep_table
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.sweep import command_line, one_cell
from lbt.sweep.execution import execute, started
from lbt.sweep.mistakes import in_one_line, one_line, refuse_removals
from lbt.sweep.tally import Tally


def train(arguments: Sequence[str]) -> int:
    """Runs `lbt train ...` and returns the exit code.

    Raises:
        UserError: a mistake in the command.
    """
    if arguments[:1] != ["train"]:
        return _complete(arguments)
    folder, words = command_line.parted(arguments[1:])
    refuse_removals(words)
    task = Task(started())
    with groups.using(folder) as own:
        _give_to_hydra(words, task, own)
    return _close(task.results)


def _give_to_hydra(words: Sequence[str], task: TaskFunction, own: Path | None = None) -> None:
    """Has Hydra do what the words say, with the files of a folder of one's own beside lbt's."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    sweep.register()
    main = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(task)
    before, sys.argv = sys.argv, ["lbt", *([] if own is None else ["--config-dir", str(own)]), *words]
    try:
        with in_one_line():
            main()
    finally:
        sys.argv = before


def _complete(arguments: Sequence[str]) -> int:
    """Prints what may follow on a line being typed, which the shell hands over in the environment; returns 0."""
    if not any(word.startswith("query=") for word in arguments):
        _give_to_hydra(arguments, Task(0.0))  # how a shell is taught to ask
        return 0
    with suppress(UserError):  # a mistake in what is typed so far: no place to say it
        line = command_line.typed(os.environ.get("COMP_LINE", ""))
        if line is None:
            return 0
        with groups.using(line.folder) as own:
            if line.runs is not None:
                kept = places.weights_folder(line.runs).glob(f"{line.word}*.safetensors")
                print(*sorted(path.stem for path in kept))
            elif line.group is not None:
                print(*[name for name in groups.choices(line.group) if name.startswith(line.word)])
            else:
                os.environ.update(COMP_LINE=line.settings, COMP_POINT=str(len(line.settings)))
                _give_to_hydra(arguments, Task(0.0), own)
    return 0


class Task:
    """What Hydra calls for each configuration, in this process or a launcher's.

    Args:
        began: when the command began, in seconds since 1970; its time budget counts from there.

    Attributes:
        results: what became of the command's runs, or what kept them from starting; a sweeper puts them in their order,
            those of other processes among them.
        tally: of a sweep whose runs are executed here, one after the other; None for a single run.
        planned: the configurations of that sweep's runs, which stay what they were when they were checked, whatever
            becomes of their files; None: each is what is composed when its turn comes.
    """

    def __init__(self, began: float):
        self.began = began
        self.results: list[Outcome | UserError] = []
        self.tally: Tally | None = None
        self.planned: Iterator[Config] | None = None

    def __call__(self, composed: DictConfig) -> Outcome | UserError:
        """Executes one configuration and returns its outcome, or the mistake that kept it from starting.

        Raises:
            SystemExit: it was interrupted, and the launcher takes care of that; a sweep stops, too.
        """
        register_resolvers()
        interrupt = Interrupt()
        try:
            config = resolve(composed) if self.planned is None else next(self.planned)
            slurm.take_part(config.devices)
            interrupt.patient = one_of_several()  # torchrun hands on what the processes have heard themselves
            tells = speaks()
            if tells and (said := one_cell.told(composed)):
                Screen().print(said, highlight=False, markup=False, soft_wrap=True)
            grid = {"heading": self.tally.begins, "grid": self.tally.shown()} if self.tally is not None else {}
            reporter = ConsoleReporter(**grid) if tells else Reporter()
            result = execute(config, interrupt, reporter, began=self.began)
        except UserError as error:
            result = error
        self.results.append(result)
        if self.tally is not None:
            self.tally.end(result)
        if isinstance(result, Outcome) and result.status == "interrupted":
            try:
                interrupt.hand_on()
            except Exception as error:  # the launcher does not requeue the job
                print(f"lbt: {one_line(error)}", file=sys.stderr)
            else:
                raise SystemExit(interrupt.exit_code)
        elif interrupt.requested() and self.tally is not None and self.tally.left():
            raise SystemExit(interrupt.exit_code)  # it was heard when this run had nothing left but its last evaluation
        return result


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
