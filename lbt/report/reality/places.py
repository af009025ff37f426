"""The places a study has for runs that were made before it, or for another experiment.

Which trial or chosen configuration a run is stands in its record, but is no part of what the run is: a run made earlier
has the numbers and lacks the mark. The study's own grid says which of its places the run takes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lbt import sweep
from lbt.errors import UserError
from lbt.identity import identity
from lbt.records.variation import flatten


def with_places(runs: pd.DataFrame, experiment: str, mark: str, results_dir: str | Path) -> tuple[pd.DataFrame, str]:
    """Returns the runs, those without a mark with that of the grid, and a line on those that stay without.

    Args:
        runs: of a frame, all of the experiment.
        experiment: whose grid is asked, if there is a run without a mark.
        mark: what every run of the study has, `study.trial` or `study.chosen`.
        results_dir: where the grid's choices are read from.
    """
    lost = runs[mark].isna() if mark in runs else pd.Series(True, index=runs.index)
    if not lost.any():
        return runs, ""
    try:
        places = _places(experiment, results_dir)
    except UserError as error:
        return runs, f"{lost.sum()} runs of {experiment} do not say which of its places they take: {error}"
    found = [places.get(_key(own), places.get(_key(own, "precision"))) for own in runs["settings"][lost]]
    for name in sorted({name for place in found if place for name in place}):
        column = runs[f"study.{name}"] if f"study.{name}" in runs else pd.Series(None, index=runs.index)
        given = [place.get(name) if place else None for place in found]
        column = column.astype(object).mask(lost, pd.Series(given, index=runs.index[lost], dtype=object))
        runs = runs.assign(**{f"study.{name}": column})
    left = found.count(None)
    return runs, f"{left} runs in the folder of {experiment} are none of its grid" if left else ""


def _places(experiment: str, results_dir: str | Path) -> dict[frozenset, dict[str, Any]]:
    """Returns the grid's `study` of each run by its identity."""
    folder = str(results_dir).replace("\\", "\\\\").replace("'", "\\'")
    jobs = sweep.grid([f"+experiment={experiment}", f"results_dir='{folder}'"])
    found = {}
    for config in (job.config for job in jobs):
        unsettled = ["precision"] if config.precision == "auto" else []  # each machine settles that for itself
        found[_key(dict(flatten(identity(config))), *unsettled)] = dict(config.study or {})
    return found


def _key(settings: Mapping[str, Any], *apart_from: str) -> frozenset:
    return frozenset((name, value) for name, value in settings.items() if name not in apart_from)
