"""The rules of claims about why large batches fail: comparisons of what probes measured in runs of named variants.

They decide as `lbt.report.claims.rules` does: three runs a side, Welch's test, Holm's correction for all places.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lbt.config.binding import pick
from lbt.report.claims import rules
from lbt.report.claims.measures import MEASURES
from lbt.report.claims.rules import NEEDED, Difference, Finding
from lbt.report.kit.cells import Cell, make_cells
from lbt.report.kit.statistics import at_chance, chance, scored_images, value_of
from lbt.report.looks import Looks, named


class Arms:
    """The runs of each variant at each batch, all of them on one data set and of one length.

    Args:
        runs: of a frame; those count that are done or diverged.
        variants: name -> selection of runs.
        batches: sizes, in ascending order.
        metric: name in a run's summary, of the accuracy in %.

    Attributes:
        notes: a line for each place of mixed settings, and for runs that stand on something else.
        probe: settings of the probes that most runs have; what others saw is left out.
        used: the ids of runs whose figures were asked for.
    """

    def __init__(
        self, runs: pd.DataFrame, variants: Mapping[str, Mapping[str, Any]], batches: Sequence[int], metric: str
    ):
        self.batches, self.metric = list(batches), metric
        ended = runs[runs["status"].isin(["done", "diverged"])] if len(runs) else runs
        cells = make_cells(named(ended, variants), ("variant", "batch"), metric)
        counts: Counter = Counter()
        for cell in cells:
            counts[cell.standing] += len(cell.rows)
        most = max(sorted(counts, key=str), key=counts.__getitem__, default=None)
        self.notes = [note for cell in cells if cell.differing for note in cell.notes()]
        if others := sum(counts.values()) - counts[most]:
            self.notes.append(f"{others} runs on other data or of another length or precision are left out")
        kept = [cell for cell in cells if cell.standing == most and not cell.differing]
        self._cells = {(cell.key["variant"], cell.key["batch"]): cell for cell in kept}
        looks = {run["id"]: Looks.of(run) for cell in kept for run in cell.rows}
        settings = Counter(json.dumps(one.probe, sort_keys=True) for one in looks.values() if one.probe)
        self.probe = json.loads(max(sorted(settings), key=settings.__getitem__, default="{}"))
        self._looks = {name: one for name, one in looks.items() if one.probe in ({}, self.probe)}
        if odd := len(looks) - len(self._looks):
            self.notes.append(f"what probes of other settings saw in {odd} runs is left out")
        self.used: set[str] = set()

    def values(self, measure: str, variant: str, batch: int) -> list[float]:
        """Returns a figure of each run that has it; of `accuracy` that of chance for a diverged one."""
        found = [self._value(measure, run) for run in self.runs(variant, batch)]
        return [value for value in found if value is not None]

    def trains(self, variant: str, batch: int) -> bool:
        """Says whether no run of these diverged or ended at chance."""
        cell = self._cells[variant, batch]
        return not any(self._idle(run, cell) for run in self.runs(variant, batch))

    def runs(self, variant: str, batch: int) -> list[dict[str, Any]]:
        """Returns the rows of the runs at a place."""
        cell = self._cells.get((variant, batch))
        return [] if cell is None else cell.rows

    def _value(self, measure: str, run: dict[str, Any]) -> float | None:
        if measure == "accuracy":
            value = value_of(run, self.metric)
        else:
            looks = self._looks.get(run["id"])
            value = None if looks is None else pick("measure", measure, MEASURES).of(looks)
        if value is not None:
            self.used.add(run["id"])
        return value

    def _idle(self, run: dict[str, Any], cell: Cell) -> bool:
        value = value_of(run, self.metric)
        guessing, images = chance(run, cell.name), scored_images(run, cell.name)
        return run["status"] == "diverged" or (value is not None and at_chance(value, guessing, images))


def above(arms: Arms, *, measure: str, first: str, second: str) -> Finding:
    """One variant's figure minus another's is above 0 at every batch."""
    found, absent = [], []
    for batch in arms.batches:
        _add(found, absent, f"batch {batch}", *(arms.values(measure, one, batch) for one in (first, second)))
    return rules.at_every_place(found, absent, NEEDED, _unit(measure))


def larger_batch_above(arms: Arms, *, measure: str, variants: Sequence[str]) -> Finding:
    """The figure at the largest batch minus that at the smallest is above 0 for every variant."""
    found, absent = [], []
    for name in variants:
        sides = (arms.values(measure, name, batch) for batch in (max(arms.batches), min(arms.batches)))
        _add(found, absent, name, *sides)
    return rules.at_every_place(found, absent, NEEDED, _unit(measure))


def beyond(arms: Arms, *, measure: str, variants: Sequence[str], threshold: float = 0.0) -> Finding:
    """The figure itself is above a threshold for every variant at every batch."""
    found, absent = [], []
    for name, batch in itertools.product(variants, arms.batches):
        values = arms.values(measure, name, batch)
        _add(found, absent, f"{name} at {batch}", values, [0.0] * len(values))
    return rules.at_every_place(found, absent, NEEDED, _unit(measure), threshold)


def no_difference(
    arms: Arms, *, measure: str, first: str, second: str, margin: float, batches: Sequence[int]
) -> Finding:
    """Two variants' figures differ by less than a margin."""
    found, absent = [], []
    for batch in batches:
        _add(found, absent, f"batch {batch}", *(arms.values(measure, one, batch) for one in (first, second)))
    return rules.hardly_matters(found, absent, NEEDED, margin)


