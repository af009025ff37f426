"""Executes a run once, whoever asks for it and however often."""

from collections.abc import Mapping
from contextlib import suppress

from filelock import FileLock, Timeout

from lbt import build, records, runtime
from lbt.config import Config
from lbt.data import ImageSet
from lbt.errors import UserError
from lbt.identity import identity, run_id
from lbt.records import index, places
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.mirror import require
from lbt.session.outcome import Outcome
from lbt.train import Training
from lbt.train.beginning import out_of_memory
from lbt.train.executor import is_out_of_memory

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
    images = _images(config)
    name = run_id(identity(config), images.fingerprint)
    interrupt, reporter = interrupt or Interrupt(), reporter or Reporter()
    lock = places.lock_of(config.results_dir, name)

    ended = _finished(config, name)
    if ended is None:
        training = _training(config, images, name)  # refuses what does not fit the data before anything is written
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise UserError(f"results_dir={config.results_dir}: cannot be written to ({error.strerror})") from error
        try:
            with FileLock(lock, timeout=0):
                ended = _finished(config, name)  # by another process, meanwhile
                if ended is None:
                    ended = _execute(training, config, images, name, interrupt, reporter)
                    if ended.status in records.FINAL:
                        _remove_leftovers(config, name)
                    return ended
        except Timeout:
            path = records.path_of(config.results_dir, config.experiment, name)
            ended = Outcome(name, "running", config, path)
    if ended.status in records.FINAL:
        _tidy(config, name)
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


def _tidy(config: Config, name: str) -> None:
    """Removes what a finished run has left, where no process holds its lock: it was killed after its record's end."""
    lock = places.lock_of(config.results_dir, name)
    if lock.exists() or places.checkpoint_of(config.results_dir, name).exists():
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            _remove_leftovers(config, name)


def _remove_leftovers(config: Config, name: str) -> None:
    """Removes a finished run's checkpoint and lock file; its lock is held.

    Another process may hold a lock on the file that is removed, or lock a new one: it finds the final record then.
    """
    places.checkpoint_of(config.results_dir, name).unlink(missing_ok=True)
    with suppress(OSError):  # where an open file cannot be removed
        places.lock_of(config.results_dir, name).unlink(missing_ok=True)


def finished(config: Config, known: Mapping[str, list[records.RunRecord]]) -> Outcome | None:
    """Returns what became of a run, where it has come to an end, without beginning anything.

    Args:
        config: as composed.
        known: what has been recorded, from `index.by_key`. Where nothing there could be this run, no data are read.

    Raises:
        UserError: device or data are not to be had on this machine.
    """
    config = runtime.settle(config)
    same = [record for record in known.get(index.key(config), []) if record.status in records.FINAL]
    if not same:
        return None
    name = run_id(identity(config), _images(config).fingerprint)
    ended = _finished(config, name)
    if ended is not None:
        _tidy(config, name)
    return ended


def _finished(config: Config, name: str) -> Outcome | None:
    record = records.read_final(config.results_dir, name)
    if record is None:  # or damaged: the run is executed again
        return None
    if config.experiment != ADHOC:  # whose table is to show it
        records.copy(record.path, records.path_of(config.results_dir, config.experiment, name))
    ended = Outcome(name, record.status, config, record.path, record.end["summary"], recorded_before=True)
    measured = record.run["config"].get("probes") or []
    ended.unmeasured = [probe for probe in config.probes if probe not in measured]
    return ended
