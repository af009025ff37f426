"""What a user sees while runs are executed: a progress bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lbt import metrics
from lbt.config import Config, network_of
from lbt.session.grid_bar import Grid, GridLine, live

PLAIN_SECONDS = 10.0  # without a terminal, at most one line in this time


class Screen(Console):
    """A console that goes on without showing anything once nobody reads it: the run is not over with its reader."""

    def on_broken_pipe(self) -> None:
        """Has everything written from now on go nowhere."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Page(Console):
    """A console for what is only there to be read: once nobody reads it, the command is over."""

    def on_broken_pipe(self) -> None:
        """Hands the error on, which ends the command like any other one that nobody reads.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


class _Rate(ProgressColumn):
    def render(self, task: Any) -> Text:
        return Text(f"{task.fields['rate']:,.0f} {task.fields['noun']}/s" if task.fields["rate"] else "")


class Reporter:
    """Shows nothing; what the training loop calls, for a subclass to show."""

    def start(self, config: Config, name: str, images: Any, updates: Sequence[int], step: int) -> None:
        """A run of so many updates in each epoch begins, or goes on after `step` of them."""

    def say(self, text: str) -> None:
        """Something about this run is to be known."""

    def step(self, epoch: int, step: int, images: int, seconds: float) -> None:
        """An update was made; `images` were seen in `seconds` of this epoch."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch was recorded."""

    def end(self, outcome: Any) -> None:
        """The run has come to an end."""

    def not_executed(self, outcome: Any) -> None:
        """The run had been finished before, or another process is executing it."""

    def close(self) -> None:
        """Frees the screen."""

    def elsewhere(self) -> Callable[[], "Reporter"]:
        """Returns what makes such a reporter in another process, for a run that begins now."""
        return type(self)


class ConsoleReporter(Reporter):
    """Writes to a console.

    Args:
        console: where to; a terminal gets a progress bar, anything else plain lines.
        heading: gives the line that stands before a run's own, empty for none; None: there is never one.
        grid: how far the sweep is that the run is of, by the share of the run that is made (0 to 1), for a bar of its
            own on a terminal; None: it is of none.
    """

    def __init__(
        self,
        console: Console | None = None,
        heading: Callable[[], str] | None = None,
        grid: Callable[[float], Grid] | None = None,
    ):
        self.console, self._heading = console or Screen(), heading
        self._progress: Progress | None = None
        self._grid = None if grid is None else GridLine(grid)
        self._shown = 0.0
        self._epochs, self._noun = 0, "images"

    def start(self, config: Config, name: str, images: Any, updates: Sequence[int], step: int) -> None:
        """Shows the configuration and opens the bar."""
        self._epochs, self._scores = config.length, partial(scores, config=config)
        self._noun = images.form.noun
        if self._heading is not None and (heading := self._heading()):
            self._print(heading)
        self._print(_summary(config, name, images, updates))
        if step:
            self._print(f"resuming after {step} of {sum(updates)} updates")
        if self.console.is_terminal:
            columns = (
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                TextColumn("{task.fields[scores]}"),
                _Rate(),
                TimeRemainingColumn(),
            )
            self._progress, self._updates = Progress(*columns, console=self.console), sum(updates)
            fields = {"epoch": 1, "epochs": config.length, "scores": "", "rate": 0.0, "noun": self._noun}
            self._bar = self._progress.add_task("", total=sum(updates), completed=step, **fields)
            self._live = live(self.console, self._progress, *([self._grid] if self._grid else []))
            self._live.start()

    def elsewhere(self) -> Callable[[], Reporter]:
        """Returns what makes such a reporter in another process, for a run that begins now."""
        if self._heading is None:
            return type(self)
        return partial(type(self), heading=partial(str, self._heading()))  # who counts the runs is here

    def say(self, text: str) -> None:
        """Shows a line."""
        self._print(f"  {text}")

    def step(self, epoch: int, step: int, images: int, seconds: float) -> None:
        """Moves the bar."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, epoch=epoch, rate=images / seconds)
            if self._grid is not None:
                self._grid.share = step / self._updates

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Shows the epoch's loss and accuracy."""
        if self._progress is not None:
            self._progress.update(self._bar, scores=self._scores(line))
        elif time.monotonic() - self._shown > PLAIN_SECONDS or line["epoch"] == self._epochs:
            rate, lr = line["wall_images_per_second"], line["effective_lr"]
            told = f"  {rate:,.0f} {self._noun}/s" if rate else ""  # none in an epoch that was resumed at its end
            self._print(f"epoch {line['epoch']}/{self._epochs}  {self._scores(line)}  lr {lr:.4g}{told}")
            self._shown = time.monotonic()

    def end(self, outcome: Any) -> None:
        """Shows the status and where the record lies."""
        self.close()
        self._print(_sentence(outcome))

    def not_executed(self, outcome: Any) -> None:
        """Says that there was nothing to do."""
        if outcome.status == "running":
            self._print(f"run {outcome.id} is being executed by another process")
            return
        self._print(f"{outcome.status} already: {scores(outcome.summary, outcome.config)}; record {outcome.path}")
        if outcome.unmeasured:  # they change nothing of a run: it is not made again for them
            self._print(f"made without probes=[{','.join(outcome.unmeasured)}]: another results_dir measures them")
        if outcome.unkept:
            self._print("made without keep=weights: another results_dir keeps them")
        for text in outcome.changed:
            self._print(f"since then {text}; another results_dir trains with what it is now")

    def close(self) -> None:
        """Ends the bars."""
        if self._progress is not None:
            self._live.stop()
            self._progress = None

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def scores(line: Mapping[str, Any], config: Config) -> str:
    """Returns the metrics of a record's line as a text.

    Args:
        line: of an epoch, or a run's summary.
        config: of the run, whose task says what is shown.
    """
    return metrics.in_words(line, _declared(config))


