"""Which optimizer the evidence favours for each workload and batch, by how much and at what tuning effort, or what is
missing before that is decided.

Of every optimizer the configuration counts that was chosen for it (`contenders`). The one with the best mean leads; it
is favoured where its mean is decided to be better than that of every other one that trains in all of its runs, by the
rule of the claims (`lbt.report.claims.rules`): Welch's test of two means, corrected by Holm's method for all pairs of
them, from three runs a side on. A diverged run counts as chance, and being above runs that do not train is no gain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt.report.answer import wording
from lbt.report.answer.contenders import Contender, Place, places
from lbt.report.claims.rules import NEEDED, Decision, Difference, decide
from lbt.report.frame import Frame, select
from lbt.report.kit.statistics import pooled_spread, seeds_for


@dataclass(frozen=True)
class Answer:
    """What the evidence says at one workload and batch.

    Attributes:
        workload: task, data set, network, length, and what else tells it from the others.
        batch: images of an update.
        favoured: the optimizer, None where none is.
        margin: of the best mean over the next one, in `unit`; None where there are not two.
        unit: of the margin: "points" of a percentage, or the metric's own.
        effort: how many configurations were tried of each optimizer, and on what data one was chosen.
        verdict: "favoured", or why none is: "not decided: needs about 4 more seeds".
        needs: further seeds a side, about; None where that is not known or none would help.
        sentence: all of it, with figures and ids of runs.
        runs: ids of the runs it stands on.
    """

    workload: str
    batch: int
    favoured: str | None
    margin: float | None
    unit: str
    effort: str
    verdict: str
    needs: int | None
    sentence: str
    runs: list[str]


def answers(frame: Frame, wanted: Mapping[str, Any] | None = None) -> list[Answer]:
    """Returns an answer for each workload and batch that has a finished run, in the order of their names.

    Args:
        frame: the records.
        wanted: settings of the runs that are looked at, as of `lbt.report.frame.select`; None: all of them.
    """
    chosen = select(frame.runs, wanted or {})
    return [_answer(place) for place in places(chosen, frame.runs)]


@dataclass(frozen=True)
class Comparison:
    """The leading one of a place's contenders against those that train in all of their runs.

    Attributes:
        leader: that with the best mean.
        others: the rest of those that train at all, the best first.
        found: the difference to each one that is compared, higher is better.
        decided: the side on which each lies.
        spread: standard deviation within contenders, pooled; None where no contender has two runs.
        tests: pairs of contenders that train.
    """

    leader: Contender
    others: Sequence[Contender]
    found: Sequence[Difference]
    decided: Sequence[Decision]
    spread: float | None
    tests: int

    @property
    def clear(self) -> bool:
        """Whether the leader is decided to be better than each of them."""
        return bool(self.found) and all(one.side == 1 for one in self.decided)

    @property
    def needs(self) -> int | None:
        """Further seeds a side until it would be, about; None where that is not known, or too many."""
        if self.spread is None or not self.found:
            return None
        ranked = sorted(self.found, key=lambda one: -one.mean)  # Holm: the largest difference has the strictest test
        needed = [(one, seeds_for(one.mean, self.spread, self.tests - rank)) for rank, one in enumerate(ranked)]
        if any(count is None for _, count in needed):
            return None
        open_ = [one for one, decision in zip(self.found, self.decided, strict=True) if decision.side != 1]
        return max([max(count, NEEDED) - one.n for one, count in needed if one in open_], default=0) or 1


def compare(contenders: Sequence[Contender]) -> Comparison | None:
    """Returns how the leading one compares with the others, None where no two train."""
    training = sorted((one for one in contenders if one.trains), key=lambda one: -one.worth)
    if len(training) < 2:
        return None
    leader, *others = training
    found = [
        Difference(other.optimizer, leader.better, other.better)
        for other in others
        if not other.untrained  # else being above it is no gain
    ]
    tests = math.comb(len(training), 2)
    decided = decide(found, 0.0, NEEDED, tests)
    return Comparison(leader, others, found, decided, pooled_spread([one.values for one in training]), tests)


def _answer(place: Place) -> Answer:
    found = compare(place.contenders)
    effort = wording.effort(place.contenders)
    favoured = found.leader.optimizer if found and found.clear else None
    needs = None if found is None or found.clear else found.needs
    verdict = wording.FAVOURED if favoured else wording.undecided(place, found, needs)
    return Answer(
        workload=place.workload,
        batch=place.batch,
        favoured=favoured,
        margin=found.leader.worth - found.others[0].worth if found else None,
        unit=place.unit,
        effort=effort,
        verdict=verdict,
        needs=needs,
        sentence=wording.sentence(place, found, verdict, effort),
        runs=sorted(run for one in place.contenders for run in one.runs),
    )
