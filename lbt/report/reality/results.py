"""A study's results: its trials, choices, final runs and comparisons, and the rows of its tables."""

import json
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt.errors import UserError
from lbt.report.frame import Frame
from lbt.report.kit.wording import p_value, percent
from lbt.report.reality import statistics
from lbt.report.reality.measure import OF_ACCURACY, Measure
from lbt.report.reality.selection import choice
from lbt.report.reality.study import Final, Study, Trials, effort, finals, trials
from lbt.report.reality.tables import RUNS
from lbt.sweep.tuning import chosen_trials

Rows = list[dict[str, Any]]


@dataclass
class Results:
    """What the records hold of a study.

    Attributes:
        study: its definition.
        trials: by (optimizer, batch).
        choices: by (optimizer, batch), as written down by `lbt reality choose`.
        finals: final runs of the choices, the chosen configurations first, then the ablations.
        notes: what is missing, left out or unequal.
        measure: what trials and final runs are compared by.
    """

    study: Study
    trials: dict[tuple[str, int], Trials]
    choices: dict[tuple[str, int], chosen_trials.Choice]
    finals: list[Final]
    notes: list[str]
    measure: Measure = OF_ACCURACY

    def final(self, optimizer: str, batch: int) -> Final | None:
        """Returns the runs of a chosen configuration that have values, None where there are none."""
        return next(
            (f for f in self.finals if (f.optimizer, f.batch, f.variant) == (optimizer, batch, "") and f.values), None
        )

    def compared(self, batch: int) -> list[statistics.Comparison]:
        """Returns the pairwise comparisons at a batch size."""
        names = self.study.contestants
        found = {name: final.values for name in names if (final := self.final(name, batch))}
        return statistics.compare(found, family=math.comb(len(names), 2))


def gather(study: Study, frame: Frame, results_dir: str | Path) -> Results:
    """Returns a study's results from the records and the file of its choices.

    Raises:
        UserError: its records stand on different data or lengths.
    """
    notes = [f"left out: {problem}" for problem in frame.problems]
    made = trials(study, frame, results_dir, notes)
    path = chosen_trials.path_of(results_dir, study.name)
    written = chosen_trials.read(path) if path.exists() else []
    choices = {(one.optimizer, one.batch): one for one in written}
    for key, one in choices.items():
        if key in made and (now := _chosen_now(made[key], study)) != one.id:
            notes.append(f"{key[0]} at batch {key[1]}: by now trial {now} would be chosen; lbt reality choose does so")
    if made:
        notes += effort(study, made)
    if unfinished := sum(found.unfinished for found in made.values()):
        notes.append(f"{unfinished} trials are not finished and do not count yet")
    found = finals(study, frame, [one.id for one in written], results_dir, notes)
    return Results(study, made, choices, found, notes, _measure(study, made, found))


def _measure(study: Study, made: Mapping[Any, Trials], found: Sequence[Final]) -> Measure:
    """Returns what the runs there are are compared by, trials and final runs by the same metric."""
    known = [one.measure for one in made.values()]
    known += [Measure.of(one.runs, study.final_metric, study.chance) for one in found]
    return known[0] if known else OF_ACCURACY


def _chosen_now(found: Trials, study: Study) -> str | None:
    try:
        return choice(found, study.space).id
    except UserError:
        return None


def summary(results: Results) -> Rows:
    """Returns table (a): a row for each contestant and batch with a trial or a final run."""
    rows = []
    for batch in results.study.batches:
        for name in results.study.contestants:
            tried, picked = results.trials.get((name, batch)), results.choices.get((name, batch))
            final = results.final(name, batch)
            if not tried and not final:
                continue
            effort = {
                "trials": len(tried.scores) if tried else None,
                "infeasible trials": percent(tried.infeasible / len(tried.scores)) if tried and tried.scores else None,
                "chosen trial": picked.trial if picked else None,
                f"validation{results.measure.unit}": picked.score if picked else None,
                "on the edge": picked.edges if picked else None,
            }
            runs = {RUNS: _ids(final) if final else []}
            rows.append({"batch": batch, "optimizer": name, **_measured(final, results), **effort, **runs})
    return rows


