"""What a study asks for, `configs/reality/<name>.yaml`, and the records that answer: its trials and final runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lbt import records
from lbt.config import groups
from lbt.config.binding import bind
from lbt.errors import UserError
from lbt.report.frame import Frame, select
from lbt.report.kit.cells import differing, rows_of
from lbt.report.kit.statistics import at_chance, chance, scored_images, value_of
from lbt.report.reality.places import with_places

FINISHED = ("done", "diverged", "oom", "failed")  # an end that came of the settings; the others may still go on
INFEASIBLE = ("diverged", "oom", "failed")  # of them, those that count as chance
STANDING = ("fingerprint", "epochs", "model.name", "model.stem", "task.name", "data.augment", "precision")


@dataclass(frozen=True)
class Rule:
    """How a trial is chosen: the highest `metric` after the last epoch, or of any; of equals the earlier trial."""

    metric: str
    epoch: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Study:
    """A study's definition; see `configs/reality`. `target` and `margin` are accuracies in %."""

    name: str
    title: str
    about: str
    tune: str
    final: str
    contestants: list[str]
    batches: list[int]
    rule: Rule
    generic: list[str]
    layerwise: list[str]
    margin: float
    target: float
    schedules: list[str]
    ablate: str


def names() -> list[str]:
    """Returns the studies there are."""
    return groups.choices("reality")


def read(name: str) -> Study:
    """Returns a study.

    Raises:
        UserError: there is no such study, or its file has a wrong or missing setting.
    """
    return parse(name, groups.load("reality", name, called="study"))


def parse(name: str, content: Mapping[str, Any]) -> Study:
    """Returns the study a file's content describes; raises as `read` does."""
    missing = [key for key in Study.__dataclass_fields__ if key not in content and key != "name"]
    if missing:
        raise UserError(f"study {name}: {missing[0]} is missing")
    rule = Rule(**bind(Rule, content["rule"], f"study {name}, rule"))
    study = Study(name, **bind(Study, {**content, "rule": rule}, f"study {name}"))
    for key in ("generic", "layerwise", "schedules"):
        for optimizer in getattr(study, key):
            if optimizer not in study.contestants:
                raise UserError(f"study {name}, {key}: {optimizer} is none of the contestants")
    return study


@dataclass
class Trials:
    """The trials of one optimizer at one batch size.

    Attributes:
        runs: their rows of the frame, by trial.
        scores: of the finished ones, in the rule's metric; that of chance for one without.
        infeasible: finished trials that diverged, ran out of memory, failed or ended at chance.
        unfinished: trials that may still go on.
    """

    optimizer: str
    batch: int
    runs: pd.DataFrame
    scores: list[float]
    infeasible: int
    unfinished: int


@dataclass
class Final:
    """The final runs of one configuration: an optimizer's chosen one, or a `variant` (ablation) of it.

    Attributes:
        values: test accuracy in % of each finished run; that of chance for one without.
        diverged: how many diverged, ran out of memory or failed.
        epochs: of each finished run, its records' lines.
        config: the configuration, of the first run.
        steps_per_epoch: updates.
    """

    optimizer: str
    batch: int
    variant: str
    chosen: str
    runs: pd.DataFrame
    values: list[float]
    diverged: int
    epochs: list[list[dict[str, Any]]] = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    steps_per_epoch: int = 0
    untrained: int = 0  # how many of the runs diverged, failed or ended at chance


def trials(study: Study, frame: Frame, results_dir: str | Path, notes: list[str]) -> dict[tuple[str, int], Trials]:
    """Returns the trials made so far, by (optimizer, batch); contestants without any are absent.

    Args:
        study: whose.
        frame: all records.
        results_dir: where they lie.
        notes: a line is added for what is left out.
    """
    runs = _select(study, frame, study.tune, "study.trial", results_dir, notes)
    found = {}
    for key in [(optimizer, batch) for batch in study.batches for optimizer in study.contestants]:
        own = runs[(runs["optimizer.name"] == key[0]) & (runs["batch"] == key[1])] if len(runs) else runs
        if own.empty:
            continue
        own = own.sort_values("study.trial", kind="stable")
        finished = own[own["status"].isin(FINISHED)]
        rows, metric = rows_of(finished, [*finished]), study.rule.metric
        known = [_score(row, study.rule) for row in rows]
        scores = [_guessed(row, metric) if score is None else score for row, score in zip(rows, known, strict=True)]
        infeasible = sum(
            score is None or _untrained(row, metric, row["summary"].get(metric, score))
            for row, score in zip(rows, known, strict=True)
        )
        found[key] = Trials(*key, finished, scores, infeasible, len(own) - len(finished))
    return found


