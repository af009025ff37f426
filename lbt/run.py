"""Executes a run once, whoever asks for it and however often."""

from collections.abc import Mapping
from pathlib import Path

from filelock import Timeout

from lbt import build, fit, records, runtime
from lbt.config import Config
from lbt.identity import identity, run_id
from lbt.records import index, places
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.lock import held
from lbt.session.mirror import require
from lbt.session.outcome import Outcome
from lbt.train import Training

ADHOC = "adhoc"  # the experiment of a run that belongs to none


def run(config: Config, *, interrupt: Interrupt | None = None, reporter: Reporter | None = None) -> Outcome:
    """Executes a run, once: a finished one is returned from its record, an interrupted one resumed.

    A record from another experiment's folder is copied into this one's, whose tables look there.

    Raises:
        UserError: a mistake in the configuration or the data; nothing is written.
    """
    config = runtime.settle(config)
    build.validate(config)
    if config.wandb.mode != "disabled":
        require()
    images = build.images(config)
    fit.fits(config, images)
    name = run_id(identity(config), images.fingerprint)
    interrupt, reporter = interrupt or Interrupt(), reporter or Reporter()

    ended = _finished(config, name)
    if ended is None:
        training = Training(config, images, name)  # refuses what does not fit the data before anything is written
        try:
            with held(config.results_dir, name):
                ended = _finished(config, name)  # by another process, meanwhile
                if ended is None:
                    places.tidy(config.results_dir, name)
                    executed = training.execute(interrupt, reporter)
                    if executed.status in records.FINAL:
                        _show_in(config, name, executed.path)
            if ended is None:
                if executed.status in records.FINAL:
                    places.clear(config.results_dir, [name])
                return executed
        except Timeout:
            path = records.path_of(config.results_dir, config.experiment, name)
            ended = Outcome(name, "running", config, path)
    if ended.status in records.FINAL:
        places.clear(config.results_dir, [name])
    reporter.not_executed(ended)
    return ended


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
        fingerprints[data] = build.images(config).fingerprint
    name = run_id(identity(config), fingerprints[data])
    copies = [entry for entry in same if entry.id == name and entry.path.stem == name]
    if not copies:
        return None
    if all(entry.path.parent.name != config.experiment for entry in copies):
        _show_in(config, name, copies[0].path)
    return Outcome(name, copies[0].status, config, copies[0].path, copies[0].summary, recorded_before=True)


def _finished(config: Config, name: str) -> Outcome | None:
    record = records.read_final(config.results_dir, name)
    if record is None:  # or damaged: the run is executed again
        return None
    _show_in(config, name, record.path)
    return Outcome(name, record.status, config, record.path, record.end["summary"], recorded_before=True)


def _show_in(config: Config, name: str, record: Path) -> None:
    """Copies a final record into the folder of the experiment it was asked for, whose table is to show it."""
    if config.experiment != ADHOC:
        records.copy(record, records.path_of(config.results_dir, config.experiment, name))
