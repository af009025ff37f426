"""The table of claims about why large batches fail, judged by what probes measured in runs of named variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt.config.binding import bind, pick
from lbt.report.claims import layout
from lbt.report.claims.explanations import RULES, Arms
from lbt.report.claims.rules import Finding
from lbt.report.frame import Frame, select
from lbt.report.kit.render import Page
from lbt.report.looks import looked_at


@dataclass(frozen=True)
class Explanations:
    """What a file of `configs/table` says that has variants.

    Attributes:
        title, about: its name and what it shows.
        select: setting -> value or values of the runs.
        metric: name of the accuracy in a run's summary.
        variants: name -> selection of runs.
        sources: label -> `select` and `batches` of the runs that are judged by themselves.
        claims: each with `claim`, `says` (rule and threshold), `why` (who says it, how it is measured), `rule` and
            `options`.
        shown: files of `tables` and `figures` that the page points to.
    """

    title: str
    about: str
    select: Mapping[str, Any]
    metric: str
    variants: Mapping[str, Any]
    sources: Mapping[str, Any]
    claims: Sequence[Mapping[str, Any]]
    shown: Sequence[str] = ()


class ExplanationsTable:
    """The table.

    Args:
        name: of its YAML file.
        spec: what that file says, see `Explanations`.
        frame: the records.

    Attributes:
        arms: of each source.
        rows: source, claim (with the ids of its runs) and finding.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, spec, frame.problems
        self.runs = select(frame.runs, spec["select"])
        self.arms: dict[str, Arms] = {}
        self.rows: list[tuple[str, dict[str, Any], Finding]] = []
        for label, source in spec["sources"].items():
            runs = select(self.runs, source["select"])
            arms = self.arms[label] = Arms(runs, spec["variants"], source["batches"], spec["metric"])
            for claim in spec["claims"]:
                if not self.experiments(claim, label):
                    continue
                arms.used.clear()
                rule = pick("rule", claim["rule"], RULES)
                finding = rule(arms, **bind(rule, claim["options"], f"{name}.{claim['rule']}"))
                self.rows.append((label, {**claim, "runs": " ".join(sorted(arms.used))}, finding))

    def variants(self, claim: Mapping[str, Any]) -> list[str]:
        """Returns the names of the variants a claim is about."""
        options = claim["options"]
        return [*options.get("variants", []), *(options[key] for key in ("first", "second") if key in options)]

    def experiments(self, claim: Mapping[str, Any], label: str) -> list[str]:
        """Returns the experiments of a source that a claim is about."""
        there = self.spec["sources"][label]["select"]["experiment"]
        wanted = [_listed(self.spec["variants"][name]["experiment"]) for name in self.variants(claim)]
        return [one for one in there if any(one in names for names in wanted)]

    def page(self) -> Page:
        """Returns the table laid out: a section for each source, a row for each claim."""
        sections = [
            (label, self.caption(label), [(claim, one) for source, claim, one in self.rows if source == label])
            for label in self.spec["sources"]
        ]
        notes = [note for arms in self.arms.values() for note in arms.notes]
        notes += [f"left out: {problem}" for problem in self.problems]
        return layout.page(self.spec, sections, [self.legend(), ""], notes)

    def coverage(self) -> tuple[int, int]:
        """Returns how many claims have runs that they are judged by, and how many there are, of all sources."""
        return sum(bool(claim["runs"]) for _, claim, _ in self.rows), len(self.rows)

    def caption(self, label: str) -> str:
        """Returns what a source's figures stand on."""
        runs = select(self.runs, self.spec["sources"][label]["select"])
        if runs.empty:
            return "No run yet."
        machines: dict[str, set[str]] = {}
        for run in runs.to_dict("records"):
            pixels = f"{run['origin']} ({run['samples']} {run['fingerprint']})"
            stand = f"{run['network']} on {pixels}, {run['epochs']} epochs, {run['precision']}"
            machines.setdefault(stand, set()).add(str(run["device"]))
        lines = [f"{stand}, {', '.join(sorted(known))}" for stand, known in sorted(machines.items())]
        probe = self.arms[label].probe
        seen = f" Probes: {looked_at(probe)}." if probe else ""
        return f"{len(runs)} runs of {'; '.join(lines)}.{seen}"

    def legend(self) -> str:
        """Returns how the verdicts are reached."""
        return (
            f"{layout.COUNTED} Early: the looks after the first update and within the first fifth of the training, "
            "which is the warm-up's. Decades are powers of ten: +0.30 is twice as much. Shown are the figure and "
            "interval that decide: the smallest difference where the rule says every (of the places that keep it "
            "open, if it is), the middle one where it says as a rule, the largest otherwise. A diverged run counts as "
            f"chance in an accuracy, and has no sharpness at the end. Made by `lbt tables {self.name}`."
        )

    def csv(self) -> str:
        """Returns the table as CSV, a row a source and claim."""
        return layout.csv(self.rows)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
