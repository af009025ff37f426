"""Executes a run once, whoever asks for it and however often.

This module can be called: `lbt.run("optimizer=tvlars", "batch=512")` is `lbt train optimizer=tvlars batch=512`, as
`lbt.sweep.from_python.run` describes it. `lbt.run.run(config)` takes a configuration.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import Timeout

from lbt import build, fit, plugins, records, runtime
from lbt.config import Config, WandbConfig
from lbt.data import ImageSet
from lbt.devices import speaks
from lbt.devices.group import Group
from lbt.devices.launch import DeviceError, launch
from lbt.devices.processes import joined
from lbt.errors import UserError
from lbt.identity import identity, run_id
from lbt.records import index, places
from lbt.session import mirrors
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.lock import held
from lbt.session.outcome import Outcome
from lbt.train import Training
from lbt.train.beginning import ImagesTooLargeError, out_of_memory
from lbt.train.memory import is_out_of_memory

ADHOC = "adhoc"  # the experiment of a run that belongs to none


@runtime.own_threads()
def run(config: Config, *, interrupt: Interrupt | None = None, reporter: Reporter | None = None) -> Outcome:
    """Executes a run, once: a finished one is returned from its record, an interrupted one resumed.

    A record from another experiment's folder is copied into this one's, whose tables look there. On several devices
    the run is executed by as many processes, which are started here unless torch's launcher has started them.

    Raises:
        UserError: a mistake in the configuration or the data; nothing is written.
    """
    interrupt, reporter = interrupt or Interrupt(), reporter or Reporter()
    config = runtime.settle(config)
    with joined(config.device) as group:
        if group.rank != 0:
            config = replace(config, wandb=WandbConfig(), mirror=[])  # one process writes
        images, name = group.agreed(partial(_prepared, config))
        ended = group.first(partial(_finished, config, name))
        if ended is None and config.devices > group.size:
            del images
            build.forget_images()  # the processes read them anew
            return _launched(config, name, interrupt, reporter)
        if ended is None:
            # Refuses what does not fit before anything is written.
            training = _training(config, images, name, group, reporter)
            ended = _alone(partial(_execute, training, config, images, name, interrupt, reporter), config, name, group)
        if ended.status in records.FINAL:
            group.first(partial(places.clear, config.results_dir, [name]))
    if ended.recorded_before or ended.status == "running":
        reporter.not_executed(ended)
    return ended


def _launched(config: Config, name: str, interrupt: Interrupt, reporter: Reporter) -> Outcome:
    """Executes a run by several processes and returns what became of it."""
    try:
        return launch(_member, [config, reporter.elsewhere()], count=config.devices, interrupt=interrupt)
    except DeviceError as error:
        path = records.path_of(config.results_dir, config.experiment, name)
        said = f"{error}; the same command goes on"
        print(f"lbt: run {name}: {said}", file=sys.stderr)
        status = "interrupted" if interrupt.requested() else "oom" if error.out_of_memory else "failed"
        return Outcome(name, status, config, path, {"error": said})


def _member(interrupt: Interrupt, config: Config, reporter: Callable[[], Reporter]) -> Outcome:
    """What each of several processes does."""
    return run(config, interrupt=interrupt, reporter=reporter() if speaks() else None)


def _prepared(config: Config) -> tuple[ImageSet, str]:
    """Returns the data of a settled configuration, and its run's id.

    Raises:
        UserError: a mistake in the configuration or the data.
    """
    build.validate(config)
    mirrors.require(config)
    images = _images(config)
    fit.fits(config, images)
    return images, run_id(identity(config), images.fingerprint)


def _alone(execute: Callable[[], Outcome], config: Config, name: str, group: Group) -> Outcome:
    """Executes a run while no other command does; returns what became of it, meanwhile or here."""
    with ExitStack() as stack:
        try:
            group.first(lambda: stack.enter_context(held(config.results_dir, name)))
        except Timeout:
            path = records.path_of(config.results_dir, config.experiment, name)
            return Outcome(name, "running", config, path)
        ended = group.first(partial(_finished, config, name))  # by another process, meanwhile
        if ended is not None:
            return ended
        group.first(partial(places.tidy, config.results_dir, name))
        executed = execute()
        if executed.status in records.FINAL:
            group.first(partial(_show_in, config, name, executed.path))
        return executed


def _images(config: Config) -> ImageSet:
    try:
        return build.images(config)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # Without the data a run has no id and no record.
        raise UserError(f"data={config.data.name}: this machine's memory is too small to read it") from error


def _training(config: Config, images: ImageSet, name: str, group: Group, reporter: Reporter) -> Training | None:
    """Returns the training, None where there is no memory for its model and data."""
    try:
        return Training(config, images, name, group=group)
    except Exception as error:
        if group.size > 1 or not is_out_of_memory(error):
            raise
        if isinstance(error, ImagesTooLargeError):
            reporter.say(str(error))
    return None


def _execute(
    training: Training | None, config: Config, images: ImageSet, name: str, interrupt: Interrupt, reporter: Reporter
) -> Outcome:
    try:
        if training is not None:
            return training.execute(interrupt, reporter)
    except Exception as error:
        if training.group.size > 1 or not is_out_of_memory(error):
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
