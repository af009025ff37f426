"""Hydra sweepers of a tuning study: quasi-random trials of a space, and the runs of the trials that were chosen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lbt import records
from lbt.config import Config
from lbt.errors import UserError, did_you_mean
from lbt.identity import from_json, identity
from lbt.sweep.sweepers import CellSweeper, Compose, GridSweeperConf
from lbt.sweep.tuning import FEWEST_SEEDS, chosen_trials, space

# In these a final run differs from the trial it was chosen by: nothing is held out, and its seed is fresh.
_OF_A_FINAL_RUN = ("seed", "data.val", "data.val_seed")


@dataclass
class QuasiRandomConf(GridSweeperConf):
    """Settings of `QuasiRandomSweeper`.

    `space` names one of `configs/space`, in which `*` is the optimizer's name; null: the optimizer's own.
    """

    _target_: str = "hydra_plugins.lbt.QuasiRandomSweeper"
    n_trials: int = 32
    space: str | None = None
    space_seed: int = 0


class QuasiRandomSweeper(CellSweeper):
    """Draws the same number of trials for each cell of a grid from its optimizer's space."""

    def __init__(
        self, max_batch_size: int | None, params: dict | None, n_trials: int, space: str | None, space_seed: int
    ):
        super().__init__(max_batch_size, params)
        self.n_trials, self.space, self.space_seed = n_trials, space, space_seed

    def expand(self, overrides: list[str], config: Config, compose: Compose) -> list[list[str]]:
        """Returns a cell's trials; each carries its number."""
        found = space.of(config.optimizer["name"], self.space)
        for word in overrides:
            key = word.split("=")[0].lstrip("+")
            if key in found.keys:
                raise UserError(f"{key}: is set by the space {found.name}; take it off the command or out of the space")
        drawn = space.points(len(found.axes), self.n_trials, self.space_seed)
        return [
            [
                *overrides,
                *(space.override(key, value) for key, value in found.trial(point, config.epochs).items()),
                f"study={{trial:{number}}}",
            ]
            for number, point in enumerate(drawn)
        ]


@dataclass
class ChosenConf(GridSweeperConf):
    """Settings of `ChosenSweeper`.

    `file` holds the chosen trials, `ablate` names the optimizer whose ablations are run, `ablations` maps the name of
    an ablation to the settings it changes.
    """

    _target_: str = "hydra_plugins.lbt.ChosenSweeper"
    file: str = "results/reality/reality_check.yaml"
    n_seeds: int = FEWEST_SEEDS
    first_seed: int = 1
    ablate: str | None = None
    ablations: dict[str, Any] = field(default_factory=dict)


class ChosenSweeper(CellSweeper):
    """Runs each cell's chosen trial anew with fresh seeds, and one optimizer's ablations of it after that."""

    def __init__(self, max_batch_size: int | None, params: dict | None, **settings: Any):
        super().__init__(max_batch_size, params)
        self.settings = ChosenConf(max_batch_size, params, **settings)

    def expand(self, overrides: list[str], config: Config, compose: Compose) -> list[list[str]]:
        """Returns the final runs of a cell."""
        settings = self.settings
        if settings.n_seeds < FEWEST_SEEDS:
            raise UserError(f"n_seeds={settings.n_seeds}: an interval needs at least {FEWEST_SEEDS} seeds")
        name, batch, file = config.optimizer["name"], config.batch, os.path.expanduser(settings.file)
        known = {(choice.optimizer, choice.batch): choice for choice in chosen_trials.read(file)}
        tuned = {optimizer for optimizer, _ in known}
        if settings.ablate is not None and settings.ablate not in tuned:
            raise UserError(
                f"ablate={settings.ablate}: no trial of it was chosen{did_you_mean(settings.ablate, tuned)}"
            )
        if (name, batch) not in known:
            raise UserError(f"{settings.file}: no trial of {name} at batch {batch} was chosen")
        choice = known[name, batch]
        for word in overrides:
            key = word.split("=")[0].lstrip("+")
            if key in choice.settings:
                raise UserError(f"{key}: is set by the chosen trial, whose runs these are; take it off the command")
            if key == "seed":
                raise UserError("seed: hydra.sweeper.first_seed and hydra.sweeper.n_seeds say which seeds there are")
        words = [*overrides, *(space.override(key, value) for key, value in choice.settings.items())]
        trial = _trial(choice, config.results_dir)
        final = compose(words)
        _same_protocol(trial, final)
        seeds = range(settings.first_seed, settings.first_seed + settings.n_seeds)
        if trial.seed in seeds:
            raise UserError(
                f"first_seed={settings.first_seed}: the trials were tuned with seed {trial.seed}; choose another"
            )
        runs = [[*words, f"seed={seed}", f"study={{chosen:'{choice.id}'}}"] for seed in seeds]
        for seed in seeds:
            for label, changes in settings.ablations.items() if name == settings.ablate else ():
                changed = [*words, *(space.override(key, value) for key, value in changes.items())]
                if _differences(final, compose(changed)):  # some are what was chosen anyway
                    runs.append([*changed, f"seed={seed}", f"study={{chosen:'{choice.id}',variant:'{label}'}}"])
        return runs


def _trial(choice: chosen_trials.Choice, results_dir: str) -> Config:
    path = records.find(results_dir, choice.id)
    if path is None:
        raise UserError(f"{results_dir}: the record of the chosen trial {choice.id} is not there")
    try:
        return from_json(records.read(path).run["config"])
    except records.RecordError as error:
        raise UserError(f"the record of the chosen trial is damaged: {error}") from error


def _same_protocol(trial: Config, final: Config) -> None:
    from lbt import runtime  # loads torch, which a mistake above need not wait for

    differing = _differences(trial, runtime.settle(final), _OF_A_FINAL_RUN)
    if differing:
        key, (tuned, now) = next(iter(differing.items()))
        raise UserError(f"{key}: {now} in the final runs, {tuned} in the chosen trial of {trial.optimizer['name']}")


def _differences(one: Config, other: Config, apart_from: tuple[str, ...] = ()) -> Mapping[str, tuple]:
    """Returns the settings that decide a run's numbers and in which two configurations differ."""
    settings = [_settings(identity(config)) for config in (one, other)]
    keys = sorted({key for part in settings for key in part} - set(apart_from))
    pairs = {key: (settings[0].get(key, "off"), settings[1].get(key, "off")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _settings(found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under their full keys, lists whole."""
    settings: dict[str, Any] = {}
    for key, value in found.items():
        settings |= _settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return settings


SWEEPERS = {"quasi_random": (QuasiRandomConf, QuasiRandomSweeper), "chosen": (ChosenConf, ChosenSweeper)}
