"""Executes a run once, whoever asks for it and however often."""

from collections.abc import Mapping

from filelock import Timeout

from lbt import build, fit, records, runtime
from lbt.config import Config
from lbt.identity import identity, run_id
from lbt.records import index
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
                    return training.execute(interrupt, reporter)
        except Timeout:
            path = records.path_of(config.results_dir, config.experiment, name)
            ended = Outcome(name, "running", config, path)
    reporter.not_executed(ended)
    return ended


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
    return _finished(config, run_id(identity(config), build.images(config).fingerprint))


def _finished(config: Config, name: str) -> Outcome | None:
    record = records.read_final(config.results_dir, name)
    if record is None:  # or damaged: the run is executed again
        return None
    if config.experiment != ADHOC:  # whose table is to show it
        records.copy(record.path, records.path_of(config.results_dir, config.experiment, name))
    return Outcome(name, record.status, config, record.path, record.end["summary"], recorded_before=True)
