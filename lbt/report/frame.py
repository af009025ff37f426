"""Records as one table: a row per run, a column per setting."""

import contextlib
import gc
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from lbt import metrics, records
from lbt.config import network_of
from lbt.errors import UserError
from lbt.files import read_regular
from lbt.identity import identity_of
from lbt.records import manifest, seeds
from lbt.records.consistency import contradiction
from lbt.records.named import refuse_missing
from lbt.records.variation import by_name, flatten

ROUNDING = 1e-5  # of a figure; one image in 10,000 is ten times as much
SMALL = 16  # pixels: an image of which a ResNet makes maps smaller than a stride
SUSPECT = "suspect: made before a fault in bf16 gradients of small images on a CPU was mended"
_OF_ORIGIN = {"optimizer": "optimizer.name", "batch": "batch"}  # what a run's row says of the one it begins from
_PROBE_SEED = "task.probe.seed"
_CHANGES = {True: "+changes", False: "", None: " (changes unknown)"}  # of the source tree since its commit


@dataclass
class Frame:
    """What the records hold.

    Attributes:
        runs: a row per run: the settings under their dotted names (`optimizer.name`, `batch`), and `id`, `path`,
            `network` (the model as it is shown),
            `experiment`, `folders` (the experiments of all its copies), `status`, `epochs_done`, `fingerprint`,
            `samples` (what that is of: pixels or tokens),
            `origin`, `commit`, `torch`, `plugins` (names and hashes, one text), `device`, `steps_per_epoch`, `classes`,
            `train_images`, `test_images` (of the data; None where the record does not say), `warmed_up` (whether the
            schedule has a warm-up), `suspect` (whether wrong bf16 gradients made it), `provenance` (what made the
            record, as it says),
            `init_from.optimizer` and `init_from.batch` (of the run that it begins from, where its record is there),
            `settings` (the identity that its id is made of, by dotted names), `metrics` (what its task declares),
            `summary` and `curve` (the task's leading metric on the test set, or on what was held out in its place,
            after each epoch; for images the accuracy in %; NaN where there is none), and what `load` was to keep.
        problems: a line for each record that is left out, and why.
    """

    runs: pd.DataFrame
    problems: list[str]


Keep = Callable[[records.RunRecord], dict[str, Any]]  # columns of one's own, made of a record's epochs


def load(results_dir: str | Path, keep: Keep | None = None) -> Frame:
    """Returns all records below `results_dir`.

    Left out and named are damaged records, those that contradict themselves (`lbt.records.consistency`) or are not what
    the manifest vouches for, and finished ones of one id with figures that differ by more than rounding.
    """
    with uncollected():
        return _load(results_dir, keep)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leaves the garbage collector off: rows do not refer to themselves, and it would walk through all of them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load_or_refuse(results_dir: str | Path) -> Frame:
    """Returns the records, having named on stderr those that are left out.

    Raises:
        UserError: there is no such folder.
    """
    refuse_missing(results_dir)
    frame = load(results_dir)
    for problem in frame.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return frame


