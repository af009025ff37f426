"""Chooses a trial for each optimizer and batch by a study's rule, and writes the choices down."""

import sys
from pathlib import Path
from typing import Any

from lbt import records
from lbt.errors import UserError
from lbt.report.frame import load_or_refuse
from lbt.report.reality.study import Trials, effort, read, trials
from lbt.sweep.tuning import chosen_trials, space

EDGE = 0.05  # of a range's length: a value that near to a bound lies on the edge


def choose(name: str, results_dir: str | Path) -> int:
    """Writes `<results_dir>/reality/<name>.yaml` and returns the exit code.

    Raises:
        UserError: no such study, or not one trial to choose.
    """
    study = read(name)
    choices, problems = [], []
    made = trials(study, load_or_refuse(results_dir), results_dir, problems)
    for found in made.values():
        try:
            choices.append(choice(found, study.space))
        except UserError as error:
            problems.append(str(error))
    missing = [f"{o} at {b}" for b in study.batches for o in study.contestants if (o, b) not in made]
    if missing:
        problems.append(f"no trial yet: {', '.join(missing)}")
    if not choices:
        raise UserError(f"{name}: nothing to choose from; {'; '.join(problems)}")
    for problem in [*problems, *effort(study, made)]:
        print(problem, file=sys.stderr)
    path = chosen_trials.path_of(results_dir, name)
    chosen_trials.write(path, vars(study.rule), study.tune, choices)
    for one in choices:
        edges = f"; on the edge: {', '.join(one.edges)}" if one.edges else ""
        measure = made[one.optimizer, one.batch].measure
        score = f"{measure.text(one.score)}{measure.unit}"
        print(f"{one.optimizer} at batch {one.batch}: trial {one.trial} of {one.trials}, {score}{edges}")
    print(path)
    return 0


def choice(found: Trials, of_space: str) -> chosen_trials.Choice:
    """Returns the chosen trial of an optimizer at a batch size.

    Args:
        found: all of them.
        of_space: the study's `space`.

    Raises:
        UserError: no trial is finished, or none trained.
    """
    where = f"{found.optimizer} at batch {found.batch}"
    if not found.scores:
        raise UserError(f"{where}: no finished trial to choose from, {found.unfinished} unfinished")
    if found.infeasible == len(found.scores):
        raise UserError(f"{where}: none of its {len(found.scores)} trials trained")
    feasible = [index for index, status in enumerate(found.runs["status"]) if status == "done"]
    best = max(feasible, key=lambda index: (found.measure.worth(found.scores[index]), -index))
    run = found.runs.iloc[best]
    config = records.read(Path(run["path"])).run["config"]
    ranges = space.of(found.optimizer, of_space)
    return chosen_trials.Choice(
        optimizer=found.optimizer,
        batch=found.batch,
        trial=int(run["study.trial"]),
        id=run["id"],
        score=float(found.scores[best]),
        trials=len(found.scores),
        infeasible=found.infeasible,
        edges=edges(ranges, config),
        settings={key: ranges.fixed[key] if key in ranges.fixed else _at(config, key) for key in ranges.keys},
    )


def edges(ranges: space.Space, config: dict[str, Any]) -> list[str]:
    """Returns the settings whose value lies within `EDGE` of a bound of its range, or beyond it."""
    found = []
    for axis in ranges.axes:
        if axis.kind == "choice":
            continue
        position = axis.position(_at(config, axis.key), config["epochs"])
        if not EDGE < position < 1 - EDGE:
            found.append(axis.key)
    return found


def _at(config: dict[str, Any], key: str) -> Any:
    """Returns a setting of a record's configuration; of a group its choice, of `key[i]` an element."""
    base, index = space.element(key)
    base = {"optimizer.lr": "lr", "optimizer.lr_scaling": "lr_scaling"}.get(base, base)
    data = config.get("data", {})
    value: Any = {**config, "data": {**data.get("options", {}), **data}}
    for part in base.split("."):
        if part not in value:
            raise UserError(f"{key}: the chosen trial's record has no such setting; was its space changed?")
        value = value[part]
    if index is not None:
        return value[index]
    return value.get("name", value) if isinstance(value, dict) else value
