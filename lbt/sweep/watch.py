"""`lbt status --watch`: a grid, or what is recorded under some names, followed from another terminal or machine."""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lbt.config import length_of
from lbt.errors import UserError
from lbt.records import named
from lbt.records.watched import Seen
from lbt.session.console import Page
from lbt.session.grid_bar import GridLine, in_words
from lbt.session.interrupt import Interrupt
from lbt.sweep.following import Names, Runs, View

EVERY = 5.0  # seconds between two looks, if the user does not say
POLL_SECONDS = 0.1  # how soon Ctrl-C ends it
LAST = 5  # runs that ended last, by name
AROUND = 5  # lines of a screen that are none of a run's


class Screenful:
    """A view on a terminal, no longer than that."""

    def __init__(self, every: float):
        self.view, self._every = View(), every

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields its lines."""
        height = options.height or console.height
        names = list(self.view.grids)[: max(1, height - AROUND)]
        lines = Table.grid(padding=(0, 2))
        for name in names:
            lines.add_row(Text(name, no_wrap=True), GridLine(lambda _, grid=self.view.grids[name]: grid))
        yield lines
        room = max(0, height - AROUND - len(names))
        running, last = self.view.running[:room], self.view.ended[: max(0, min(LAST, room - len(self.view.running)))]
        if running or last:
            yield Text()
            yield _table(running, last)
        if more := len(self.view.running) - len(running):
            yield Text(f"and {more} more running")
        yield Text(f"{time.strftime('%H:%M:%S')}, every {self._every:g} s; Ctrl-C ends it", style="dim")


def _table(running: Sequence[Seen], ended: Sequence[Seen]) -> Table:
    table, now = Table.grid(padding=(0, 2)), time.monotonic()
    for one in (*running, *ended):
        if ended and one is ended[0]:
            table.add_row()
        config = one.config
        said = (
            f"{config['optimizer']['name']}, batch {config['batch']}, lr {config['lr']}, seed {config['seed']}",
            one.status,
            f"epoch {one.epochs}/{length_of(config)}",
            f"{in_words(now - one.grew)} ago",
            one.id,
        )
        table.add_row(*(Text(text, no_wrap=True) for text in said))
    return table


def names(wanted: Sequence[str], results_dir: str, every: float) -> int:
    """Follows what is recorded under some names until Ctrl-C; returns the exit code.

    Args:
        wanted: names; none: all.
        results_dir: where results lie.
        every: seconds between two looks.

    Raises:
        UserError: there is no such folder, or nothing under one of the names yet.
    """
    named.refuse_missing(results_dir)
    for name in wanted:
        named.refuse_unknown(name, results_dir)
    return follow(Names(wanted, results_dir), every)


def grid(overrides: Sequence[str], every: float) -> int:
    """Follows a grid until every run has come to an end, or until Ctrl-C; returns the exit code.

    Args:
        overrides: as for `lbt train -m`.
        every: seconds between two looks.
    """
    from lbt import build, runtime, sweep

    configs = [runtime.settle(job.config, elsewhere=True) for job in sweep.grid(overrides)]
    build.validate(configs[0])
    name = next(iter(dict.fromkeys(config.experiment for config in configs)))
    return follow(Runs(name, configs), every)


def follow(what: Names | Runs, every: float) -> int:
    """Shows what there is, again and again; a terminal's screen is drawn anew, elsewhere a change is one line.

    Returns:
        0 where every run is done or has diverged, 1 where one has failed, the signal's exit code where one ended it.
    """
    page, screenful, before = Page(), Screenful(every), []
    terminal = page.is_terminal
    with Interrupt() as interrupt, _live(page, screenful) if terminal else nullcontext() as shown:
        while not interrupt.requested():
            view = screenful.view = what.look()
            if terminal:
                shown.refresh()
            else:
                before = _log(page, view, before)
            if view.over:
                return 0 if view.complete else 1
            until = time.monotonic() + every
            while time.monotonic() < until and not interrupt.requested():
                time.sleep(min(POLL_SECONDS, every))
    return interrupt.exit_code


def _live(page: Page, screenful: Screenful) -> Live:
    return Live(screenful, console=page, auto_refresh=False, redirect_stderr=sys.stderr.isatty())


def _log(page: Page, view: View, before: Sequence[str]) -> list[str]:
    """Prints the lines that say something else of a grid than before; the time left alone is no change."""
    lines = view.lines()
    known = {line.partition("; about")[0] for line in before}
    for line in lines:
        if line.partition("; about")[0] not in known:
            page.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", highlight=False, markup=False, soft_wrap=True)
    page.file.flush()
    return lines


def seconds(text: str) -> float | None:
    """Returns the seconds that the text after `--watch` says; None where it is another word of the command.

    Raises:
        UserError: it is a number, and none to wait for.
    """
    try:
        every = float(text)
    except ValueError:
        return None
    if not 0.1 <= every <= 86_400:
        raise UserError(f"--watch {text}: expected seconds between two looks, from 0.1 on")
    return every
