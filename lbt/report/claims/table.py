"""The table of claims: what each says, what the figures say, and whether it holds."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lbt.report.claims import evidence, layout, rules
from lbt.report.claims.evidence import Sample
from lbt.report.claims.rules import Difference, Finding
from lbt.report.frame import Frame, select
from lbt.report.kit.published import Published
from lbt.report.kit.render import Page

LARS, TVLARS = {"optimizer": "lars"}, {"optimizer": "tvlars"}
SHARE = 0.95  # of the lower final accuracy: an optimizer has converged where it first reaches it
Place = tuple[str, str, int]


def beats_lars(samples: Sequence[Sample], places: Sequence[Place], needed: int) -> Finding:
    """TVLARS minus LARS at every batch of every task and data set, each at its best of the batch's rates."""
    found = list(evidence.pairs(samples, TVLARS, LARS))
    return _idle(rules.at_every_place(_differences(found), _absent(places, found), needed), found)


def up_to(samples: Sequence[Sample], places: Sequence[Place], needed: int, *, task: str, amount: float) -> Finding:
    """The largest of TVLARS minus LARS in one task, each at its best rate, where every run of the two trains."""
    places = [place for place in places if place[0] == task]
    found = [pair for pair in evidence.pairs(samples, TVLARS, LARS) if pair[0].place in places]
    trained = [pair for pair in found if not any(sample.untrained for sample in pair)]
    finding = rules.up_to(_differences(trained), _absent(places, found), needed, amount)
    return _told(finding, len(found) - len(trained), "a run does not train")


def fewer_epochs(samples: Sequence[Sample], places: Sequence[Place], needed: int) -> Finding:
    """LARS's minus TVLARS's epochs to 95 % of the lower of their two final accuracies, where both train.

    Both train where no run diverged or ended at chance and the lower final mean is at least half the higher.
    """
    found, differences = list(evidence.pairs(samples, TVLARS, LARS)), []
    for tvlars, lars in found:
        low, high = sorted([tvlars.mean, lars.mean])
        if tvlars.curves and lars.curves and not tvlars.untrained + lars.untrained and low >= high / 2:
            took = [[_epochs_to(curve, SHARE * low) for curve in sample.curves] for sample in (lars, tvlars)]
            differences.append(Difference(_name(tvlars), *took))
    finding = rules.at_most_places(_sorted(differences), _absent(places, found), needed, "epochs")
    return _told(finding, len(found) - len(differences), "one of the two does not train")


def rate_helps(samples: Sequence[Sample], places: Sequence[Place], needed: int) -> Finding:
    """TVLARS at the batch's highest rate minus TVLARS at its lowest."""
    rates: dict[tuple, dict[float, Sample]] = {}
    for sample in samples:
        if sample.optimizer == "tvlars":
            rates.setdefault((sample.where, sample.batch), {})[sample.lr] = sample
    found = [(known[max(known)], known[min(known)]) for known in rates.values() if len(known) > 1]
    return _idle(rules.at_most_places(_differences(found), _absent(places, found), needed), found)


def initialisation(samples: Sequence[Sample], places: Sequence[Place], needed: int) -> Finding:
    """Each two initialisations of one batch and data set, TVLARS, classification, at the best rate; within ±1 point."""
    names = sorted({sample.init for sample in samples if sample.init})
    found = []
    for first, second in itertools.combinations(names, 2):
        found += list(evidence.pairs(samples, {**TVLARS, "init": first}, {**TVLARS, "init": second}))
    found = [(one, two) for one, two in found if one.trains or two.trains]
    differences = [
        Difference(f"{_name(one)}, {one.init} against {two.init}", one.values, two.values) for one, two in found
    ]
    sets = {place[1] for place in places if place[0] == "classification"}
    absent = sorted(sets - {one.where[1] for one, _ in found})
    return rules.hardly_matters(_sorted(differences), absent, needed)


def lambda_shifts(samples: Sequence[Sample], places: Sequence[Place], needed: int) -> Finding:
    """TVLARS's best lambda at 1,024 against that at 16,384, at the rate of each batch that most lambdas were run at."""
    known: dict[Any, dict[int, dict[float, dict[float, Sample]]]] = {}
    for sample in samples:
        if sample.optimizer == "tvlars" and sample.lam is not None and sample.trains:
            rates = known.setdefault(sample.where, {}).setdefault(sample.batch, {})
            rates.setdefault(sample.lr, {})[sample.lam] = sample
    candidates = [
        [max(batches.get(batch, {0.0: {}}).values(), key=len) for batch in (1024, 16384)] for batches in known.values()
    ]
    small, large = max(candidates, key=lambda two: min(map(len, two)), default=({}, {}))
    runs = [{lam: sample.values for lam, sample in one.items()} for one in (small, large)]
    return rules.shifts(*runs, needed)


RULES: dict[str, Callable[..., Finding]] = {
    "beats_lars": beats_lars,
    "up_to": up_to,
    "fewer_epochs": fewer_epochs,
    "rate_helps": rate_helps,
    "initialisation": initialisation,
    "lambda_shifts": lambda_shifts,
}
# Whose claims speak of a batch's three rates, and of which optimizers.
AT_PRINTED_RATES = {
    "beats_lars": ("tvlars", "lars"), "up_to": ("tvlars", "lars"), "fewer_epochs": ("tvlars", "lars"),
    "rate_helps": ("tvlars",),
}  # fmt: skip


def _name(sample: Sample) -> str:
    return f"{sample.where[0]} {sample.where[1]} {sample.batch}"


def _sorted(differences: Sequence[Difference]) -> list[Difference]:
    return sorted(differences, key=lambda one: (one.mean, one.place))


