"""`lbt verify`: are the records what they were, and does a recorded run come out the same here?"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lbt import build, plugins, records, runtime, weights
from lbt.config import Config, WandbConfig, length_of
from lbt.data.download import no_downloads
from lbt.errors import UserError
from lbt.files import read_regular
from lbt.identity import from_json
from lbt.records import manifest
from lbt.records.consistency import contradiction
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt

# How far figures may lie apart, relative to their size, and still be rounding of the same computation.
ROUNDING = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}
POINTS = 0.05  # accuracies in %: five images in 10,000 whose scores are as good as equal
ONE_COUNT = 1e-9  # below it they are the same count of images, which earlier versions divided before they multiplied


def check_all(results_dir: str | Path) -> int:
    """Compares every record with its checksum, itself and the manifest, prints what is wrong; returns the exit code.

    Raises:
        UserError: no such folder, or a manifest that is none.
    """
    if not Path(results_dir).is_dir():
        raise UserError(f"{results_dir}: no such folder")
    hashes, found, wrong = manifest.read(results_dir), records.paths(results_dir), 0
    for path in found:
        try:
            content = read_regular(path)
            problem = manifest.difference(path, content, hashes) or contradiction(records.parse(path, content))
        except Exception as error:  # what a file may hold is not known
            problem = str(error).removeprefix(f"{path}: ") or repr(error)
        if problem:
            wrong += 1
            print(f"{path}: {problem}")
    names = {manifest.name_of(path) for path in found}
    for name in sorted(hashes.keys() - names):
        print(f"{manifest.path_of(results_dir).parent / name}: vouched for, and missing")
    missing = len(hashes.keys() - names)
    vouched = len(hashes.keys() & names)
    print(f"{len(found)} records: {wrong} wrong, {missing} missing, {vouched} vouched for by {manifest.NAME}")
    return 1 if wrong or missing else 0


def repeat_one(results_dir: str | Path, *, epochs: int = 1, root: str | None = None) -> int:
    """Repeats the run that costs least, of those whose data are to be had here; returns the exit code of `repeat`."""
    costs: dict[str, tuple[float, Path]] = {}  # the cheapest of each data set
    for path in records.paths(results_dir):
        with suppress(Exception):  # named by `check_all`
            record = records.read(path)
            data, cost = record.run["provenance"]["data_fingerprint"], record.epochs[0]["wall_train_seconds"]
            costs[data] = min(costs.get(data, (math.inf, path)), (cost, path))
    for _, path in sorted(costs.values()):
        try:
            with no_downloads():
                return repeat(str(path), results_dir, epochs=epochs, root=root)
        except UserError as error:
            print(f"not repeated: {error}")
    return 0


def write_manifest(results_dir: str | Path) -> int:
    """Writes the manifest of a folder's records; returns the exit code.

    Raises:
        UserError: there are none.
    """
    if not records.paths(results_dir):
        raise UserError(f"{results_dir}: no records")
    before = manifest.read(results_dir)
    after = manifest.write(results_dir)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            print(f"{name}: had another hash before")
    for name in sorted(before.keys() - after.keys()):
        print(f"{name}: vouched for no more: missing, damaged or not final")
    print(f"{manifest.path_of(results_dir)}: {len(after)} records")
    return 0


def repeat(run: str, results_dir: str | Path, *, epochs: int = 1, root: str | None = None) -> int:
    """Repeats a recorded run's first epochs here, compares and prints the outcome; nothing is recorded.

    Args:
        run: its id, the beginning of one, or its record's path.
        results_dir: where the record lies.
        epochs: how many.
        root: the folder with its data, as `data.root` names it.

    Returns:
        The exit code: 0 for figures that are equal bit for bit or within rounding, 1 for others.

    Raises:
        UserError: no such run, or this machine lacks its data.
    """
    record = _record(run, results_dir)
    wanted = record.epochs[:epochs]
    if not wanted:
        raise UserError(f"{record.path}: has no whole epoch to compare with")
    made_by = record.run["provenance"]
    with tempfile.TemporaryDirectory() as folder:
        config = _config(record, results_dir, folder, root)
        _check_names(record, config)
        if (here := build.images(config).fingerprint) != made_by.get("data_fingerprint"):
            recorded = f"{made_by.get('data')}, pixels {made_by.get('data_fingerprint')}"
            raise UserError(f"{record.path}: was made from other data ({recorded}; here: pixels {here})")
        made = _first_epochs(config, len(wanted), made_by.get("threads"))
    verdict, unequal = compare(wanted, made, record.run["config"]["precision"])
    for key, (one, other) in unequal.items():
        print(f"  {key}: recorded {one}, here {other}")
    for text in plugins.changed(made_by.get("plugins", []), config):
        print(f"  since then {text}")
    length = f"{len(wanted)} of {length_of(record.run['config'])} epochs"
    print(f"{record.run['id']}: {verdict} after {length}; {_where(made_by)}")
    for step, threads in record.end["summary"].get("threads", [])[1:] if record.end else []:
        if step < wanted[-1]["step"]:
            print(f"  recorded with {threads} CPU thread(s) from update {step + 1} on: rounded otherwise from there")
    return 1 if verdict == "different" else 0


def _record(run: str, results_dir: str | Path) -> records.RunRecord:
    """Returns the record of a run; of several copies, the one with the most epochs."""
    if run.endswith(".jsonl"):
        named = [Path(run)]
    else:
        named = [path for path in records.paths(results_dir) if path.stem.startswith(run)]
    if len({path.stem for path in named}) != 1:
        raise UserError(f"{run}: {'several records' if named else 'no record'} of that name in {results_dir}")
    try:
        found = [records.read(path) for path in named]
    except (records.RecordError, OSError) as error:
        raise UserError(str(error)) from error
    return max(found, key=lambda record: len(record.epochs))


def _config(record: records.RunRecord, results_dir: str | Path, folder: str, root: str | None) -> Config:
    try:
        config = from_json(record.run["config"])
    except (UserError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{record.path}: settings that this version does not know ({error})") from error
    device = config.device if config.device != "cuda" or torch.cuda.is_available() else "cpu"
    if config.init_from is not None:
        config = replace(config, init_from=weights.settled(config.init_from, results_dir))
    return replace(
        config,
        data=replace(config.data, root=root),
        device=device,
        cuda_graph=config.cuda_graph and device == "cuda",
        results_dir=folder,
        experiment="adhoc",
        study=None,
        time_budget=None,
        mirror=[],
        wandb=WandbConfig(),
    )


def _check_names(record: records.RunRecord, config: Config) -> None:
    """Checks what the settings name; some of it may be a plug-in's that was listed in a folder, or was installed."""
    try:
        build.validate(config)
    except UserError as error:
        if not (brought := record.run["provenance"].get("plugins")):
            raise
        names = ", ".join(plugin["name"] for plugin in brought)
        raise UserError(
            f"{record.path}: {error} (made with plug-ins: {names}; --config-dir finds those of a folder)"
        ) from error


