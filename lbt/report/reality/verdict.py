"""The verdict: what the evidence at a batch size says, in one sentence built from its numbers."""

from dataclasses import dataclass
from typing import Literal

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
    the layer-wise one does not train, being above it is no gain and decides nothing.
    """
    study = results.study
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
    names = f"{generic.optimizer} ({_spread(generic)}) against {layerwise.optimizer} ({_spread(layerwise)})"
    if fewest < FEWEST_SEEDS:
        more = FEWEST_SEEDS - fewest
        return Verdict("not decided", f"not decided: needs at least {more} more {_seeds(more)}; {names}.")
    return _decide(generic, layerwise, _oriented(results, generic, layerwise, batch), study.margin, names)


def _decide(generic: Final, layerwise: Final, found: Comparison, margin: float, names: str) -> Verdict:
    low, high = found.interval
    numbers = (
        f"{names}: shift {found.difference:+.2f} % points, exact 95 % interval {low:+.2f} to {high:+.2f}, "
        f"Holm-corrected p {found.corrected:.2g}"
    )
    first, second, significant = generic.optimizer, layerwise.optimizer, found.corrected < SIGNIFICANT
    if low >= -margin and layerwise.untrained:
        idle = f"{layerwise.untrained} of {len(layerwise.values)} runs of {second} do not train, which is no gain"
        return Verdict("not decided", f"not decided: {idle}; {numbers}.")
    if low > 0 and significant:
        return Verdict("exceeds", f"tuned {first} exceeds {second}: {numbers}.")
    if low >= -margin:
        return Verdict("suffices", f"tuned {first} suffices, it is less than {margin:g} below {second}: {numbers}.")
    if high < 0 and significant:
        return Verdict("falls short", f"tuned {first} falls short of {second}: {numbers}.")
    distance = found.difference + margin if found.difference > -margin else -found.difference
    needed = seeds_needed(generic.values, layerwise.values, distance)
    n = min(len(generic.values), len(layerwise.values))
    if needed is None:
        return Verdict("not decided", f"not decided, and no number of seeds would at this difference: {numbers}.")
    more = max(1, needed - n)
    return Verdict("not decided", f"not decided: needs about {more} more {_seeds(more)} a side; {numbers}.")


def _best(results: Results, group: list[str], batch: int) -> str | None:
    known = [name for name in group if (name, batch) in results.choices]
    return max(known, key=lambda name: results.choices[name, batch].score, default=None)


def _oriented(results: Results, first: Final, second: Final, batch: int) -> Comparison:
    """Returns the comparison first - second, with the p-value corrected for all pairs at this batch size."""
    for one in results.compared(batch):
        if (one.first, one.second) == (first.optimizer, second.optimizer):
            return one
        if (one.second, one.first) == (first.optimizer, second.optimizer):
            low, high = one.interval
            return Comparison(one.second, one.first, -one.difference, (-high, -low), one.p, one.corrected)
    raise KeyError((first.optimizer, second.optimizer))


def _spread(final: Final) -> str:
    values = sorted(final.values)
    diverged = f", {final.diverged} diverged" if final.diverged else ""
    return f"{values[0]:.2f} to {values[-1]:.2f} %, n={len(values)}{diverged}"


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"