def _differences(found: Sequence[tuple[Sample, Sample]]) -> list[Difference]:
    return _sorted([Difference(_name(one), one.values, two.values, _allowed(two)) for one, two in found])


def _allowed(base: Sample) -> tuple[int, ...]:
    """Returns what may be decided against these runs: no gain where one does not train, nothing where none does."""
    if not base.untrained:
        return rules.BOTH
    return rules.LOSS if base.trains else rules.NEITHER


def _idle(finding: Finding, found: Sequence[tuple[Sample, Sample]]) -> Finding:
    count = sum(base.untrained > 0 for _, base in found)
    said = f"{finding.figures}; no gain counts at {count} places, where the other side has a run that does not train"
    return dataclasses.replace(finding, figures=said) if count else finding


def _absent(places: Sequence[Place], found: Sequence[tuple[Sample, Sample]]) -> list[str]:
    present = {first.place for first, _ in found}
    return [" ".join(map(str, place)) for place in places if place not in present]


def _epochs_to(curve: np.ndarray, target: float) -> int:
    """Returns the first epoch at `target`, counted from 1; the last one where none is."""
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else len(curve)


def _told(finding: Finding, left_out: int, why: str) -> Finding:
    if not left_out:
        return finding
    return dataclasses.replace(finding, figures=f"{finding.figures}; {left_out} places left out: {why}")


@dataclasses.dataclass(frozen=True)
class Claims:
    """What a file of `configs/table` says that has claims: `sources` are label -> selection of runs, null for print."""

    title: str
    about: str
    select: Mapping[str, Any]
    metric: str
    sources: Mapping[str, Any]
    published: Mapping[str, Any]
    claims: Sequence[Mapping[str, Any]]


class ClaimsTable:
    """The table of claims.

    Args:
        name: of its YAML file.
        spec: what that file says: `sources` (label -> selection of runs; null: the published figures) and `claims`.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, spec, frame.problems
        self.published = Published(spec["published"])
        self.runs = select(frame.runs, spec["select"])
        names = ("task.name", "data.name", "batch")
        places = list(dict.fromkeys(tuple(known[key] for key in names) for known in self.published))
        self.mixed: list[str] = []
        self._known: dict[str, list[Sample]] = {}
        self.rows: list[tuple[str, dict[str, Any], Finding]] = []
        for label, chosen in spec["sources"].items():
            for claim in spec["claims"]:
                finding, runs = self._judge(claim, chosen, places)
                self.rows.append((label, {**claim, "runs": " ".join(runs)}, finding))

    def _judge(
        self, claim: dict[str, Any], chosen: dict[str, Any] | None, places: Sequence[Place]
    ) -> tuple[Finding, list[str]]:
        """Returns what is found, and the ids of the runs that were looked at."""
        rule, options = RULES[claim["rule"]], claim.get("options", {})
        if chosen is None:
            if not claim.get("in_print", False):
                return Finding("not at hand as figures", "-", "-", rules.OPEN, "the publication's own figures"), []
            return rule(evidence.of_print(self.published), places, 1, **options), []
        samples, lacking = self._samples({**chosen, **claim.get("select", {})}), []
        if (optimizers := AT_PRINTED_RATES.get(claim["rule"])) is not None:
            samples = [sample for sample in samples if sample.optimizer in optimizers]
            samples, lacking = evidence.at_printed_rates(samples, self.published)
        finding = rule(samples, places, rules.NEEDED, **options)
        if lacking:
            finding = dataclasses.replace(
                finding, figures=f"{finding.figures}; left out, rates not run: {'; '.join(lacking)}"
            )
        return finding, sorted({run for sample in samples for run in sample.runs})

    def _samples(self, chosen: dict[str, Any]) -> list[Sample]:
        key = repr(chosen)  # several claims are judged by the same runs
        if key not in self._known:
            self._known[key], mixed = evidence.of_runs(select(self.runs, chosen), self.spec["metric"])
            self.mixed += [note for note in mixed if note not in self.mixed]
        return self._known[key]

    def page(self) -> Page:
        """Returns the table laid out: a section for each source of figures, a row for each claim."""
        sections = [
            (label, self._caption(label), [(claim, one) for source, claim, one in self.rows if source == label])
            for label in self.spec["sources"]
        ]
        notes = [*self.mixed, *[f"left out: {problem}" for problem in self.problems]]
        return layout.page(self.spec, sections, self._legend(), notes)

    def _caption(self, label: str) -> str:
        chosen = self.spec["sources"][label]
        if chosen is None:
            how = "compared as they stand: nothing can be tested, and the best of three rates is chosen on test data"
            return f"{self.published.source}; one run a cell, {how}."
        runs = select(self.runs, chosen)
        if runs.empty:
            return "No run yet."
        stands = zip(*(runs[name] for name in ("origin", "samples", "fingerprint", "epochs", "precision")), strict=True)
        lines = {
            f"{origin} ({samples} {mark}), {epochs} epochs, {form}" for origin, samples, mark, epochs, form in stands
        }
        return f"Runs on {'; '.join(sorted(lines))}."

    def _legend(self) -> list[str]:
        return [
            f"{layout.COUNTED} A diverged run counts as chance "
            "(100/classes %), and being above runs that do not train (none more than three binomial standard errors "
            "above chance) is no gain. Best rates: of several learning rates the best is chosen on the validation "
            "split where the runs have one, otherwise (of Table 1's three rates) on the test set, which flatters both "
            "sides. Shown are the figure and interval that decide: the smallest difference where the rule says "
            "every (of the places that keep it open, if it is), the middle one where it says as a rule, the largest "
            "otherwise. "
            f"Made by `lbt tables {self.name}`.",
            "",
        ]

    def csv(self) -> str:
        """Returns the table as CSV, a row a source and claim."""
        return layout.csv(self.rows)
