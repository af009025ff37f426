"""The bar of a whole grid: how many of its runs are done, running, diverged, failed, and how long the rest may take."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

ORDER = ("done", "diverged", "oom", "failed", "interrupted", "running", "refused", "not started", "missing")
ENDED = ("done", "diverged", "oom", "failed", "refused", "not started")
WIDTH = 24  # letters of the bar
NARROW = 60  # letters of a line that has room for no bar


@dataclass(frozen=True)
class Grid:
    """How far a grid is.

    Attributes:
        total: its runs.
        counts: how many of them are in which state, those that nothing is known of left out.
        left: seconds until the last one may have ended, None where no run like those left has been timed.
    """

    total: int
    counts: Mapping[str, int] = field(default_factory=dict)
    left: float | None = None

    @property
    def ended(self) -> int:
        """Runs that have come to an end, whichever."""
        return sum(self.counts.get(status, 0) for status in ENDED)

    def counted(self) -> str:
        """Returns the counts in words: "3 done, 1 running"."""
        known = [*ORDER, *sorted(self.counts.keys() - {*ORDER})]
        return ", ".join(f"{self.counts[status]} {status}" for status in known if self.counts.get(status))

    def time_left(self) -> str:
        """Returns "about 4 min left", nothing where that is not known."""
        return "" if self.left is None else f"about {in_words(self.left)} left"


def in_words(seconds: float) -> str:
    """Returns a duration in one unit."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class GridLine:
    """A grid as one line of a terminal, made anew whenever that is drawn.

    Args:
        now: gives how far it is, of the share of the run that is executed here.

    Attributes:
        share: that, from 0 to 1: the bar grows with it.
    """

    def __init__(self, now: Callable[[float], Grid]):
        self._now, self.share = now, 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the line."""
        grid = self._now(self.share)
        said = "  ".join(filter(None, (grid.counted(), grid.time_left())))
        line = Table.grid(padding=(0, 1))
        cells = [Text(f"{grid.ended}/{grid.total} runs", no_wrap=True), Text(said, no_wrap=True, overflow="ellipsis")]
        if options.max_width >= NARROW:
            cells.insert(0, ProgressBar(total=grid.total, completed=grid.ended + self.share, width=WIDTH))
        line.add_row(*cells)
        yield line


def live(console: Console, *lines: object) -> Live:
    """Returns lines at a terminal's foot, above which the console prints; they are gone when it is stopped."""
    # What goes to a file of its own is not to be caught for the terminal.
    caught = {"redirect_stdout": console.file is sys.stdout, "redirect_stderr": sys.stderr.isatty()}
    return Live(Group(*lines), console=console, transient=True, refresh_per_second=5, **caught)
