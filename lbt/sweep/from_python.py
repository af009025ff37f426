"""One run, asked for from a Python program: `lbt.run("optimizer=tvlars", "batch=512")`."""

import signal
import threading
from pathlib import Path

from lbt import sweep
from lbt.config import Config, groups, resolve
from lbt.errors import UserError
from lbt.session.console import ConsoleReporter, Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.sweep.execution import execute, started
from lbt.sweep.mistakes import in_one_line, refuse_removals

_ONE_AT_A_TIME = threading.Lock()  # runs of one process share torch's random numbers and switches


def run(*overrides: str, config_dir: str | Path | None = None, progress: bool = False) -> Outcome:
    """Executes one run, once: what `lbt train` with the same words does, without its screen.

    A finished run is returned from its record, an interrupted one goes on where it was. From several threads, runs are
    executed one after the other. In the main thread the first Ctrl-C (a notebook's stop) has the run write its
    checkpoint after the update at hand and then interrupts the program as it would have done without a run; elsewhere
    no signal is listened to. The program's own random numbers of torch are as before afterwards.

    Args:
        overrides: settings as on the command line, `"batch=512"`, `"+experiment=quickstart"`; one value each.
        config_dir: a folder of configuration files of one's own, as `--config-dir`.
        progress: whether to show what `lbt train` shows.

    Returns:
        What became of it: its `id`, `status` (`done`, `diverged`, `oom`, `failed`, `interrupted`, or `running` where
        another process has it), `summary`, `config`, `path` of the record, and `epochs`.

    Raises:
        UserError: a mistake in the settings or the data, in one line; nothing is written.
        KeyboardInterrupt: it was interrupted; the same call goes on with it.
    """
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(f'{word!r}: expected settings as texts, lbt.run("optimizer=lars", "batch=512")')
        if word.startswith("-"):
            raise UserError(f"{word}: is for the command line; lbt.run takes settings, config_dir and progress")
    refuse_removals(overrides)
    interrupt = Interrupt()
    with _ONE_AT_A_TIME, groups.using(config_dir):
        with in_one_line():
            config = resolve(sweep.compose(overrides))
        outcome = _executed(config, interrupt, ConsoleReporter() if progress else Reporter())
    if interrupt.signal is not None:  # for whoever it was meant for: the program, or a launcher
        signal.raise_signal(interrupt.signal)
    return outcome


def _executed(config: Config, interrupt: Interrupt, reporter: Reporter) -> Outcome:
    import torch

    from lbt import build

    build.forget_images()  # files may have changed since the program's last run
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        return execute(config, interrupt, reporter, began=started())
