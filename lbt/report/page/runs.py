"""The runs as columns, for the page's script: what can be sorted, searched, filtered and compared."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from lbt import metrics
from lbt.identity import NOT_IDENTITY
from lbt.records.variation import flatten, order, telling
from lbt.report.kit.wording import setting
from lbt.report.page import command

Column = dict[str, Any]
FIRST = ("optimizer.name", "batch", "lr")  # settings that are shown whatever varies
SHOWN = 5  # further settings that are shown at first, of those that tell runs apart
MADE_BY = ("commit", "torch", "device", "origin", "fingerprint", "started", "threads", "plugins")
# Settings that say how a run is executed; its sweep and its machine have columns of their own.
_HOW = NOT_IDENTITY - {"study", "warmup", "lr_rank", "probes", "probe", "probe_every"}
_TOLD = {"experiment", "device"}
_LACKING = object()  # a setting that a record does not have


def island(runs: pd.DataFrame) -> dict[str, Any]:
    """Returns all runs for the page's script.

    Args:
        runs: of a frame that was loaded with `curves.keep`.

    Returns:
        `ids`; `groups`: a number for each run, equal where runs differ in their seeds alone; `columns`: of each `key`,
        `label`, `part` (`run`, `setting`, `result`, `made by`), `texts` in the order of the values, `codes` (place in
        `texts` for each run, -1 for none), whether it is `shown` at first and, of settings, the `words` of a command;
        `same`: the settings that all runs share; `words`: what a run's command says besides.
    """
    rows = runs.to_dict("series")
    configs: list[dict[str, Any]] = rows["config"].tolist() if len(runs) else []
    settings = list(_settings(configs, rows["settings"].tolist() if len(runs) else []))
    return {
        "ids": rows["id"].tolist() if len(runs) else [],
        "groups": _groups(runs),
        "columns": [*_run(runs), *_arranged(settings, list(_results(runs))), *_made_by(runs)],
        "same": [one for one in settings if "codes" not in one],
        "words": _others(configs),
    }


def column(key: str, part: str, values: Iterable[Any], *, label: str = "", shown: bool = False, **more: Any) -> Column:
    """Returns a column, its values sorted; None is no value."""
    values = list(values)
    known = {repr(value): value for value in values if value is not None and value is not _LACKING}
    ordered = sorted(known.values(), key=order)
    place = {repr(value): position for position, value in enumerate(ordered)}
    return {
        "key": key,
        "label": label or key,
        "part": part,
        "texts": [_text(value) for value in ordered],
        "codes": [place.get(repr(value), -1) for value in values],
        "number": all(isinstance(value, int | float) and not isinstance(value, bool) for value in ordered),
        "shown": shown,
        **more,
    }


def _text(value: Any) -> str:
    """Returns a value as shown; whole numbers in full, and lists as a command has them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return "-" if value is _LACKING else setting(list(value) if isinstance(value, tuple) else value)


def _run(runs: pd.DataFrame) -> Iterator[Column]:
    if runs.empty:
        return
    yield column("id", "run", runs["id"], shown=True)
    folders = [", ".join(sorted(names)) for names in runs["folders"]]
    yield column("experiment", "run", folders, label="sweep", shown=len(set(folders)) > 1)
    yield column("status", "run", runs["status"], shown=True)
    yield column("epochs_done", "run", runs["epochs_done"].tolist(), label="epochs done")


def _settings(configs: Sequence[Mapping[str, Any]], identities: Sequence[Mapping[str, Any]]) -> Iterator[Column]:
    """Yields a column for each setting that varies, and the value of each that does not."""
    known = dict.fromkeys(key for config in configs for key in config)
    first = [key for key in FIRST if key in known]
    others = [key for key in telling(identities, first) if key in known]
    shown = {*first, *others[:SHOWN], "seed"}
    for key in dict.fromkeys([*first, *others, *known]):
        if key in _TOLD:
            continue
        values = [config.get(key, _LACKING) for config in configs]
        if all(value is values[0] for value in values) or len({repr(value) for value in values}) == 1:
            yield {"key": key, "text": _text(values[0]), "word": command.word(key, values[0])}
            continue
        part = "made by" if key.partition(".")[0] in _HOW else "setting"
        made = column(key, part, values, label=_label(key, known), shown=key in shown)
        by_text = {repr(value): value for value in values if value is not None and value is not _LACKING}
        words = [command.word(key, value) for value in sorted(by_text.values(), key=order)]
        nothing = command.word(key, None) if any(value is None for value in values) else ""
        if any(words):
            made |= {"words": words, "nothing": nothing}
        if nothing and any(value is _LACKING for value in values):
            made["lacking"] = [place for place, value in enumerate(values) if value is _LACKING]
        yield made


def _label(key: str, known: Iterable[str]) -> str:
    """Returns what a setting is called: `optimizer` for `optimizer.name`, `alpha` where no other one ends so."""
    if key.endswith(".name"):
        return key.removesuffix(".name")
    last = key.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in known) == 1 else key


def _arranged(settings: Sequence[Column], results: Sequence[Column]) -> list[Column]:
    """Returns the columns in the order of the table: the first settings, the leading results, all others."""
    varying = [one for one in settings if "codes" in one]
    first = [one for one in varying if one["key"] in FIRST]
    leading = [one for one in results if one["shown"]]
    return [*first, *leading, *(one for one in [*varying, *results] if one not in first and one not in leading)]


def _others(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        for said in command.missing(config):
            found.setdefault(said, []).append(place)
    return found


def _results(runs: pd.DataFrame) -> Iterator[Column]:
    """Yields a column for each figure of the runs' last lines."""
    if runs.empty:
        return
    summaries, declared = runs["summary"].tolist(), runs["metrics"].tolist()
    names = dict.fromkeys(name for summary in summaries for name in summary)
    leading = {f"{split}_{metrics.leading(one)}" for one in declared for split in ("test", "val")}
    for name in names:
        metric = next((found for one in declared if (found := metrics.metric_of(name, one))), None)
        if metric is None and name != "wall_seconds":
            continue
        values = [_finite(summary.get(name)) for summary in summaries]
        unit = metric.unit if metric else "s"
        label = f"{name.replace('_', ' ')}{f' ({unit})' if unit else ''}"
        made = column(name, "result", values, label=label, shown=name in leading)
        if metric:
            known = sorted({value for value in values if value is not None})
            made["texts"] = [metric.number(value) for value in known]
        yield made


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _made_by(runs: pd.DataFrame) -> Iterator[Column]:
    """Yields what made the records: of each what differs between runs, and some that a reader looks for."""
    if runs.empty:
        return
    told = [dict(flatten({key: value for key, value in one.items() if key != "plugins"})) for one in runs["provenance"]]
    names = [name for name in dict.fromkeys(name for one in told for name in one) if name not in MADE_BY]
    for name in MADE_BY:
        yield column(name, "made by", runs[name].tolist() if name in runs else [one.get(name) for one in told])
    for name in names:
        yield column(name, "made by", [one.get(name) for one in told], label=name.replace("_", " "))
    yield column("suspect", "made by", ["suspect" if one else None for one in runs["suspect"]])


def _groups(runs: pd.DataFrame) -> list[int]:
    """Returns a number for each run, equal where runs differ in their seeds alone and stand on the same pixels."""
    known: dict[Any, int] = {}
    found = []
    for one, mark in zip(runs["settings"], runs["fingerprint"], strict=True) if len(runs) else ():
        others = frozenset((key, repr(value)) for key, value in one.items() if key != "seed")
        found.append(known.setdefault((others, mark), len(known)))
    return found
