"""The table of steps to a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbt.report.critical.steps import Asked, Curves, Reached, chosen, curves
from lbt.report.frame import Frame, select
from lbt.report.kit import render
from lbt.report.kit.render import Entry, Page, Section
from lbt.report.kit.wording import setting

COLUMNS = ("batch", "n", "reached", "steps", "status", "s_min", "b_crit", "b_crit_low", "b_crit_high")
STANDING = ("origin", "fingerprint", "epochs", "runs")


@dataclass(frozen=True)
class Spec:
    """What a file of `configs/table` says of steps to a target (`lbt.report.critical.steps.Asked`).

    Attributes:
        title, about: its name and what it shows.
        select, target, metric, series, best_of: of `Asked`.
        labels: value -> what the table calls it.
    """

    title: str
    about: str
    select: Mapping[str, Any]
    target: float
    metric: str = "test_accuracy"
    series: str = "optimizer.name"
    best_of: Sequence[str] = ("peak_lr",)
    labels: Mapping[Any, Any] = field(default_factory=dict)


class StepsTable:
    """One table.

    Args:
        name: of its YAML file.
        spec: what that file says.
        frame: the records.
    """

    def __init__(self, name: str, spec: dict[str, Any], frame: Frame):
        self.name, self.spec, self.problems = name, Spec(**spec), frame.problems
        self.runs = select(frame.runs, self.spec.select)
        keys = ("select", "target", "metric", "series", "best_of")
        self.curves = curves(Asked(**{key: getattr(self.spec, key) for key in keys}), frame)

    def page(self) -> Page:
        """Returns the table laid out: a section for each set of runs that may be compared."""
        sections = [self._section(one) for one in self.curves]
        figure, target = self.spec.metric.replace("_", " "), f"{self.spec.target:g}"
        unit = f" {self.curves[0].found[0].metric.unit}".rstrip() if self.curves else ""
        legend = [
            f"Updates until the {figure} was first found at {target}{unit}, looked for at the end of each epoch, so to "
            "within an epoch's updates: mean ± standard deviation over n seeds; `-` not run. "
            "B_crit and S_min are of steps = S_min (1 + B_crit / batch) (McCandlish et al. 2018), least squares in the "
            "logarithm over the batches at which all runs reached the target; the interval is that of the fit alone. "
            f"Each figure's runs are named in `{self.name}.csv`. Made by `lbt tables {self.name}`."
        ]
        about, left_out = " ".join(self.spec.about.split()), [f"left out: {problem}" for problem in self.problems]
        return Page(self.spec.title, about, sections or [_empty()], legend, left_out)

    def coverage(self) -> tuple[int, int]:
        """Returns how many places have a run, and how many there are: each optimizer at each batch of any."""
        places = sum(len(of.series) * len({one.batch for one in of.found}) for of in self.curves)
        return sum(len(of.found) for of in self.curves), places

    def _section(self, of: Curves) -> Section:
        place = {(one.series, one.batch): one for one in of.found}
        header = ["batch", *map(self._label, of.series)]
        rows = [
            [Entry(f"{batch:,}"), *[self._entry(place.get((name, batch))) for name in of.series]]
            for batch in sorted({one.batch for one in of.found})
        ]
        rows.append([Entry("fit"), *[Entry(self._fit(of, name)) for name in of.series]])
        caption = of.standing.caption([one.cell for one in of.found])
        caption += f" Each figure is that of the {chosen(self.spec.best_of, self.spec.metric)}."
        return Section("", caption, [("", len(header))], header, rows)

    def _entry(self, one: Reached | None) -> Entry:
        if one is None:
            return Entry("-")
        values = {key: " / ".join(map(setting, known)) for key, known in one.where().items()}
        at = f" at {', '.join(f'{key} {known}' for key, known in values.items())}" if values else ""
        return Entry(one.text() + at)

    def _fit(self, of: Curves, name: Any) -> str:
        if name in of.fits:
            return of.fits[name].text()
        reached = sum(one.series == name and one.mean is not None for one in of.found)
        return f"none: {reached} batch{'es' * (reached != 1)} reached it"

    def _label(self, value: Any) -> str:
        return str(self.spec.labels.get(value, value))

    def csv(self) -> str:
        """Returns the table as CSV: a row for each optimizer and batch with a run."""
        lines = []
        for of in self.curves:
            for one in of.found:
                known, fitted = of.fits.get(one.series), {}
                if known is not None:
                    figures = (known.s_min, known.b_crit, *known.interval)
                    fitted = dict(zip(COLUMNS[-4:], map("{:.4g}".format, figures), strict=True))
                cell = one.cell.figures()
                reached = [step for step in one.steps if step is not None]
                own = {"n": len(one.steps), "reached": len(reached)}
                own["steps"] = None if one.mean is None else f"{one.mean:g}"
                lines.append({self.spec.series: one.series, "batch": one.batch, **one.at, **cell, **own, **fitted})
        return render.csv(lines, [self.spec.series, "batch", *self.spec.best_of, *COLUMNS[1:], *STANDING])


def _empty() -> Section:
    return Section("", "No run yet.", [("", 1)], ["batch"], [])