def sharper_is_worse(arms: Arms, *, variants: Sequence[str]) -> Finding:
    """Of two variants at one batch the flatter one's accuracy minus the sharper one's is above 0, as a rule.

    The pairs are those whose sharpness after the last update is decided to differ, and that train.
    """
    places = list(itertools.product(itertools.combinations(variants, 2), arms.batches))
    known, absent = [], []
    for pair, batch in places:
        place = f"{pair[0]} and {pair[1]} at {batch}"
        _add(known, absent, place, *(arms.values("end_sharpness", one, batch) for one in pair))
    by_place = {f"{pair[0]} and {pair[1]} at {batch}": (pair, batch) for pair, batch in places}
    found, alike, idle = [], 0, 0
    for one, decision in zip(known, rules.decide(known, 0.0, NEEDED, len(places)), strict=True):
        pair, batch = by_place[one.place]
        if not all(arms.trains(name, batch) for name in pair):
            idle += 1
        elif one.n >= NEEDED and not decision.side:
            alike += 1
        else:
            sharp, flat = pair if one.mean > 0 else pair[::-1]
            accuracies = (arms.values("accuracy", name, batch) for name in (flat, sharp))
            found.append(Difference(f"{flat} against the sharper {sharp} at {batch}", *accuracies))
    if known and not found:
        missing = "pairs that train and differ in sharpness"
        finding = Finding("no pair to compare", str(min(one.n for one in known)), "-", rules.OPEN, missing)
    else:
        finding = rules.at_most_places(found, absent, NEEDED)
    for count, why in ((alike, "their sharpness is not decided to differ"), (idle, "one of the two does not train")):
        if count:
            finding = replace(finding, figures=f"{finding.figures}; {count} pairs left out: {why}")
    return finding


RULES: dict[str, Callable[..., Finding]] = {
    "above": above,
    "larger_batch_above": larger_batch_above,
    "beyond": beyond,
    "no_difference": no_difference,
    "sharper_is_worse": sharper_is_worse,
}


def _add(
    found: list[Difference], absent: list[str], place: str, first: Sequence[float], second: Sequence[float]
) -> None:
    """Adds a place to those that have runs on both sides, or to those that have not."""
    if first and second:
        found.append(Difference(place, first, second))
    else:
        absent.append(place)


def _unit(measure: str) -> str:
    return "points" if measure == "accuracy" else pick("measure", measure, MEASURES).unit
