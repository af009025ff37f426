"""The runs of a name, of an experiment or of a user's own sweep: what lies in `<results_dir>/runs/<name>`.

Of a record only the first and the last line are read; what its epochs hold is the tables' business.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt import records
from lbt.config import length_of
from lbt.errors import UserError, did_you_mean
from lbt.files import read_regular
from lbt.records import places
from lbt.records.seeds import identity_as_recorded
from lbt.records.variation import by_name, flatten


@dataclass(frozen=True)
class Known:
    """A run as its record tells it.

    Attributes:
        id: of the run.
        status: as its record has it; of one without an end `running` where a process holds it, else `interrupted`.
        epochs: how many are recorded.
        length: how many it is to have.
        started: when it was begun, ISO 8601 in UTC; empty where the record does not say.
        config: its settings under dotted names.
        settings: those that decide its numbers, what is off left out.
    """

    id: str
    status: str
    epochs: int
    length: int
    started: str
    config: dict[str, Any]
    settings: dict[str, Any]


def refuse_missing(results_dir: str | Path) -> None:
    """Raises a `UserError` where there is no such folder."""
    if not Path(results_dir).is_dir():
        raise UserError(f"{results_dir}: no such folder; lbt train writes one, --results-dir names another")


def names(results_dir: str | Path) -> list[str]:
    """Returns the names under which there are records."""
    return list(dict.fromkeys(path.parent.name for path in records.paths(results_dir)))


def refuse_unknown(
    name: str, results_dir: str | Path, what: str = "study or sweep", others: Iterable[str] = ()
) -> None:
    """Raises a `UserError` where nothing is recorded under a name.

    Args:
        name: asked for.
        results_dir: where results lie.
        what: the name may be of.
        others: further names there are.
    """
    known = names(results_dir)
    if name not in known:
        raise UserError(f'there is no {what} "{name}"{did_you_mean(name, {*known, *others})}')


def runs(results_dir: str | Path, name: str) -> tuple[list[Known], list[str]]:
    """Returns the runs recorded under a name, and a line for each record that cannot be read."""
    found, problems = [], []
    for path in records.paths(results_dir):
        if path.parent.name != name:
            continue
        try:
            found.append(_known(path, results_dir))
        except Exception as error:  # what a file may hold is not known
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error!r}")
    return found, problems


def _known(path: Path, results_dir: str | Path) -> Known:
    run, epochs, end = records.outline(path, read_regular(path))
    config = run["config"]
    if end is not None:
        status = end["status"]
    else:
        status = "running" if places.held(places.lock_of(results_dir, run["id"])) else "interrupted"
    return Known(
        run["id"],
        status,
        epochs,
        length_of(config),
        run["provenance"].get("started", ""),
        by_name(config),
        dict(flatten(identity_as_recorded(config))),
    )
