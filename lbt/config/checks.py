"""What must hold of a configuration, as far as it can be told without data, model or device."""

import math
import re
from collections.abc import Mapping, Sequence

from lbt.config.binding import leaves
from lbt.config.derived import seconds, table_lr
from lbt.config.schema import Config, DataConfig, ProbeConfig
from lbt.errors import UserError

LARGEST_SEED = 2**32 - 1  # of NumPy's generators, which draw subsets and held-out images
LARGEST_TORCH_SEED = 2**53 - 1  # the last one that a float tells from its neighbours, as which an id has it
LONGEST = 10_000_000  # epochs; each has its place in memory
LONGEST_NAME = 100  # bytes, of the 255 that file systems take: tables and half-written files are named after it, too


def check(config: Config, tables: Sequence[Mapping]) -> None:
    """Checks a configuration's numbers one by one.

    Args:
        config: of a run.
        tables: the protocol's learning rates, batch -> rates; an optimizer may have one of its own.

    Raises:
        UserError: one is out of range, or has no effect; one line that names it.
    """
    _check_training(config, tables)
    _check_data(config.data)
    _require(config.probe_every >= 1, f"probe_every={config.probe_every}: expected a whole number of epochs, 1 or more")
    _check_probe(config.probe)
    for key, seed in leaves(config.task, "task"):
        if key.endswith(".seed") and isinstance(seed, int):
            _require(0 <= seed <= LARGEST_TORCH_SEED, f"{key}={seed}: expected 0 or more, below 2^53")


def check_folder(key: str, name: str) -> None:
    """Checks the name of the folder in which records lie.

    Args:
        key: the setting that gives it.
        name: of the folder.

    Raises:
        UserError: it is no such name; one line that says what is.
    """
    _require(
        re.fullmatch(r"\w[\w.-]*", name) is not None,
        f"{key}={name}: expected a folder's name: letters, digits, '_', '.' and '-', the last two not first",
    )
    _require(len(name.encode()) <= LONGEST_NAME, f"{key}={name}: is longer than {LONGEST_NAME} bytes")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _check_data(data: DataConfig) -> None:
    _require(0 <= data.val < 1, f"data.val={data.val:g}: expected a share of at least 0 and less than 1")
    _require(data.subset >= 0, f"data.subset={data.subset}: expected a number of images, 0 for all")
    _require(
        data.test_every is None or data.test_every > 1,
        f"data.test_every={data.test_every}: expected a whole number of images, 2 or more, or null",
    )
    for key in ("val_seed", "subset_seed"):
        seed = getattr(data, key)
        _require(0 <= seed <= LARGEST_SEED, f"data.{key}={seed}: expected 0 or more, below 2^32")


def _check_probe(probe: ProbeConfig) -> None:
    for key in ("images", "noise_images", "micro_batch", "eigenvalues", "first_epochs", "updates"):
        value = getattr(probe, key)
        _require(value is None or value >= 1, f"probe.{key}={value}: expected a whole number, 1 or more")
    _require(0 <= probe.seed <= LARGEST_SEED, f"probe.seed={probe.seed}: expected 0 or more, below 2^32")
    _require(0 <= probe.tolerance < 1, f"probe.tolerance={probe.tolerance:g}: expected at least 0 and less than 1")
    _require(probe.rho > 0, f"probe.rho={probe.rho:g}: expected a positive number")


def _check_training(config: Config, tables: Sequence[Mapping]) -> None:
    _require(config.batch >= 1, f"batch={config.batch}: expected a whole number, 1 or more")
    _require(1 <= config.epochs <= LONGEST, f"epochs={config.epochs}: expected 1 or more, at most {LONGEST:,}")
    _require(0 <= config.seed <= LARGEST_TORCH_SEED, f"seed={config.seed}: expected 0 or more, below 2^53")
    _require(math.isfinite(config.lr) and config.lr > 0, f"lr={config.lr}: expected a positive number")
    _require(
        0 <= config.warmup <= config.epochs,
        f"warmup={config.warmup:g}: expected 0 to {config.epochs} epochs, the length of the training",
    )
    if config.micro_batch is not None:
        _require(
            1 <= config.micro_batch <= config.batch,
            f"micro_batch={config.micro_batch}: expected 1 to {config.batch}, the batch",
        )
    _check_branch(config)
    _require(
        config.workers is None or config.workers >= 1, f"workers={config.workers}: expected a whole number, 1 or more"
    )
    check_folder("experiment", config.experiment)
    _require(
        config.grad_clip is None or config.grad_clip > 0,
        f"grad_clip={config.grad_clip}: expected a positive number, or null",
    )
    _require(
        config.bias_lr_factor is None or 0 <= config.bias_lr_factor < math.inf,
        f"bias_lr_factor={config.bias_lr_factor}: expected a number of 0 or more, or null",
    )
    _require(
        config.layer_norms is None or config.layer_norms >= 1,
        f"layer_norms={config.layer_norms}: expected a whole number of updates, 1 or more, or null",
    )
    _require(config.ema is None or 0 < config.ema < 1, f"ema={config.ema}: expected a number between 0 and 1, or null")
    if config.devices != "auto":
        _require(config.devices >= 1, f"devices={config.devices}: expected 1 or more, or auto")
    seconds(config.time_budget)
    _require(config.threads == "auto" or config.threads >= 1, f"threads={config.threads}: expected 1 or more, or auto")
    _require(config.sweep.parallel >= 1, f"sweep.parallel={config.sweep.parallel}: expected 1 or more")
    if config.lr_rank is not None:
        rates = [table_lr(table, config.batch, config.lr_rank) for table in tables]
        has_effect = any(math.isclose(config.lr, rate) for rate in rates)
        _require(has_effect, f"lr_rank={config.lr_rank}: has no effect, lr is set to {config.lr:g}")


def _check_branch(config: Config) -> None:
    if (branch := config.branch) is None:
        return
    for key in ("at", "factor", "epochs"):
        value = getattr(branch, key)
        _require(value >= 1, f"branch.{key}={value}: expected a whole number, 1 or more")
    _require(
        config.length <= config.epochs,
        f"branch.at={branch.at}, branch.epochs={branch.epochs}: a training of {config.epochs} epochs ends before",
    )
    grown = config.schedule.get("batch")
    _require(not grown, f"schedule.batch={grown}: a training whose batch grows by itself has no branches")