def _guessed(row: Mapping[str, Any], metric: str) -> float:
    """Returns what a finished run without a figure counts as."""
    value = value_of({**row, "status": "failed"}, metric, INFEASIBLE)
    return 0.0 if value is None else value


def _untrained(row: Mapping[str, Any], metric: str, value: float) -> bool:
    return row["status"] != "done" or at_chance(value, chance(row, metric), scored_images(row, metric))


def _score(row: Mapping[str, Any], rule: Rule) -> float | None:
    if row["status"] != "done":
        return None
    if rule.epoch == "best":
        values = [line.get(rule.metric) for line in records.read(Path(row["path"])).epochs]
        return max((value for value in values if value is not None), default=None)
    return row["summary"].get(rule.metric)


def finals(study: Study, frame: Frame, chosen: Sequence[str], results_dir: str | Path, notes: list[str]) -> list[Final]:
    """Returns the final runs of the configurations chosen, the chosen ones before their ablations.

    Args:
        study: whose.
        frame: all records.
        chosen: ids of the trials that are chosen.
        results_dir: where they lie.
        notes: a line is added for what is left out.
    """
    runs = _select(study, frame, study.final, "study.chosen", results_dir, notes)
    if runs.empty:
        return []
    current = runs["study.chosen"].isin(chosen)
    if stale := int((~current).sum()):
        notes.append(f"{stale} final runs of trials that are no longer the chosen ones are left out")
    runs = runs[current]
    if unfinished := int((~runs["status"].isin(FINISHED)).sum()):
        notes.append(f"{unfinished} final runs are not finished and do not count yet")
    variants = runs["study.variant"] if "study.variant" in runs else pd.Series(math.nan, index=runs.index)
    runs = runs.assign(variant=variants.where(variants.notna(), ""))
    found = []
    for (optimizer, batch, variant, origin), own in runs.groupby(
        ["optimizer.name", "batch", "variant", "study.chosen"]
    ):
        if differing(own["settings"]):
            notes.append(f"{optimizer} at batch {batch}, {variant or 'chosen'}: runs of differing settings, left out")
            continue
        found.append(_final(optimizer, int(batch), variant, origin, own))
    place = {name: index for index, name in enumerate(study.contestants)}
    return sorted(found, key=lambda final: (final.variant != "", final.batch, place[final.optimizer], final.variant))


def _final(optimizer: str, batch: int, variant: str, origin: str, runs: pd.DataFrame) -> Final:
    finished = runs[runs["status"].isin(FINISHED)].sort_values("seed")
    made = [records.read(Path(path)) for path in finished["path"]]
    first = records.read(Path(runs.iloc[0]["path"]))
    rows, metric = rows_of(finished, [*finished]), "test_accuracy"
    found = [row["summary"].get(metric) if row["status"] == "done" else None for row in rows]
    values = [_guessed(row, metric) if value is None else value for row, value in zip(rows, found, strict=True)]
    untrained = sum(_untrained(row, metric, value) for row, value in zip(rows, values, strict=True))
    steps = first.run["provenance"].get("steps_per_epoch", 0)
    lines = [record.epochs for record in made]
    config, diverged = first.run["config"], found.count(None)
    return Final(optimizer, batch, variant, origin, finished, values, diverged, lines, config, steps, untrained)


def _select(
    study: Study, frame: Frame, experiment: str, mark: str, results_dir: str | Path, notes: list[str]
) -> pd.DataFrame:
    """Returns an experiment's runs of the study's contestants and batches, all on the same data and length."""
    runs = select(frame.runs, {"experiment": experiment})
    if runs.empty:
        return runs
    runs = runs[runs["optimizer.name"].isin(study.contestants) & runs["batch"].isin(study.batches)]
    runs, note = with_places(runs, experiment, mark, results_dir)
    notes += [note] if note else []
    if mark not in runs:
        return runs.iloc[:0]
    runs = runs[runs[mark].notna()]
    for key in STANDING:
        if key in runs and len(values := sorted(map(str, runs[key].dropna().unique()))) > 1:
            raise UserError(
                f"{experiment}: its runs differ in {key} ({', '.join(values)}) and cannot be compared; move those that "
                "do not belong out of its folder"
            )
    return runs
