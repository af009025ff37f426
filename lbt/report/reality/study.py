"""What a study asks for, `configs/reality/<name>.yaml`, and the records that answer: its trials and final runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lbt import records
from lbt.config import groups
from lbt.config.binding import bind
from lbt.errors import UserError
from lbt.report.frame import Frame, select
from lbt.report.kit.cells import differing, rows_of
from lbt.report.reality.measure import OF_ACCURACY, Measure
from lbt.report.reality.places import with_places
from lbt.sweep.tuning.space import OWN

FINISHED = ("done", "diverged", "oom", "failed")  # an end that came of the settings; the others may still go on
STANDING = ("fingerprint", "epochs", "model.name", "model.stem", "task.name", "data.augment", "precision")
OF_A_BATCH = ("epochs",)  # of these, what may differ between batch sizes, which are never compared with one another


@dataclass(frozen=True)
class Rule:
    """How a trial is chosen: the best `metric` after the last epoch, or of any; of equals the earlier trial.

    The metric's task says whether the highest or the lowest is the best.
    """

    metric: str
    epoch: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Study:
    """A study's definition; see `configs/reality`.

    Attributes:
        target, margin: in the rule's metric; accuracies in %.
        chance: what guessing scores in that metric; None: an accuracy, of which the number of classes tells it.
        space: of its trials, as the sweeper's `space`.
        n_trials, n_seeds: planned, of each contestant at a batch size; until these seeds are there, nothing is decided.
            None: no number is planned.
    """

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
    chance: float | None = None
    space: str = OWN
    n_trials: int | None = None
    n_seeds: int | None = None

    @property
    def final_metric(self) -> str:
        """Name of the figure of the final runs: the rule's metric on test data."""
        return f"test_{self.rule.metric.removeprefix('val_')}"


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
    needed = [one.name for one in fields(Study) if one.default is MISSING and one.name != "name"]
    missing = [key for key in needed if key not in content]
    if missing:
        raise UserError(f"study {name}: {missing[0]} is missing")
    rule = Rule(**bind(Rule, content["rule"], f"study {name}, rule"))
    study = Study(name, **bind(Study, {**content, "rule": rule}, f"study {name}"))
    for key in ("generic", "layerwise", "schedules"):
        for optimizer in getattr(study, key):
            if optimizer not in study.contestants:
                raise UserError(f"study {name}, {key}: {optimizer} is none of the contestants")
    if study.chance is None and not rule.metric.endswith("accuracy"):
        raise UserError(f"study {name}: chance is missing: what guessing scores in {rule.metric}")
    return study


@dataclass
class Trials:
    """The trials of one optimizer at one batch size.

    Attributes:
        runs: their rows of the frame, by trial.
        scores: of the finished ones, in the rule's metric; that of chance for one without.
        infeasible: finished trials that diverged, ran out of memory, failed or ended at chance.
        unfinished: trials that may still go on.
        measure: what the scores are.
    """

    optimizer: str
    batch: int
    runs: pd.DataFrame
    scores: list[float]
    infeasible: int
    unfinished: int
    measure: Measure = OF_ACCURACY


@dataclass
class Final:
    """The final runs of one configuration: an optimizer's chosen one, or a `variant` (ablation) of it.

    Attributes:
        values: the figure on test data of each finished run; that of chance for one without.
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
        measure = Measure.of(runs, metric, study.chance)
        known = [_score(row, study.rule, measure) for row in rows]
        done = [value for row, value in zip(rows, known, strict=True) if row["status"] == "done"]
        if done and set(done) == {None}:
            held_out = "; data.val=0.1 holds some out" if metric.startswith("val_") else ""
            notes.append(f"{key[0]} at batch {key[1]}: its trials have no {metric}{held_out}")
        scores = [measure.score(row, metric, value) for row, value in zip(rows, known, strict=True)]
        infeasible = sum(
            value is None or measure.is_guess(row, metric, row["summary"].get(metric, value))
            for row, value in zip(rows, known, strict=True)
        )
        found[key] = Trials(*key, finished, scores, infeasible, len(own) - len(finished), measure)
    return found


def effort(study: Study, made: Mapping[tuple[str, int], Trials]) -> list[str]:
    """Returns a line for each batch size whose contestants have fewer trials than planned, or not equally many."""
    lines = []
    for batch in study.batches:
        counts = {name: len(made[name, batch].scores) if (name, batch) in made else 0 for name in study.contestants}
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        if study.n_trials is not None and min(counts.values()) < study.n_trials:
            lines.append(f"of {study.n_trials} planned trials each, finished at batch {batch}: {listed}")
        elif len(set(counts.values())) > 1:
            lines.append(f"unequal effort at batch {batch}, finished trials: {listed}")
    return lines


def _score(row: Mapping[str, Any], rule: Rule, measure: Measure) -> float | None:
    if row["status"] != "done":
        return None
    if rule.epoch == "best":
        values = [line.get(rule.metric) for line in records.read(Path(row["path"])).epochs]
        return max((value for value in values if value is not None), key=measure.worth, default=None)
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
        found.append(_final(study, optimizer, int(batch), variant, origin, own))
    place = {name: index for index, name in enumerate(study.contestants)}
    return sorted(found, key=lambda final: (final.variant != "", final.batch, place[final.optimizer], final.variant))


def _final(study: Study, optimizer: str, batch: int, variant: str, origin: str, runs: pd.DataFrame) -> Final:
    finished = runs[runs["status"].isin(FINISHED)].sort_values("seed")
    made = [records.read(Path(path)) for path in finished["path"]]
    first = records.read(Path(runs.iloc[0]["path"]))
    rows, metric = rows_of(finished, [*finished]), study.final_metric
    measure = Measure.of(runs, metric, study.chance)
    found = [row["summary"].get(metric) if row["status"] == "done" else None for row in rows]
    values = [measure.score(row, metric, value) for row, value in zip(rows, found, strict=True)]
    untrained = sum(measure.is_guess(row, metric, value) for row, value in zip(rows, values, strict=True))
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
        if key not in runs:
            continue
        for _, own in runs.groupby("batch") if key in OF_A_BATCH else [(None, runs)]:
            if len(values := sorted(map(str, own[key].dropna().unique()))) > 1:
                raise UserError(
                    f"{experiment}: its runs differ in {key} ({', '.join(values)}) and cannot be compared; move those "
                    "that do not belong out of its folder"
                )
    return runs