def _load(results_dir: str | Path, keep: Keep | None) -> Frame:
    rows: dict[str, dict[str, Any]] = {}
    problems, contradicted = [], set()
    try:
        hashes = manifest.read(results_dir)
    except UserError as error:
        hashes = {}
        problems.append(str(error))
    missing = dict(hashes)
    for path in records.paths(results_dir):
        missing.pop(manifest.name_of(path), None)
        try:
            row = _checked_row(path, hashes, keep)
        except Exception as error:  # what a record may hold is not known, and one must not stop the others
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error!r}")
            continue
        known = rows.setdefault(row["id"], row)
        row["folders"] = known["folders"] = known["folders"] | row["folders"]
        if known["status"] not in records.FINAL:
            rows[row["id"]] = row  # left behind where the run was broken off, and finished elsewhere
        elif known is not row and row["status"] in records.FINAL and not _agree(known, row):
            vouched = [one for one in (known, row) if manifest.name_of(Path(one["path"])) in hashes]
            if len(vouched) == 1:
                other = row if vouched[0] is known else known
                rows[row["id"]] = vouched[0]
                problems.append(
                    f"{other['path']}: not what the manifest vouches for, {vouched[0]['path']} of the same id"
                )
                continue
            contradicted.add(row["id"])
            problems.append(f"{path}: differs from {known['path']}, which has the same id; both are left out")
    if missing:
        some = ", ".join(sorted(missing)[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        problems.append(f"missing, though runs/{manifest.NAME} vouches for them: {some}")
    kept = [row for run_id, row in sorted(rows.items()) if run_id not in contradicted]
    for row in kept:
        if (origin := rows.get(row.get("init_from.run"))) is not None:
            row |= {f"init_from.{name}": origin[key] for name, key in _OF_ORIGIN.items()}
    return Frame(pd.DataFrame(kept), problems)


def _checked_row(path: Path, hashes: Mapping[str, str], keep: Keep | None) -> dict[str, Any]:
    content = read_regular(path)
    record = records.parse(path, content)
    if problem := manifest.difference(path, content, hashes) or contradiction(record):
        raise records.RecordError(f"{path}: {problem}")
    return _row(record) | (keep(record) if keep else {})


def _row(record: records.RunRecord) -> dict[str, Any]:
    config, made_by = record.run["config"], record.run["provenance"]
    flat, settings = _flat(config)
    declared = metrics.of_record(record.run)
    curve = f"{'val' if config['data'].get('val') else 'test'}_{metrics.leading(declared)}"
    return {
        **flat,
        "network": network_of(config["model"]),
        "id": record.run["id"],
        "path": str(record.path),
        "experiment": record.path.parent.name,
        "folders": frozenset({record.path.parent.name}),
        "status": record.status,
        "epochs_done": len(record.epochs),
        "fingerprint": made_by["data_fingerprint"],
        "samples": "tokens" if "token_size" in made_by else "pixels",
        "origin": made_by["data"],
        "commit": _of_all_parts(made_by, _commit),
        "torch": _of_all_parts(made_by, itemgetter("torch")),
        "plugins": ", ".join(f"{one['name']} {one['sha256'][:10]}" for one in made_by.get("plugins", [])),
        "device": _of_all_parts(made_by, itemgetter("device_name")),
        "steps_per_epoch": made_by.get("steps_per_epoch"),
        "classes": made_by.get("classes"),
        "train_images": made_by.get("train_images"),
        "test_images": made_by.get("test_images"),
        "warmed_up": bool(config["schedule"].get("warmup")),
        "suspect": _is_suspect(config, made_by),
        "provenance": made_by,
        "settings": settings,
        "metrics": declared,
        "summary": record.end["summary"] if record.end else {},
        "curve": np.array([line.get(curve) for line in record.epochs], dtype=float),
    }


def _of_all_parts(made_by: Mapping[str, Any], of: Callable[[Mapping[str, Any]], str]) -> str:
    """Returns what made a run: of one that another program or machine went on with, of each part."""
    return " then ".join(dict.fromkeys(map(of, [made_by, *made_by.get("resumed", [])])))


def _commit(made_by: Mapping[str, Any]) -> str:
    return (made_by.get("commit") or made_by["lbt"])[:10] + _CHANGES[made_by.get("dirty")]


def _is_suspect(config: Mapping[str, Any], made_by: Mapping[str, Any]) -> bool:
    """Says whether a run was made by bf16 gradients that were uninitialised memory (`lbt.train.precision`).

    Of small images in bf16 on a CPU, before the layers concerned computed in float32 and were named in the record.
    """
    data = config["data"]
    size = 8 if data["name"] == "digits" else data.get("options", {}).get("resolution", SMALL + 1)
    in_bf16 = config["precision"] == "bf16" and made_by.get("device") == "cpu"
    return in_bf16 and "float32_layers" not in made_by and size <= SMALL


def _flat(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a configuration's settings under dotted names: all of them, and those that decide a run's numbers.

    A probe's seed that is the run's own (Barlow Twins) is not among the latter: it tells two seeds apart, and no
    configurations.
    """
    if (others := seeds.others(config)) is None:
        return _flattened(config)
    flat, settings = _flattened_once(others)
    seed, of_probe = config["seed"], flat.get(_PROBE_SEED)
    settings = {key: value for key, value in settings.items() if key not in ("seed", _PROBE_SEED)}
    if seed:
        settings["seed"] = float(seed)
    if of_probe not in (None, seed):
        settings[_PROBE_SEED] = float(of_probe)
    return {**flat, "seed": seed}, settings


@lru_cache(maxsize=4096)
def _flattened_once(settings: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    return _flattened(orjson.loads(settings))


def _flattened(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return by_name(config), dict(flatten(identity_of(config)))


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Says whether two records of one run tell the same: a repetition elsewhere may differ by rounding."""
    first, second = _figures(one), _figures(other)
    return (
        one["status"] == other["status"]
        and first.keys() == second.keys()
        and all(_close(first[key], second[key]) for key in first)
        and one["curve"].shape == other["curve"].shape
        and np.allclose(one["curve"], other["curve"], rtol=ROUNDING, atol=0.0, equal_nan=True)
    )


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    known = {"epochs", "steps"}
    return {
        key: value for key, value in row["summary"].items() if key in known or metrics.is_metric(key, row["metrics"])
    }


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=ROUNDING)


def select(runs: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the runs whose settings have the wanted values.

    Args:
        runs: of a `Frame`.
        wanted: setting -> value; a list means any of them, null that the setting is absent or off by null, and a text
            may hold shell patterns (`fig*`). A run is of every experiment in whose folder a copy of it lies.
    """
    chosen = np.ones(len(runs), dtype=bool)
    for key, values in wanted.items():
        values = values if isinstance(values, list) else [values]
        if key == "experiment" and key in runs:
            fits = [any(fnmatch(name, one) for name in names for one in values) for names in runs["folders"]]
            chosen &= np.array(fits, dtype=bool)
        elif key in runs:
            chosen &= _any_of(runs[key], values)
        elif None not in values:
            return runs.iloc[:0]
    return runs[chosen]


def _any_of(known: pd.Series, values: list[Any]) -> np.ndarray:
    patterns = [value for value in values if isinstance(value, str) and "*" in value]
    values = [*values, *[text for text in known.unique() if any(fnmatch(str(text), one) for one in patterns)]]
    found = known.isin([value for value in values if value is not None])
    return (found | known.isna() if None in values else found).to_numpy()
