"""What the reports read, as pandas tables of one's own: a row per run, or a row per epoch."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lbt import records
from lbt.config import Config
from lbt.errors import UserError, did_you_mean
from lbt.report import frame

FIRST = ["id", "experiments", "status", "epochs_done"]
_NEEDED = ["id", "path", "status", "epochs_done", "folders", "summary", "provenance", "suspect"]  # of a frame's columns
# Of a record's configuration; the device comes from the provenance, the experiments from where the record lies.
_SETTINGS = (Config.__dataclass_fields__.keys() | {"peak_lr"}) - {"device", "experiment"}


def runs(
    results_dir: str | Path = "results",
    *,
    experiment: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Returns the runs below a results folder, a row each: what tables and figures are made from.

    A run recorded for several experiments is one row, of which `experiments` holds them all. The columns are `id`,
    `experiments`, `status` (of the record; `unfinished` without an end) and `epochs_done`; every setting under its
    dotted name (`optimizer.name`, `batch`, `peak_lr`); the record's last line (`test_accuracy`, `wall_seconds`);
    whether the run is `suspect`; the provenance (`commit`, `dirty`, `torch`, `device`, `data_fingerprint`); and the
    record's `path`. What the last line holds under a setting's name is `end_<name>`; what a run ran on, with how many
    `threads` it began and with which `plugins` (their names and hashes, one text) is said by the provenance.

    Records that reports leave out (damaged, edited, of one id with different figures) are left out here, and suspect
    ones kept; a warning names both, and `attrs["left_out"]` has a line for each record left out.

    Args:
        results_dir: the folder that `lbt train` wrote to.
        experiment: only those of this experiment, or of any of several; may hold shell patterns (`fig*`).
        where: only those with these values: column -> value, or a list of any of which; None is "off".

    Raises:
        UserError: there is no such folder, experiment or column.
    """
    return _runs(results_dir, experiment, where)


def epochs(
    results_dir: str | Path = "results",
    *,
    experiment: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Returns the epochs of the runs that `runs` returns, a row each, in their order.

    The columns are `id`, `experiments`, `status`; the epoch's line (`epoch`, `step`, `train_loss`, `test_accuracy`,
    those of a probe as `<probe>.<name>`, lists left out); and every setting. What the line holds under a setting's name
    is `epoch_<name>`: `lr` is the run's base rate, `epoch_lr` the rate of the epoch's last update.

    Args:
        results_dir: as of `runs`.
        experiment: as of `runs`.
        where: as of `runs`.

    Raises:
        UserError: as `runs` does.
    """
    found = _runs(results_dir, experiment, where)
    lines = [[_apart(_plain(line), "epoch") for line in records.read(path).epochs] for path in found["path"]]
    times = np.repeat(np.arange(len(found)), [len(of_run) for of_run in lines])
    known = [name for name in found.columns if name.split(".")[0] in _SETTINGS]
    before, settings = (found[names].take(times).reset_index(drop=True) for names in (FIRST[:3], known))
    own = pd.DataFrame([line for of_run in lines for line in of_run]).drop(columns="kind", errors="ignore")
    table = pd.concat([before, own, settings], axis="columns")
    table.attrs = found.attrs
    return table


def _runs(
    results_dir: str | Path, experiment: str | Sequence[str] | None, where: Mapping[str, Any] | None
) -> pd.DataFrame:
    frame.refuse_missing(results_dir)
    loaded = frame.load(results_dir)
    table = _table(loaded.runs if len(loaded.runs) else pd.DataFrame(columns=_NEEDED))
    wanted = dict(where or {})
    if unknown := [name for name in wanted if name not in table]:
        raise UserError(f"{unknown[0]}: no column of these runs{did_you_mean(unknown[0], table.columns)}")
    table = frame.select(table, wanted)
    if experiment is not None:
        names = [experiment] if isinstance(experiment, str) else list(experiment)
        lies_there = frame.select(loaded.runs, {"experiment": names}).index
        if not len(lies_there):
            known = {name for of_run in table["experiments"] for name in of_run}
            said = ", ".join(names)
            raise UserError(f"experiment={said}: no records of that name in {results_dir}{did_you_mean(said, known)}")
        table = table.loc[table.index.intersection(lies_there)]
    _warn(loaded.problems, list(table["id"][table["suspect"].astype(bool)]))
    table.attrs["left_out"] = loaded.problems
    return table.reset_index(drop=True)


def _table(found: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame's runs with a column for each thing that their records say; of one name, the last counts."""
    names = [tuple(sorted(folders)) for folders in found["folders"]]
    first = found[["id"]].assign(experiments=names, status=found["status"], epochs_done=found["epochs_done"])
    settings = found[[name for name in found.columns if name.split(".")[0] in _SETTINGS]]
    # The last line repeats the number of epochs, and only of a run that has an end.
    ends = pd.DataFrame([_apart(summary, "end") for summary in found["summary"]], index=found.index)
    # Plug-ins are one text, as in a frame: names and hashes.
    provenance = [{key: value for key, value in one.items() if key != "plugins"} for one in found["provenance"]]
    made_by = pd.DataFrame([dict(frame.flatten(one)) for one in provenance], index=found.index)
    parts = [first, settings, ends.drop(columns="end_epochs", errors="ignore"), found[["suspect"]], made_by]
    table = pd.concat([*parts, found[["path"]]], axis="columns")
    return table.loc[:, ~table.columns.duplicated(keep="last")]


def _warn(left_out: Sequence[str], suspect: Sequence[str]) -> None:
    if left_out:
        more = f" (and {len(left_out) - 1} more, in .attrs['left_out'])" if left_out[1:] else ""
        warnings.warn(f"left out: {left_out[0]}{more}", stacklevel=4)
    if suspect:
        warnings.warn(f"{frame.SUSPECT}: {', '.join(suspect)}", stacklevel=4)


def _apart(line: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns a record's line in which no name is that of a setting."""
    return {f"{kind}_{name}" if name in _SETTINGS else name: value for name, value in line.items()}


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in frame.flatten(dict(line)) if not isinstance(value, tuple)}
