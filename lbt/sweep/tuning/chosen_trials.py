"""The file in which a study writes down the trials it chose: `<results>/reality/<study>.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lbt.errors import UserError, flat
from lbt.records import replace_file


@dataclass(frozen=True)
class Choice:
    """The trial chosen for one optimizer at one batch size.

    Attributes:
        optimizer: its name.
        batch: images per update.
        trial: number of the trial, from 0.
        id: of the trial's run.
        score: what decided, in the rule's metric.
        trials: finished trials it was chosen from.
        infeasible: how many of them gave no score or ended at chance.
        edges: settings whose chosen value lies on the edge of its range.
        settings: what the space set.
    """

    optimizer: str
    batch: int
    trial: int
    id: str
    score: float
    trials: int
    infeasible: int
    edges: list[str]
    settings: dict[str, Any]


def path_of(results_dir: str | Path, study: str) -> Path:
    """Returns where a study's choices are."""
    return Path(results_dir) / "reality" / f"{study}.yaml"


def write(path: Path, rule: Mapping[str, Any], experiment: str, choices: Sequence[Choice]) -> None:
    """Writes the choices, with the rule that made them and the experiment whose records they come from."""
    content = {"rule": dict(rule), "experiment": experiment, "chosen": [asdict(choice) for choice in choices]}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, OmegaConf.to_yaml(OmegaConf.create(content)).encode())


def read(path: str | Path) -> list[Choice]:
    """Returns the choices of a file.

    Raises:
        UserError: there is no such file, or it is not one that `write` wrote.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no trial has been chosen yet; lbt reality choose writes this file")
    try:
        return [Choice(**entry) for entry in OmegaConf.to_container(OmegaConf.load(path))["chosen"]]
    except Exception as error:
        raise UserError(f"{path}: not a file of chosen trials: {flat(error)}") from error
