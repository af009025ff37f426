"""A sweep's runs side by side on one machine: `sweep.parallel=N` processes, each of which takes the next run."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lbt.config import Config, groups
from lbt.errors import UserError
from lbt.session.console import ConsoleReporter, Reporter, Screen
from lbt.session.grid_bar import GridLine, live
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.sweep import gpus as gpus_of
from lbt.sweep.tally import Tally

Execute = Callable[[Config, Interrupt, Reporter], Outcome]
POLL_SECONDS = 0.2  # how soon a signal is handed on
TERMINATED = 143  # a shell's exit code for SIGTERM


class RunReporter(ConsoleReporter):
    """Plain lines, each headed by the beginning of its run's id: several runs share the screen.

    Args:
        hand_on: takes the lines where another process shows them; None: they are shown from here.
    """

    def __init__(self, hand_on: Callable[[str], None] | None = None) -> None:
        super().__init__(Screen(force_terminal=False))
        self._run, self._hand_on = "", hand_on

    def start(self, config: Config, name: str, images: Any, updates: Sequence[int], step: int) -> None:
        """Begins a run's lines."""
        self._run = name
        super().start(config, name, images, updates, step)

    def not_executed(self, outcome: Outcome) -> None:
        """Says that there was nothing to do."""
        self._run = outcome.id
        super().not_executed(outcome)

    def _print(self, text: str) -> None:
        lines = "".join(f"[{self._run[:6]}] {line}\n" for line in text.split("\n"))
        if self._hand_on is None:
            self.console.out(lines, end="", highlight=False)
            return
        with suppress(ConnectionError):  # the sweep's process is gone; the run is not over with it
            self._hand_on(lines)


class _Worker:
    """A process that executes one run after the other; `tells`: it hands its lines on instead of showing them."""

    def __init__(self, execute: Execute, count: int, gpus: str | None, tells: bool):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lbt.run"])  # imported once for all of them, before any use of CUDA
        self.gpus = gpus
        self._connection, other = context.Pipe()
        arguments = (other, execute, count, groups.own_folder(), gpus, tells)
        self._process = context.Process(target=_work, args=arguments)
        self._process.start()
        other.close()

    def fileno(self) -> int:
        """Returns what `multiprocessing.connection.wait` looks at."""
        return self._connection.fileno()

    def give(self, index: int, config: Config) -> None:
        """Has it execute a configuration; `result` tells whether it lives."""
        self.index, self._config = index, config
        with suppress(ConnectionError):
            self._connection.send(config)

    def receive(self) -> Outcome | UserError | str:
        """Returns what became of the run, or lines of it to show; a process that died leaves it as failed."""
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            error = f"its process died, exit code {self._process.exitcode}; the same command goes on with it"
            print(f"lbt: {self._config.optimizer['name']}, batch {self._config.batch}: {error}", file=sys.stderr)
            return Outcome("", "failed", self._config, summary={"error": error})

    def alive(self) -> bool:
        """Says whether it can take another run."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Asks it to stop after its present update."""
        self._process.terminate()

    def close(self) -> None:
        """Lets it end and waits for that."""
        self._connection.close()
        self._process.join()


def _work(
    connection: Connection, execute: Execute, count: int, own: Path | None, gpus: str | None, tells: bool
) -> None:
    """The body of a worker; ends when the sweep's process closes the connection or is gone."""
    if gpus is not None:
        os.environ[gpus_of.VISIBLE] = gpus  # before CUDA is used: it sees no others then
    import torch

    os.environ[groups.OWN] = str(own or "")  # the server that made this process may be older than the command
    from lbt import runtime

    if "OMP_NUM_THREADS" not in os.environ:
        runtime.use_threads(max(1, torch.get_num_threads() // count))
    with Interrupt() as interrupt, suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            config = connection.recv()
            try:
                result = execute(config, interrupt, RunReporter(connection.send if tells else None))
            except UserError as error:
                result = error
            except Exception:
                traceback.print_exc()
                result = Outcome("", "failed", config)
            connection.send(result)


def launch(execute: Execute, configs: Sequence[Config], count: int, tally: Tally) -> list[Outcome | UserError | None]:
    """Executes a sweep's runs in `count` processes and returns what became of each, in their order.

    A run is given to one process. A process that dies takes only its present run with it. On a CPU the processes share
    the threads one of them would use, unless `OMP_NUM_THREADS` or `threads` says how many each has.

    Args:
        execute: a module's function; gives a run's outcome or raises a `UserError`.
        configs: resolved configurations.
        count: processes at once; on a machine with GPUs each has some of its own (`lbt.sweep.gpus`).
        tally: of the sweep, in which these runs are left; a terminal has a bar of it, and elsewhere its line is printed
            as each comes to an end.

    Raises:
        SystemExit: Ctrl-C or SIGTERM, once every process has ended; what was running can be resumed.
    """
    count = min(count, len(configs))
    waiting = list(enumerate(configs))[::-1]
    results: list[Outcome | UserError | None] = [None] * len(configs)
    code, screen = None, Screen()
    # A run on several devices shows its lines itself, and would do so across the bar.
    barred = screen.is_terminal and tally.shown() is not None and all(config.devices == 1 for config in configs)

    def give(worker: _Worker) -> None:
        index, config = waiting.pop()
        tally.begin(index)
        worker.give(index, config)

    with Interrupt() as interrupt, live(screen, GridLine(tally.now)) if barred else nullcontext():
        workers = []
        for gpus in gpus_of.shares(configs, count):
            workers.append(_Worker(execute, count, gpus, barred))
            give(workers[-1])
        while workers:
            for worker in wait(workers, timeout=POLL_SECONDS):
                result = worker.receive()
                if isinstance(result, str):
                    screen.out(result, end="", highlight=False)
                    continue
                results[worker.index] = result
                tally.end(result, worker.index)
                if not barred:
                    _tell(screen, tally, result)
                interrupted = isinstance(result, Outcome) and result.status == "interrupted"
                if interrupted and code is None:  # a signal to one process ends the sweep
                    code = _stop(workers, interrupt)
                if waiting and code is None and not interrupt.requested():
                    if not worker.alive():
                        worker.close()
                        workers[workers.index(worker)] = worker = _Worker(execute, count, worker.gpus, barred)
                    give(worker)
                else:
                    workers.remove(worker)
                    worker.close()
            if interrupt.requested() and code is None:
                code = _stop(workers, interrupt)
    if code is not None:
        raise SystemExit(code)
    return results


def _tell(screen: Screen, tally: Tally, result: Outcome | UserError) -> None:
    started = not isinstance(result, Outcome) or result.status != "not started"
    if started and (line := tally.ended()):
        screen.print(line, highlight=False, soft_wrap=True)


def _stop(workers: Sequence[_Worker], interrupt: Interrupt) -> int:
    for worker in workers:
        worker.stop()
    return interrupt.exit_code if interrupt.requested() else TERMINATED
