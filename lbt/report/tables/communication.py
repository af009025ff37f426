"""A table of accuracy beside the bytes that a worker sent and the seconds that they are predicted to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt.report.frame import Frame, select
from lbt.report.kit import communication, render
from lbt.report.kit.communication import Sent
from lbt.report.kit.exchange import LATENCY
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.kit.wording import setting


@dataclass(frozen=True)
class Spec:
    """What such a file of `configs/table` says.

    Attributes:
        title, about: its name and what it shows.
        select: setting -> value or values of the runs (`lbt.report.frame.select`).
        metric: the figure of a run's summary.
        sent_by: workers; that of runs whose optimizer averages gradients, too.
        gigabits: bandwidths of a link in Gb/s for the prediction.
    """

    title: str
    about: str
    select: Mapping[str, Any]
    metric: str
    sent_by: int
    gigabits: Sequence[float]


class CommunicationTable:
    """The table.

    Args:
        name: of its YAML file.
        spec: what that file says.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, spec, frame.problems
        self.runs = select(frame.runs, spec["select"])
        self.sent = communication.sent(frame, spec["select"], spec["metric"], spec["sent_by"], spec["gigabits"])

    def page(self) -> Page:
        """Returns the table laid out: a section for each set of runs that may be compared."""
        sections = []
        for standing in list(dict.fromkeys(one.cell.standing for one in self.sent)):
            here = [one for one in self.sent if one.cell.standing == standing]
            predicted = [f"predicted s at {speed:g} Gb/s" for speed in self.spec["gigabits"]]
            header = [
                "batch",
                "optimizer",
                "lr",
                self.spec["metric"].replace("_", " "),
                "MB sent",
                "of fp32",
                *predicted,
            ]
            rows = [self._row(one) for one in here]
            caption = standing.caption([one.cell for one in here])
            notes = [note for one in here for note in one.cell.notes()]
            sections.append(Section("", caption, [("", len(header))], header, rows, notes))
        if not sections:
            sections = [Section("", "No run yet.", [("", 1)], ["optimizer"], [])]
        return Page(self.spec["title"], " ".join(self.spec["about"].split()), sections, self._legend(), [
            f"left out: {problem}" for problem in self.problems
        ])  # fmt: skip

    def _row(self, one: Sent) -> list[Entry]:
        key = one.cell.key
        texts = [setting(key["batch"]), one.optimizer, setting(key["lr"]), one.cell.text()]
        if one.bytes is None:
            texts += ["-"] * (2 + len(self.spec["gigabits"]))
        else:
            texts += [f"{one.bytes / 1e6:,.1f}{'' if one.counted else ' (computed)'}", f"{one.of_all_reduce:.3f}"]
            texts += [f"{one.seconds[speed]:.3g}" for speed in self.spec["gigabits"]]
        return [Entry(text) for text in texts]

    def _legend(self) -> list[str]:
        metric, workers = self.spec["metric"].replace("_", " "), self.spec["sent_by"]
        return [
            f"{metric} after the last epoch: mean ± standard deviation over n seeds. MB sent: by each of {workers} "
            "workers in a run, counted from the buffers; (computed): a ring all-reduce of fp32 gradients in each "
            "update. Of fp32: as a share of that. Predicted, not measured: the alpha-beta model, the bytes through one "
            f"link and two phases of n - 1 messages of {LATENCY * 1e6:.0f} us an update (scales "
            "travel with their signs), nothing overlapped. "
            f"Each figure's runs are named in `{self.name}.csv`. Made by `lbt tables {self.name}`."
        ]

    def csv(self) -> str:
        """Returns the table as CSV, a row for each batch, optimizer and rate."""
        figures = ["n", "mean", "sd", "min", "max", "status", "origin", "fingerprint", "epochs", "runs"]
        speeds = {speed: f"predicted_seconds_{speed:g}gbps" for speed in self.spec["gigabits"]}
        lines = []
        for one in self.sent:
            line = {**one.cell.key, **one.cell.figures(), "bytes_sent": one.bytes, "counted": one.counted}
            line |= {"of_all_reduce": one.of_all_reduce} | {
                speeds[speed]: value for speed, value in one.seconds.items()
            }
            lines.append(line)
        columns = [*communication.KEYS, *figures, "bytes_sent", "counted", "of_all_reduce", *speeds.values()]
        return render.csv(lines, columns)