def _measured(final: Final | None, results: Results) -> dict[str, Any]:
    measure, target = results.measure, results.study.target
    median, quartiles = f"median{measure.unit}", f"quartiles{measure.unit}"
    if final is None:
        return dict.fromkeys(
            ("n", "diverged", median, quartiles, "95 % interval", "at the target", "steps to target")
        ) | {"n": 0}
    found = statistics.summarise(final.values)
    steps = plain.median_high(reach(results, final))  # a run that never gets there is later than any that does
    return {
        "n": found.n,
        "diverged": final.diverged,
        median: found.median,
        quartiles: found.quartiles,
        "95 % interval": found.interval,
        "at the target": percent(sum(measure.reaches(value, target) for value in final.values) / found.n),
        "steps to target": steps if math.isinf(steps) else int(steps),
    }


def reach(results: Results, final: Final) -> list[float]:
    """Returns each run's step of the first evaluation at the target; infinity where it was never reached, or lost."""
    metric, worth = results.study.final_metric, results.measure.worth
    target = worth(results.study.target)

    def steps(status: str, lines: Rows) -> float:
        if status != "done":
            return math.inf
        figures = [line.get(metric) for line in lines]
        worths = [None if figure is None else worth(figure) for figure in figures]
        return statistics.steps_to_target([line["step"] for line in lines], worths, target)

    return list(map(steps, final.runs["status"], final.epochs))


def pairs(results: Results) -> Rows:
    """Returns the table of pairwise shifts between the contestants (Hodges-Lehmann)."""
    return [
        {
            "batch": batch,
            "first": one.first,
            "second": one.second,
            f"first - second, {results.measure.difference}": one.difference,
            "95 % interval": one.interval,
            "p (Mann-Whitney)": p_value(one.p),
            "p (Holm)": p_value(one.corrected),
            RUNS: [run for name in (one.first, one.second) for run in _ids(results.final(name, batch))],
        }
        for batch in results.study.batches
        for one in results.compared(batch)
    ]


def _ids(final: Final) -> list[str]:
    return sorted(final.runs["id"])


def curves(results: Results) -> Rows:
    """Returns table (b): the validation score expected of the best of k trials, with its 10 % and 90 % quantiles."""
    expected, worth = f"expected{results.measure.unit}", results.measure.worth
    rows = []
    for (name, batch), tried in results.trials.items():
        found = statistics.best_of_k([worth(score) for score in tried.scores]).tolist() if tried.scores else []
        for k, row in enumerate(found, 1):
            between = tuple(sorted((worth(row[1]), worth(row[2]))))
            known = {"batch": batch, "optimizer": name, "trials": k}
            rows.append({**known, expected: worth(row[0]), "10 % to 90 %": between, RUNS: sorted(tried.runs["id"])})
    return rows


def ablations(results: Results) -> Rows:
    """Returns table (c): each ablated optimizer's chosen configuration and each change of it."""
    rows, measure = [], results.measure
    changes: dict[tuple[str, int], list[Final]] = {}
    for final in results.finals:
        if final.variant and final.values:
            changes.setdefault((final.optimizer, final.batch), []).append(final)
    for (name, batch), changed in changes.items():
        base = results.final(name, batch)
        for final in [base, *changed] if base else []:
            found = statistics.summarise(final.values)
            label = final.variant or "as chosen"
            other = statistics.compare({label: final.values, "chosen": base.values})[0]
            rows.append(
                {
                    "batch": batch,
                    "optimizer": final.optimizer,
                    "change": label,
                    "n": found.n,
                    f"median{measure.unit}": found.median,
                    f"quartiles{measure.unit}": found.quartiles,
                    "95 % interval": found.interval,
                    f"against chosen, {measure.difference}": other.difference if final.variant else None,
                    "its 95 % interval": other.interval if final.variant else None,
                    RUNS: _ids(final),
                }
            )
    return rows


def settings(results: Results) -> Rows:
    """Returns the chosen settings, a row each."""
    return [
        {
            "batch": one.batch,
            "optimizer": one.optimizer,
            "trial": one.trial,
            "run": one.id,
            "settings": ", ".join(f"{key}={_plain(value)}" for key, value in one.settings.items()),
        }
        for one in results.choices.values()
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return json.dumps(value) if isinstance(value, list) else "null" if value is None else str(value)


TABLES = {"summary": summary, "pairs": pairs, "best_of_k": curves, "ablations": ablations, "chosen": settings}
