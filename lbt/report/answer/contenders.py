"""Who is compared: the workloads and batches there are runs of, and of each optimizer the configuration chosen there.

Where a study has tuned an optimizer, that is the configuration its final runs repeat, chosen from trials by their
validation score. Otherwise it is the one with the best mean: on the validation split where all have one, on the test
set where not, which flatters whoever has tried more.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from lbt.metrics import Metric
from lbt.report import layout
from lbt.report.claims.evidence import Measured, measured
from lbt.report.kit.cells import make_cells, metric_named, values
from lbt.report.reality.study import FINISHED, STANDING

# What makes figures comparable: as a study has it, and what is scored; a protocol is another recipe.
ALIKE = (*STANDING, "network", "data.name", "origin", "protocol.name")
# What tells two workloads apart that have the same name, in the order in which it is said.
TELLING = ("origin", "data.augment", "model.stem", "precision", "fingerprint")
SETTINGS = {*ALIKE, "optimizer.name", "data.val", "data.classes", "study.chosen", "study.variant"}  # looked at alone
PART = re.compile(r", (stratified subset|validation split|one test \w+ in) .*")  # of an origin
CONFIGURATION, FINAL = "configuration", "final"  # columns that are added here
VALIDATION, TEST, SAME = "validation data", "test data", "the validation data they are scored on"


@dataclass(frozen=True)
class Contender:
    """The runs of an optimizer's chosen configuration.

    Attributes:
        optimizer: its name.
        values: a figure a run, that of chance for one that diverged.
        untrained: how many of them diverged or ended at chance.
        runs: their ids.
        tried: configurations it was chosen from, itself included; None where that is not known.
        kind: what they are: "rate", "configuration" or "trial".
        chosen_on: the data that decided; empty where there was nothing to choose.
        sign: -1 of a metric of which lower is better.
        suspect: whether a mended fault had a part in one of the runs.
    """

    optimizer: str
    values: tuple[float, ...]
    untrained: int
    runs: tuple[str, ...]
    tried: int | None
    kind: str
    chosen_on: str
    sign: int = 1
    suspect: bool = False

    @property
    def better(self) -> tuple[float, ...]:
        """Its figures, higher is better."""
        return tuple(self.sign * value for value in self.values)

    @property
    def worth(self) -> float:
        """The mean of these."""
        return sum(self.better) / len(self.values)

    @property
    def trains(self) -> bool:
        """Whether any of its runs does."""
        return self.untrained < len(self.values)


@dataclass(frozen=True)
class Place:
    """A workload and batch, its metric and its contenders, the best first."""

    workload: str
    batch: int
    metric: Metric
    contenders: list[Contender] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What differences are counted in."""
        return "points" if self.metric.unit == "%" else self.metric.unit or self.metric.label


def places(runs: pd.DataFrame, known: pd.DataFrame) -> list[Place]:
    """Returns the places of which a run has ended.

    Args:
        runs: rows of a frame that are looked at.
        known: all rows of the frame; trials of a study are counted among them.
    """
    if runs.empty:
        return []
    tuned = Tuned(known)
    looked_at = [column for column in runs if "." not in column or column in SETTINGS]  # a row has some 80
    runs = runs.loc[[not left for left in tuned.made_for_choice(runs)], looked_at]
    if runs.empty:
        return []
    alike = list(zip(*(values(runs, key) for key in ALIKE), strict=True))
    named = _names(dict.fromkeys(alike))
    rows: dict[tuple[str, int], list[int]] = {}
    for position, (of, batch) in enumerate(zip(alike, runs["batch"].tolist(), strict=True)):
        rows.setdefault((named[of], int(batch)), []).append(position)
    found = [_place(*where, runs.iloc[positions], tuned) for where, positions in sorted(rows.items())]
    return [place for place in found if place.contenders]


def _place(workload: str, batch: int, runs: pd.DataFrame, tuned: "Tuned") -> Place:
    name, _ = layout.figure(runs)
    metric = metric_named(runs, name)
    settings = [{key: value for key, value in one.items() if key != "seed"} for one in runs["settings"]]
    texts = [json.dumps(one, sort_keys=True, default=str) for one in settings]
    marked = runs.assign(**{CONFIGURATION: texts, FINAL: tuned.finals(runs)})
    by_optimizer: dict[str, list[tuple[str | None, Measured, dict]]] = {}
    for cell in make_cells(marked, ["optimizer.name", CONFIGURATION, FINAL], name):
        if (figures := measured(cell)).values:
            one = (cell.key[FINAL], figures, json.loads(cell.key[CONFIGURATION]))
            by_optimizer.setdefault(cell.key["optimizer.name"], []).append(one)
    sign = 1 if metric.higher_is_better else -1
    found = [_contender(optimizer, known, tuned, name, sign) for optimizer, known in by_optimizer.items()]
    return Place(workload, batch, metric, sorted(found, key=lambda one: (-one.worth, one.optimizer)))


