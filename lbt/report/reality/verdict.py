"""The verdict: what the evidence at a batch size says, in one sentence built from its numbers."""

from dataclasses import dataclass
from typing import Literal

from lbt.report.reality.measure import Measure
from lbt.report.reality.results import Results
from lbt.report.reality.statistics import Comparison, seeds_needed
from lbt.report.reality.study import Final
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
    lower it is, above means below.
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
    fewest = min(len(generic.values), len(layerwise.values))
    sides = [f"{final.optimizer} ({_spread(final, measure)})" for final in picked]
    names = " against ".join(sides)
    if fewest < FEWEST_SEEDS:
        more = FEWEST_SEEDS - fewest
        return Verdict("not decided", f"not decided: needs at least {more} more {_seeds(more)}; {names}.")
    compared = _oriented(results, generic, layerwise, batch)
    interval = " to ".join(measure.text(bound, signed=True) for bound in compared.interval)
    shift = f"{measure.text(compared.difference, signed=True)} {'' if measure.unit else 'in '}{measure.difference}"
    numbers = f"{names}: shift {shift}, exact 95 % interval {interval}, Holm-corrected p {compared.corrected:.2g}"
    return _decide(generic, layerwise, compared, measure, study.margin, numbers)


def _decide(
    generic: Final, layerwise: Final, found: Comparison, measure: Measure, margin: float, numbers: str
) -> Verdict:
    low, high = sorted(map(measure.worth, found.interval))
    gain, below = measure.worth(found.difference), "below" if measure.metric.higher_is_better else "above"
    first, second, significant = generic.optimizer, layerwise.optimizer, found.corrected < SIGNIFICANT
    if low >= -margin and layerwise.untrained:
        idle = f"{layerwise.untrained} of {len(layerwise.values)} runs of {second} do not train, which is no gain"
        return Verdict("not decided", f"not decided: {idle}; {numbers}.")
    if low > 0 and significant:
        return Verdict("exceeds", f"tuned {first} exceeds {second}: {numbers}.")
    if low >= -margin:
        return Verdict("suffices", f"tuned {first} suffices, it is less than {margin:g} {below} {second}: {numbers}.")
    if high < 0 and significant:
        return Verdict("falls short", f"tuned {first} falls short of {second}: {numbers}.")
    distance = gain + margin if gain > -margin else -gain
    needed = seeds_needed(generic.values, layerwise.values, distance)
    n = min(len(generic.values), len(layerwise.values))
    if needed is None:
        return Verdict("not decided", f"not decided, and no number of seeds would at this difference: {numbers}.")
    more = max(1, needed - n)
    return Verdict("not decided", f"not decided: needs about {more} more {_seeds(more)} a side; {numbers}.")


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


def _spread(final: Final, measure: Measure) -> str:
    low, high = (measure.text(bound(final.values)) for bound in (min, max))
    diverged = f", {final.diverged} diverged" if final.diverged else ""
    return f"{low} to {high}{measure.unit}, n={len(final.values)}{diverged}"


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"