class _Epochs(Reporter, Interrupt):
    """Has a run stop once so many epochs are recorded: with the first update of the next one."""

    def __init__(self, epochs: int):
        super().__init__()
        self.left = epochs

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Counts."""
        self.left -= 1

    def requested(self) -> bool:
        """Says whether to stop."""
        return self.left <= 0 or super().requested()


def _first_epochs(config: Config, epochs: int, threads: Any) -> list[dict[str, Any]]:
    """Returns the lines of a run's first epochs, made here with as many threads as were used then."""
    from lbt.run import run

    stop = _Epochs(epochs)
    if config.device == "cpu":  # as many as then, or as torch would use: none are timed
        cores = runtime.cores()
        known = isinstance(threads, int) and 1 <= threads <= cores
        config = replace(config, threads=threads if known else min(torch.get_num_threads(), cores))
    outcome = run(config, interrupt=stop, reporter=stop)
    made = records.read(outcome.path).epochs[:epochs]
    if len(made) < epochs:
        raise UserError(f"the repetition ended early: {outcome.status} {outcome.summary.get('error', '')}".rstrip())
    return made


def compare(
    recorded: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]], precision: str
) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """Compares the figures of epochs, times aside.

    Returns:
        `bit-equal`, `within rounding` or `different`, and the figures that are not equal, under `epoch N <name>`.
    """
    unequal, different = {}, False
    for epoch, (one, other) in enumerate(zip(recorded, made, strict=True), 1):
        first, second = dict(_figures(one)), dict(_figures(other))
        for key in first.keys() | second.keys():
            pair = first.get(key), second.get(key)
            if pair[0] != pair[1] and not _is_one_count(key, *pair):
                unequal[f"epoch {epoch} {key}"] = pair
                different |= not _near(key, *pair, ROUNDING.get(precision, ROUNDING["fp32"]))
    verdict = "bit-equal" if not unequal else "different" if different else "within rounding"
    return verdict, dict(sorted(unequal.items()))


def _figures(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in line.items():
        if not key.startswith("wall_"):
            yield key, value if isinstance(value, int | float | None) else json.dumps(value, sort_keys=True)


def _near(key: str, one: Any, other: Any, rounding: float) -> bool:
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        # What a probe saw of the weights, of which the losses tell the same.
        return all(isinstance(value, str) and value.startswith("{") for value in (one, other))
    if key.endswith("_perplexity") and min(one, other) > 0:  # the exponential of a loss
        one, other = math.log(one), math.log(other)
    return math.isclose(one, other, rel_tol=rounding, abs_tol=POINTS if key.endswith("_accuracy") else 0.0)


def _is_one_count(key: str, one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and key.endswith("_accuracy") and abs(one - other) < ONE_COUNT


def _where(made_by: Mapping[str, Any]) -> str:
    def told(found: Mapping[str, Any]) -> str:
        return f"torch {found.get('torch')} on {found.get('device_name')}"

    here = runtime.provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return f"recorded with {told(made_by)}, here {told(here)}"
