"""How figures are put into words: the same words in every table, page and figure."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def mean_and_spread(
    values: Sequence[float], others: Sequence[str] = (), number: Callable[[float], str] = "{:.2f}".format
) -> str:
    """Returns "mean ± standard deviation (n, what became of the other runs)"; a single run has no spread.

    Args:
        values: at least one.
        others: for instance "1 diverged".
        number: how to show a figure.
    """
    spread = f" ± {number(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{number(statistics.fmean(values))}{spread} ({', '.join([f'n={len(values)}', *others])})"


def counted(statuses: Mapping[str, int], chance: float | None = None) -> list[str]:
    """Returns what became of the runs that are not done: "1 diverged", by status.

    Args:
        statuses: status -> number of runs.
        chance: accuracy in % at which diverged runs are part of the mean beside which this stands; None: they are not.
    """
    at = {} if chance is None else {"diverged": f" at {chance:g} %"}
    return [f"{count} {status}{at.get(status, '')}" for status, count in sorted(statuses.items()) if status != "done"]


def stands_on(column: Callable[[str], Iterable], begin: str, more: str = "") -> str:
    """Returns the sentence that says what runs stand on: model, data, precision, machine, versions and plug-ins.

    Args:
        column: gives the runs' values in a column of the frame.
        begin: the sentence's beginning, up to the model.
        more: of this report alone, before the precision.
    """

    def values(name: str) -> str:
        return ", ".join(sorted({str(value) for value in column(name)}))

    plugins = ", ".join(sorted({text for text in column("plugins") if text}))  # of several versions, each hash
    return (
        f"{begin} {values('network')} on {values('origin')} (pixels {values('fingerprint')}); {more}"
        f"{values('precision')}; {values('device')}, torch {values('torch')}; lbt {values('commit')}"
        f"{plugins and '; plug-ins '}{plugins}."
    )


def shown(value: Any, digits: int = 2) -> str:
    """Returns a cell as shown: so many decimals, `-` for nothing, `never` for a step that did not come."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, tuple):
        return f"{shown(value[0], digits)} to {shown(value[1], digits)}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return "never" if math.isinf(value) else f"{value:.{digits}f}"
    return str(value)


def setting(value: Any) -> str:
    """Returns a setting's value as a table shows it: `-` for one that a run does not have."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, bool) or not isinstance(value, int | float) else f"{value:g}"


def p_value(p: float | None) -> str:
    """Returns a p-value with two significant digits."""
    return "-" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def percent(share: float) -> str:
    """Returns a share in %."""
    return f"{100 * share:.0f} %"
