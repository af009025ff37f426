"""An answer in words: the verdict, the tuning effort and the sentence with its figures and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lbt.report.answer.contenders import SAME, TEST, Contender, Place
from lbt.report.claims.rules import NEEDED
from lbt.report.frame import SUSPECT
from lbt.report.kit.statistics import LEVEL, MOST_SEEDS, POWER
from lbt.report.kit.wording import mean_and_spread, p_value

if TYPE_CHECKING:
    from lbt.report.answer import Comparison

FAVOURED = "favoured"  # the verdict where one is
NO_GAIN = "being above such runs is no gain"
NAMED = 3  # ids of a side that the sentence names
FLATTERS = {TEST: ", which flatters them", SAME: ", which flatters them"}


def undecided(place: Place, found: Comparison | None, needs: int | None) -> str:
    """Returns the verdict where none is favoured."""
    if found is None:
        training = [one.optimizer for one in place.contenders if one.trains]
        if len(place.contenders) < 2:
            return "nothing to compare: one optimizer only"
        return f"not decided: only {training[0]} trains" if training else "not decided: none of them trains"
    if not found.found:
        return f"not decided: none but {found.leader.optimizer} trains in all of its runs"
    if found.spread is None:
        return "not decided: one run each, spread unknown"
    if needs is None:
        return f"not decided: needs more than {MOST_SEEDS:,} seeds"
    return f"not decided: needs about {needs} more {seeds(needs)}"


def seeds(count: int) -> str:
    """Returns the word after a number of seeds."""
    return "seed" if count == 1 else "seeds"


def effort(contenders: Sequence[Contender]) -> str:
    """Returns how many configurations were tried of each optimizer, and on what data one was chosen."""
    kinds = {(one.tried, one.kind, one.chosen_on) for one in contenders}
    if len(kinds) == 1:
        ((tried, _, chosen_on),) = kinds
        if tried == 1:
            return "one configuration each, none chosen" if len(contenders) > 1 else "one configuration"
        each = " each" if len(contenders) > 1 and tried is not None else ""
        return f"the best of {_tried(contenders[0])}{each}, chosen on {chosen_on}"
    chosen = {one.chosen_on for one in contenders} - {""}
    one_place = f"; chosen on {chosen.pop()}" if len(chosen) == 1 else ""
    parts = [_tried_by(one, "" if one_place else one.chosen_on) for one in contenders]
    same = len({one.tried for one in contenders}) == 1
    return f"{'' if same else 'unequal: '}{', '.join(parts)}{one_place}"


def _tried(one: Contender) -> str:
    if one.tried is None:
        return f"{one.kind}s whose records are not at hand"
    return f"{one.tried} {one.kind}{'s' * (one.tried != 1)}"


def _tried_by(one: Contender, chosen_on: str) -> str:
    return f"{one.optimizer} {_tried(one)}{f' (chosen on {chosen_on})' if chosen_on else ''}"


def sentence(place: Place, found: Comparison | None, verdict: str, effort_said: str) -> str:
    """Returns the sentence: who leads by how much, what decides or is missing, the effort, and the runs."""
    if found is None:
        return _closed(_uncompared(place, verdict), place.contenders, effort_said)
    leader, second = found.leader, found.others[0]
    begin = "" if verdict == FAVOURED else f"{verdict}{_assumed(found)}; "
    ahead = f"{begin}{_ahead(place, leader, second)}{_tested(found, second)}"
    return _closed("; ".join([ahead, *_rest(place, found)]), [leader, second], effort_said)


def _uncompared(place: Place, verdict: str) -> str:
    shown = place.contenders
    training = sum(one.trains for one in shown)
    at_chance = "" if training else "all of its runs end at chance: " if len(shown) == 1 else "all end at chance: "
    gain = f"; {NO_GAIN}" if training and len(shown) > 1 else ""
    return f"{verdict}; {at_chance}{', '.join(_figures(one, place) for one in shown)}{gain}"


def _ahead(place: Place, leader: Contender, second: Contender) -> str:
    """Returns who is ahead of whom, by how much."""
    where = "above" if leader.sign > 0 else "below"
    amount = f"{place.metric.number(leader.worth - second.worth)} {place.unit} of {place.metric.label}"
    if place.unit == place.metric.label:  # it has no unit
        amount = f"{place.metric.number(leader.worth - second.worth)} of {place.metric.label}"
    return f"{_figures(leader, place)} is {amount} {where} {_figures(second, place)}"


def _tested(found: Comparison, second: Contender) -> str:
    """Returns the interval and the corrected p-value of the difference to the next one, where there are any."""
    for one, decision in zip(found.found, found.decided, strict=True):
        if one.place == second.optimizer and one.interval is not None:
            low, high = one.interval
            p = "" if decision.p is None else f", p {p_value(decision.p)} (Welch{_corrected(found.tests)})"
            return f", {100 * LEVEL:g} % interval {low:+.2f} to {high:+.2f}{p}"
    return ""


def _corrected(tests: int) -> str:
    return f", Holm over {tests} pairs" if tests > 1 else ""


def _assumed(found: Comparison) -> str:
    if not found.needs:
        return ""
    return f" a side (for a power of {100 * POWER:g} % at the pooled spread of {found.spread:.2f})"


def _rest(place: Place, found: Comparison) -> list[str]:
    """Returns what is said besides: of too few runs, of the optimizers in between, and of those that do not train."""
    few = any(one.n < NEEDED for one in found.found)
    parts = [f"a comparison counts from {NEEDED} runs a side on"] if few else []
    if between := [one for one in found.others[1:] if not one.untrained]:
        parts.append("further behind: " + ", ".join(_figures(one, place) for one in between))
    failing = [one for one in place.contenders if one.untrained]
    if failing:
        said = ", ".join(f"{one.optimizer} {one.untrained} of {len(one.values)}" for one in failing)
        gain = f", and {NO_GAIN}" if failing != [found.leader] else ""
        parts.append(f"runs that do not train count as chance ({said}){gain}")
    if any(one.suspect for one in place.contenders):
        parts.append(SUSPECT)
    return parts


def _closed(text: str, shown: Sequence[Contender], effort_said: str) -> str:
    """Returns a sentence with the tuning effort and the runs at its end."""
    flattering = next((said for kind, said in FLATTERS.items() if kind in effort_said), "")
    ids = ("; ".join if len(shown) > 2 else " against ".join)([_ids(one) for one in shown])
    count = sum(len(one.runs) for one in shown)
    return f"{text}; tuning: {effort_said}{flattering}; run{'s' * (count != 1)} {ids}."


def _ids(one: Contender) -> str:
    more = len(one.runs) - NAMED
    return " ".join(run[:8] for run in one.runs[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _figures(one: Contender, place: Place) -> str:
    return f"{one.optimizer} {_spread(one, place)}"


def _spread(one: Contender, place: Place) -> str:
    return mean_and_spread(one.values, number=place.metric.number)
