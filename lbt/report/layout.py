"""What a table or figure without a file shows: rows, columns and lines, chosen from what varies among its runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pandas as pd

from lbt import metrics
from lbt.errors import UserError, did_you_mean
from lbt.records.variation import telling

_STANDING = ""  # what figures stand on, as a setting of its own: those of two never share a table
_NO_SETTING = {"id", "path", "folders", "settings", "metrics", "summary", "curve"}


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; empty is left to the layout.

    Attributes:
        rows, columns: settings of a table's rows and columns; of a figure, along its axis and of its lines.
        best: settings of which each place shows the best value.
        metric: name of the figure in a run's summary.
    """

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    best: Sequence[str] = ()
    metric: str | None = None

    def command(self) -> str:
        """Returns the options that ask for this, with a blank before each."""
        lists = ((name, getattr(self, name)) for name in ("rows", "columns", "best"))
        metric = f" --metric {self.metric}" if self.metric else ""
        return "".join(f" --{name} {','.join(values)}" for name, values in lists if values) + metric


AUTOMATIC = Wanted()


@dataclass(frozen=True)
class Layout:
    """Which setting goes where; all by their dotted names.

    Attributes:
        rows, columns, best: as in `Wanted`.
        sections: settings that tell data or lengths apart, each with a part of its own.
        metric: the figure.
        curve: the metric of which there is a value after each epoch.
        varying: all settings that tell the runs apart, seeds aside.
    """

    rows: list[str]
    columns: list[str]
    best: list[str]
    sections: list[str]
    metric: str
    curve: str
    varying: list[str] = field(default_factory=list)


def choose(runs: pd.DataFrame, wanted: Wanted) -> Layout:
    """Returns the layout of some runs.

    Optimizers stand in the columns and batches in the rows; of a learning rate that varies as well the best is shown,
    and what varies besides becomes part of a row. Where batches or optimizers do not vary, others take their place.

    Args:
        runs: of a frame, at least one.
        wanted: what the user asked for; it goes before all of that.

    Raises:
        UserError: a setting or a metric that none of the runs has.
    """
    settings = runs["settings"].tolist()
    rows, columns, best = ([named(runs, word, f"--{name} ") for word in getattr(wanted, name)] for name in _ROLES)
    sections = _sections(runs)
    asked = {_STANDING: _standings(runs), **{key: runs[key].tolist() for key in (*rows, *columns, *best)}}
    known = [{**one, **{key: of[place] for key, of in asked.items()}} for place, one in enumerate(settings)]
    common = [key for key, given in (("optimizer.name", columns), ("batch", rows)) if not given]
    rest = telling(known, [_STANDING, *common, *rows, *columns, *best])
    if not best and "lr" in rest:
        best = ["lr"]
    rest = [key for key in rest if key not in best]
    if not columns:
        columns = ["optimizer.name"]
        if not _varies(settings, "optimizer.name") and rest and _varies(settings, "batch"):
            columns = [rest.pop(0)]
    if not rows:
        if _varies(settings, "batch"):
            rows = ["batch"]
        elif not rest:
            rows, best = (best, []) if best and not wanted.best else (["batch"], best)
    metric, curve = figure(runs, wanted.metric)
    return Layout([*rows, *rest], columns, best, sections, metric, curve, telling(settings))


_ROLES = ("rows", "columns", "best")


def _varies(settings: Sequence[dict[str, Any]], key: str) -> bool:
    return len({repr(one.get(key)) for one in settings}) > 1


def _standings(runs: pd.DataFrame) -> list[tuple]:
    return list(zip(*(runs[name].tolist() for name in ("origin", "fingerprint", "epochs")), strict=True))


def _sections(runs: pd.DataFrame) -> list[str]:
    """Returns the settings that say in which data or length runs differ whose figures never share a table."""
    places, settings = _standings(runs), runs["settings"].tolist()
    known = {key for one in settings for key in one if key == "epochs" or key.startswith("data.")}

    def follows(key: str) -> bool:
        return len({(place, repr(one.get(key))) for place, one in zip(places, settings, strict=True)}) == len(
            set(places)
        )

    alike = list(filter(follows, known))
    return telling([{key: one.get(key) for key in alike} for one in settings])


def named(runs: pd.DataFrame, word: str, option: str) -> str:
    """Returns the full name of a setting: `optimizer` is `optimizer.name`, `eta` is `optimizer.eta`.

    Args:
        runs: of a frame.
        word: the name or a part of it.
        option: what a mistake is told of, with a blank after it.

    Raises:
        UserError: none of the runs has it, or several settings end so.
    """
    known = [key for key in runs if key not in _NO_SETTING and runs[key].notna().any()]
    ends = [key for key in known if key.endswith(f".{word}")]
    for found in (word, f"{word}.name", *(ends if len(ends) == 1 else [])):
        if found in known:
            return found
    near = get_close_matches(word, known, n=1)
    nearest = did_you_mean(word, near or telling(runs["settings"].tolist()))
    raise UserError(f"{option}{word}: none of the runs has such a setting{nearest}")


def figure(runs: pd.DataFrame, wanted: str | None = None) -> tuple[str, str]:
    """Returns the figure to show, the leading one of the runs' task if none is wanted, and the one that curves are of.

    Raises:
        UserError: none of the runs has the one wanted.
    """
    held_out = (runs["data.val"].fillna(0) > 0).tolist() if "data.val" in runs else [False] * len(runs)
    pairs = zip(held_out, (metrics.leading(declared) for declared in runs["metrics"]), strict=True)
    curve = Counter(f"{'val' if held else 'test'}_{leading}" for held, leading in pairs).most_common(1)[0][0]
    if wanted is None:
        return curve, curve
    pairs = zip(runs["summary"], runs["metrics"], strict=True)
    known = {key for summary, declared in pairs for key in summary if metrics.is_metric(key, declared)}
    if wanted not in known:
        raise UserError(f"--metric {wanted}: none of the runs has such a figure{did_you_mean(wanted, known)}")
    return wanted, curve
