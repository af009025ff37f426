"""Executes a run once, whoever asks for it and however often.

This module can be called: `lbt.run("optimizer=tvlars", "batch=512")` is `lbt train optimizer=tvlars batch=512`, as
`lbt.sweep.from_python.run` describes it. `lbt.run.run(config)` takes a configuration.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import Timeout

from lbt import build, fit, plugins, records, runtime
from lbt.config import Config
from lbt.data import ImageSet
from lbt.errors import UserError
from lbt.identity import identity, run_id
from lbt.records import index, places
from lbt.session import mirrors
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.lock import held
from lbt.session.outcome import Outcome
from lbt.train import Training
from lbt.train.beginning import out_of_memory
from lbt.train.executor import is_out_of_memory

ADHOC = "adhoc"  # the experiment of a run that belongs to none


@runtime.own_threads()
def run(config: Config, *, interrupt: Interrupt | None = None, reporter: Reporter | None = None) -> Outcome:
    """Executes a run, once: a finished one is returned from its record, an interrupted one resumed.

    A record from another experiment's folder is copied into this one's, whose tables look there.

    Raises:
        UserError: a mistake in the configuration or the data; nothing is written.
    """
    config = runtime.settle(config)
    build.validate(config)
    mirrors.require(config)
    images = _images(config)
    fit.fits(config, images)
    name = run_id(identity(config), images.fingerprint)
    interrupt, reporter = interrupt or Interrupt(), reporter or Reporter()

    ended = _finished(config, name)
    if ended is None:
        training = _training(config, images, name)  # refuses what does not fit the data before anything is written
        try:
            with held(config.results_dir, name):
                ended = _finished(config, name)  # by another process, meanwhile
                if ended is None:
                    places.tidy(config.results_dir, name)
                    executed = _execute(training, config, images, name, interrupt, reporter)
        except Timeout:
            path = records.path_of(config.results_dir, config.experiment, name)
            ended = Outcome(name, "running", config, path)
        if ended is None:
            if executed.status in records.FINAL:
                _show_in(config, name, executed.path)
                places.clear(config.results_dir, [name])
            return executed
    if ended.status in records.FINAL:
        places.clear(config.results_dir, [name])
    reporter.not_executed(ended)
    return ended


def _images(config: Config) -> ImageSet:
    try:
        return build.images(config)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # Without the data a run has no id and no record.
        raise UserError(f"data={config.data.name}: this machine's memory is too small to read it") from error


def _training(config: Config, images: ImageSet, name: str) -> Training | None:
    """Returns the training, None where there is no memory for its model and data."""
    try:
        return Training(config, images, name)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _execute(
    training: Training | None, config: Config, images: ImageSet, name: str, interrupt: Interrupt, reporter: Reporter
) -> Outcome:
    try:
        if training is not None:
            return training.execute(interrupt, reporter)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return out_of_memory(config, images, name, reporter)  # outside the handler, so that what was made is free


def finished(
    config: Config, known: Mapping[str, list[index.Entry]], fingerprints: dict[str, str] | None = None
) -> Outcome | None:
    """Returns what became of a run, where it has come to an end, without beginning anything.

    Args:
        config: as composed.
        known: what has been recorded, from `index.by_key`. Where nothing there could be this run, no data are read.
        fingerprints: of the data met so far, for the next call.

    Raises:
        UserError: device or data are not to be had on this machine.
    """
    config = runtime.settle(config)
    same = [entry for entry in known.get(index.key(config), []) if entry.status in records.FINAL]
    if not same:
        return None
    fingerprints, data = {} if fingerprints is None else fingerprints, repr(config.data)
    if data not in fingerprints:
        fingerprints[data] = _images(config).fingerprint
    name = run_id(identity(config), fingerprints[data])
    copies = [entry for entry in same if entry.id == name and entry.path.stem == name]
    if not copies:
        return None
    if all(entry.path.parent.name != config.experiment for entry in copies):
        _show_in(config, name, copies[0].path)
    one = copies[0]
    return _ended(config, name, one.status, one.path, one.summary, one.probes, one.plugins)


def _finished(config: Config, name: str) -> Outcome | None:
    record = records.read_final(config.results_dir, name)
    if record is None:  # or damaged: the run is executed again
        return None
    _show_in(config, name, record.path)
    probes = record.run["config"].get("probes") or []
    brought = record.run["provenance"].get("plugins", [])
    return _ended(config, name, record.status, record.path, record.end["summary"], probes, brought)


def _ended(
    config: Config, name: str, status: str, path: Path, summary: dict, probes: Sequence[str], brought: Sequence[Mapping]
) -> Outcome:
    telling = {
        "unmeasured": [probe for probe in config.probes if probe not in probes],
        "unkept": bool(config.keep) and status == "done" and not places.weights_of(config.results_dir, name).exists(),
        "changed": plugins.changed(brought, config),
    }
    return Outcome(name, status, config, path, summary, recorded_before=True, **telling)


def _show_in(config: Config, name: str, record: Path) -> None:
    """Copies a final record into the folder of the experiment it was asked for, whose table is to show it."""
    if config.experiment != ADHOC:
        records.copy(record, records.path_of(config.results_dir, config.experiment, name))


class _Callable(ModuleType):
    """This module's class: Python lets a module have one of its own."""

    def __call__(self, *overrides: str, **options: Any) -> Outcome:
        """Executes the run of some overrides, as `lbt.sweep.from_python.run` does."""
        from lbt.sweep import from_python

        return from_python.run(*overrides, **options)


sys.modules[__name__].__class__ = _Callable
