"""The verdict: what the evidence at a batch size says, in one sentence built from its numbers."""

from dataclasses import dataclass
from typing import Literal

from lbt.report.reality.measure import Measure
from lbt.report.reality.results import Results
from lbt.report.reality.statistics import Comparison, seeds_needed
from lbt.report.reality.study import Final, Study
from lbt.sweep.tuning import FEWEST_SEEDS

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Verdict:
    """What is decided, and the sentence that says so."""

    decision: Literal["exceeds", "suffices", "falls short", "not decided"]
    sentence: str


def verdict(results: Results, batch: int) -> Verdict:
    """Compares the generic optimizer and the layer-wise one that did best in tuning, on test data.

    The two are picked by their validation score, so that test data decide nothing but the comparison. "exceeds": the
    shift's interval is above zero and the Holm-corrected p-value below 0.05; "suffices": the interval, exact at this
    number of seeds, is above minus the study's margin; "falls short": it is below zero, p below 0.05. Where a run of
    the layer-wise one does not train, being above it is no gain and decides nothing. Of a metric that is better the
    lower it is, above means below. While a contestant has fewer trials or seeds than planned, nothing is decided.
    """
    study, measure = results.study, results.measure
    picked = []
    for group in (study.generic, study.layerwise):
        name = _best(results, group, batch)
        if name is None:
            return Verdict("not decided", f"not decided: no trial of {' or '.join(group)} has been chosen.")
        if (final := results.final(name, batch)) is None:
            return Verdict("not decided", f"not decided: no final runs of {name}, chosen in tuning.")
        picked.append(final)
    generic, layerwise = picked
    sides = [f"{final.optimizer} ({_spread(final, measure)})" for final in picked]
    names = " against ".join(sides)
    if fewer := _fewer_than_planned(results, batch):
        return Verdict("not decided", f"not decided yet: {fewer}; {names}.")
    if (fewest := min(len(generic.values), len(layerwise.values))) < FEWEST_SEEDS:
        more = FEWEST_SEEDS - fewest
        return Verdict("not decided", f"not decided: needs at least {more} more {_seeds(more)}; {names}.")
    compared = _oriented(results, generic, layerwise, batch)
    interval = " to ".join(measure.text(bound, signed=True) for bound in compared.interval)
    shift = f"{measure.text(compared.difference, signed=True)} {_unit(measure)}"
    numbers = f"{names}: shift {shift}, exact 95 % interval {interval}, Holm-corrected p {compared.corrected:.2g}"
    return _decide(study, generic, layerwise, compared, measure, numbers)


def _fewer_than_planned(results: Results, batch: int) -> str:
    """Returns which contestants have fewer trials than planned, or else, of those chosen, seeds; "" if none has."""
    study = results.study
    tried = {name: results.trials.get((name, batch)) for name in study.contestants}
    final = {name: results.final(name, batch) for name in study.contestants if (name, batch) in results.choices}
    trials = {name: len(found.scores) if found else 0 for name, found in tried.items()}
    seeds = {name: len(found.values) if found else 0 for name, found in final.items()}
    for planned, what, counts in ((study.n_trials, "trials", trials), (study.n_seeds, "seeds", seeds)):
        if fewer := [f"{name} has {count}" for name, count in counts.items() if count < (planned or 0)]:
            return f"of {planned} planned {what} each {', '.join(fewer)}"
    return ""


def _decide(
    study: Study, generic: Final, layerwise: Final, found: Comparison, measure: Measure, numbers: str
) -> Verdict:
    low, high = (round(measure.worth(bound), 6) for bound in sorted(found.interval, key=measure.worth))
    margin = study.margin
    gain, below = measure.worth(found.difference), "below" if measure.metric.higher_is_better else "above"
    first, second, significant = generic.optimizer, layerwise.optimizer, found.corrected < SIGNIFICANT
    if low > -margin and layerwise.untrained:
        idle = f"{layerwise.untrained} of {len(layerwise.values)} runs of {second} do not train, which is no gain"
        return Verdict("not decided", f"not decided: {idle}; {numbers}.")
    if low > 0 and significant:
        return Verdict("exceeds", f"tuned {first} exceeds {second}: {numbers}.")
    if low > -margin:
        most = f"{margin:g} {_unit(measure)}"
        said = f"tuned {first} suffices, by the interval less than {most} {below} {second}: {numbers}."
        return Verdict("suffices", said)
    if high < 0 and significant:
        return Verdict("falls short", f"tuned {first} falls short of {second}: {numbers}.")
    distance = gain + margin if gain > -margin else -gain
    needed = seeds_needed(generic.values, layerwise.values, distance)
    n = min(len(generic.values), len(layerwise.values))
    if needed is None:
        return Verdict("not decided", f"not decided, and no number of seeds would at this difference: {numbers}.")
    more = max(1, needed - n)
    beyond = "" if study.n_seeds is None else ", beyond the plan"
    return Verdict("not decided", f"not decided: needs about {more} more {_seeds(more)} a side{beyond}; {numbers}.")


def _best(results: Results, group: list[str], batch: int) -> str | None:
    known = [name for name in group if (name, batch) in results.choices]
    worth = results.measure.worth
    return max(known, key=lambda name: worth(results.choices[name, batch].score), default=None)


def _oriented(results: Results, first: Final, second: Final, batch: int) -> Comparison:
    """Returns the comparison first - second, with the p-value corrected for all pairs at this batch size."""
    for one in results.compared(batch):
        if (one.first, one.second) == (first.optimizer, second.optimizer):
            return one
        if (one.second, one.first) == (first.optimizer, second.optimizer):
            low, high = one.interval
            return Comparison(one.second, one.first, -one.difference, (-high, -low), one.p, one.corrected)
    raise KeyError((first.optimizer, second.optimizer))


def _unit(measure: Measure) -> str:
    return measure.difference if measure.unit else f"in {measure.difference}"


def _spread(final: Final, measure: Measure) -> str:
    low, high = (measure.text(bound(final.values)) for bound in (min, max))
    diverged = f", {final.diverged} diverged" if final.diverged else ""
    return f"{low} to {high}{measure.unit}, n={len(final.values)}{diverged}"


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"
