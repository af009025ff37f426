"""What `init_from` means: weights by their content, wherever they lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbt.errors import UserError
from lbt.records import places
from lbt.weights.file import Weights, find, read


def settled(named: str | Mapping[str, Any], results_dir: str | Path) -> dict[str, Any]:
    """Returns the weights that `init_from` names, by their content.

    Args:
        named: a run's id, its beginning or a file's path; or what a record or this function has made of that.
        results_dir: where the results of the run lie.

    Returns:
        `sha256` of the tensors, `run`, the id of the run that kept them (None: it is not known), and `file`, where they
        lie, which no record holds; it is missing where a record's weights are not in `results_dir`.

    Raises:
        UserError: there are no such weights, or they cannot be read.
    """
    if isinstance(named, Mapping):
        return dict(named) if "file" in named else _with_file(dict(named), results_dir)
    try:
        weights = read(find(named, results_dir))
    except UserError as error:
        raise UserError(f"init_from={error}") from error
    return {"sha256": weights.sha256, "run": weights.run, "file": str(weights.path)}


def _with_file(recorded: dict[str, Any], results_dir: str | Path) -> dict[str, Any]:
    path = places.weights_of(results_dir, str(recorded["run"])).absolute()
    if path.exists() and read(path).sha256 == recorded["sha256"]:
        return recorded | {"file": str(path)}
    return recorded


def opened(origin: Mapping[str, Any]) -> Weights:
    """Returns the weights of a settled `init_from`.

    Raises:
        UserError: they are not at hand any more, or others by now.
    """
    said = f"init_from={origin['run'] or origin['sha256'][:16]}"
    if "file" not in origin:
        raise UserError(f"{said}: a run that begins from these weights needs them, and they are not in its results")
    try:
        weights = read(origin["file"])
    except UserError as error:
        raise UserError(f"init_from={error}") from error
    if weights.sha256 != origin["sha256"]:
        raise UserError(f"{said}: {origin['file']} has been written anew meanwhile; the same command goes on with that")
    return weights