def _declared(config: Config) -> metrics.Declared:
    from lbt.tasks import TASKS  # loads torch

    return metrics.declared_by(TASKS[config.task["name"]])


def _summary(config: Config, name: str, images: Any, updates: Sequence[int]) -> str:
    micro = f" in micro-batches of {config.micro_batch}" if config.micro_batch else ""
    length = " to ".join(map(str, dict.fromkeys((updates[0], updates[-1]))))  # shorter at the end where the batch grows
    scaled = "" if config.lr_scaling == "none" else f" ({config.lr:g}, {config.lr_scaling} scaling)"
    return (
        f"run {name}: {config.optimizer['name']}, batch {config.batch}{micro}, peak lr {config.peak_lr:g}{scaled}, "
        f"schedule {config.schedule['name']}, protocol {config.protocol['name']}\n"
        f"  {network_of(config.model)} on {images.origin}, {len(images.train_labels):,} {images.form.noun}, "
        f"{_length(config)} of {length} updates, seed {config.seed}, {config.precision} on {config.device}"
    )


def _length(config: Config) -> str:
    """Returns how many epochs a run trains: "10 epochs", of a branch "3 + 1 epochs (batch 512, then 2048)"."""
    if (branch := config.branch) is None:
        return f"{config.epochs} epochs"
    return f"{branch.at} + {branch.epochs} epochs (batch {config.batch}, then {branch.factor * config.batch})"


def _sentence(outcome: Any) -> str:
    said = {
        "done": "done",
        "diverged": f"diverged in epoch {outcome.summary.get('epochs')}: the loss is not finite",
        "oom": "out of memory: " + _advice(outcome.summary.get("largest_micro_batch")),
        "failed": f"failed: {outcome.summary.get('error', '')}",
        "interrupted": f"interrupted after {outcome.summary.get('steps')} updates; the same command goes on",
    }[outcome.status]
    return f"{said}  {scores(outcome.summary, outcome.config)}\n  record {outcome.path}"


def _advice(size: int | None) -> str:
    if size is None:  # it ran out before the first update
        return "there is none for the model and its data"
    return f"try micro_batch={size}" if size else "not even one image fits"


def sweep_table(outcomes: Sequence[Any]) -> Table:
    """Returns a table of a sweep's runs, one per row, with a column for each metric that their tasks show there."""
    figures = [_figures(outcome) for outcome in outcomes]
    labels = list(dict.fromkeys(label for row in figures for label in row)) or ["accuracy %"]
    table = Table(title=f"{len(outcomes)} runs")
    for header in ("run", "optimizer", "batch", "lr", "seed", "status", *labels):
        table.add_column(header, justify="left" if header in ("run", "optimizer", "status") else "right")
    for outcome, row in zip(outcomes, figures, strict=True):
        config = outcome.config
        status = outcome.status + (" before" if outcome.recorded_before else "")
        then = f" to {config.batch * config.branch.factor}" if config.branch else ""
        settings = (outcome.id, config.optimizer["name"], f"{config.batch}{then}", f"{config.lr:.4g}", str(config.seed))
        table.add_row(*settings, status, *(row.get(label, "") for label in labels))
    return table


def _figures(outcome: Any) -> dict[str, str]:
    """Returns a run's metrics for the sweep's table by their columns."""
    declared = _declared(outcome.config)
    found = {}
    for key, value in outcome.summary.items():
        if value is not None and metrics.is_metric(key, declared, "sweep") and not key.startswith("train_"):
            metric = metrics.metric_of(key, declared)
            found[f"{metric.label} {metric.unit}".rstrip()] = metric.number(value)
    return found