def _contender(
    optimizer: str, known: Sequence[tuple[str | None, Measured, dict]], tuned: "Tuned", name: str, sign: int
) -> Contender:
    finals = [one for one in known if one[0] is not None]
    pool = finals or known
    validated = not finals and name.startswith("test_") and all(one[1].validation is not None for one in pool)

    def worth(one: tuple[str | None, Measured, dict]) -> float:
        figures = one[1]
        return sign * (figures.validation if validated else sum(figures.values) / len(figures.values))

    trial, figures, _ = max(pool, key=worth)
    if finals:
        tried, kind, chosen_on = tuned.trials(trial), "trial", VALIDATION
    else:
        tried, kind = len(pool), _kind([one[2] for one in pool])
        chosen_on = "" if tried == 1 else VALIDATION if validated else TEST if name.startswith("test_") else SAME
    ids, suspect = tuple(run["id"] for run in figures.runs), any(run["suspect"] for run in figures.runs)
    return Contender(optimizer, figures.values, figures.untrained, ids, tried, kind, chosen_on, sign, suspect)


def _kind(settings: Sequence[dict]) -> str:
    differ = {key for one in settings[1:] for key in {*one, *settings[0]} if one.get(key) != settings[0].get(key)}
    return "rate" if differ == {"lr"} else "configuration"


class Tuned:
    """The trials of studies, and the final runs of those that were chosen.

    Args:
        runs: all rows of a frame.
    """

    def __init__(self, runs: pd.DataFrame):
        columns = ("id", "folders", "optimizer.name", "batch", "status", "study.trial", "study.chosen")
        rows = list(zip(*(values(runs, key) for key in columns), strict=True))
        self._of = {run: (frozenset(folders), optimizer, batch) for run, folders, optimizer, batch, *_ in rows}
        self._ended = [
            self._of[run] for run, _, _, _, status, trial, _ in rows if trial is not None and status in FINISHED
        ]
        chosen = {row[-1] for row in rows if row[-1] is not None}
        self._folders = frozenset().union(*(self._of[one][0] for one in chosen if one in self._of))

    def made_for_choice(self, runs: pd.DataFrame) -> Iterator[bool]:
        """Yields of each row whether it is a trial of a study that has final runs: these are the evidence."""
        for trial, folders in zip(values(runs, "study.trial"), runs["folders"], strict=True):
            yield trial is not None and bool(folders & self._folders)

    def finals(self, runs: pd.DataFrame) -> list[str | None]:
        """Returns of each row the trial it is a final run of; None of an ablation, and of other runs."""
        pairs = zip(values(runs, "study.chosen"), values(runs, "study.variant"), strict=True)
        return [chosen if not variant else None for chosen, variant in pairs]

    def trials(self, chosen: str | None) -> int | None:
        """Returns from how many finished trials one was chosen, None where their records are not at hand."""
        if chosen not in self._of:
            return None
        folders, *place = self._of[chosen]
        return sum(bool(folders & others) and where == place for others, *where in self._ended) or None


def _names(found: Iterable[tuple]) -> dict[tuple, str]:
    """Returns what each workload is called: task, data, network, length and what part of the data it is.

    Besides as little as tells it from the others; the protocol of all, if they differ.

    Two that differ in nothing that can be said are numbered.
    """
    known = {one: dict(zip(ALIKE, one, strict=True)) for one in found}
    names = {one: _name(says) for one, says in known.items()}
    if len({says["protocol.name"] for says in known.values()}) > 1:
        names = {one: f"{name}, protocol {known[one]['protocol.name']}" for one, name in names.items()}
    for key in TELLING:
        for name, alike in _grouped(names).items():
            texts = _apart([_source(known[one]) if key == "origin" else str(known[one][key]) for one in alike])
            names |= {one: ", ".join(filter(None, (name, text))) for one, text in zip(alike, texts, strict=True)}
    for name, alike in _grouped(names).items():
        if len(alike) > 1:
            names |= {one: f"{name} ({number})" for number, one in enumerate(alike, 1)}
    return names


def _grouped(names: Mapping[tuple, str]) -> dict[str, list[tuple]]:
    groups: dict[str, list[tuple]] = {}
    for one, name in names.items():
        groups.setdefault(name, []).append(one)
    return groups


def _apart(texts: Sequence[str]) -> list[str]:
    """Returns what of each text the others do not begin with; nothing where they are one."""
    if len(set(texts)) == 1:
        return [""] * len(texts)
    parts = [text.split(", ") for text in texts]
    shared = 0
    while all(len(one) > shared for one in parts) and len({one[shared] for one in parts}) == 1:
        shared += 1
    return [", ".join(one[shared:]) for one in parts]


def _name(known: dict) -> str:
    epochs = int(known["epochs"])
    length = f"{epochs} epoch{'s' * (epochs != 1)}"
    part = str(known["origin"]).removeprefix(_source(known))
    return f"{known['task.name']} on {known['data.name']}, {known['network']}, {length}{part}"


def _source(known: dict) -> str:
    """Returns where the data are from, without what part of them is trained on or scored."""
    return PART.sub("", str(known["origin"]))
