"""The typed configuration of one run: schema, defaults that depend on other settings, validation."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lbt.config.binding import bind
from lbt.errors import UserError

LAYER_NORMS = 10  # updates between two measurements of probes=[layer_norms]
BASE_BATCH = 256  # Goyal et al. 2017, arXiv 1706.02677: the batch at which a base learning rate is stated

_PACKAGE = Path(__file__).parents[1]
# An installed wheel carries the configuration inside the package, a source tree beside it.
CONFIG_DIR = _PACKAGE / "configs" if (_PACKAGE / "configs" / "train.yaml").exists() else _PACKAGE.parent / "configs"


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are fed."""

    name: str  # a reader of lbt.data
    root: str | None = None  # folder that holds the data sets; null: $LBT_DATA, else ~/.cache/lbt
    augment: str = "none"  # training augmentation, one of lbt.data's
    last_batch: Literal["keep", "drop"] = "keep"  # what becomes of an epoch's last, smaller batch
    val: float = 0.0  # share of the training set held out, stratified; evaluated instead of the test set
    val_seed: int = 0  # decides which images are held out
    subset: int = 0  # training images kept, a stratified draw made before `val` is held out; 0: all
    subset_seed: int = 0  # decides which images are kept
    test_every: int | None = None  # score one image in this many of the test (or held-out) set; null: all
    stratified: bool = False  # every batch holds the classes in the training set's proportions
    options: dict = field(default_factory=dict)  # the reader's own settings


@dataclass(frozen=True)
class WandbConfig:
    """Mirror of the records in Weights & Biases; keys come from the environment only."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "lbt"
    entity: str | None = None


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep is executed."""

    parallel: int = 1  # runs at once on this machine, each in a process of its own


@dataclass(frozen=True)
class Config:
    """One run, resolved: every value is the one used. Rates are per step, warm-up and delays in epochs until bound."""

    optimizer: dict  # name and constructor arguments; `<x>_epochs` becomes `<x>_steps` when built
    schedule: dict  # name and builder arguments
    data: DataConfig
    model: dict  # name and builder arguments
    task: dict  # name and constructor arguments
    protocol: dict  # name and switches; the switches act through the other groups, only the name is kept
    batch: int  # images per update
    lr: float  # base learning rate, before lr_scaling
    epochs: int
    warmup: float  # epochs; reaches the run through the schedule
    micro_batch: int | None = None  # images per forward and backward pass; null: the whole batch
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # factor on lr: 1, batch/256 or sqrt(batch/256)
    lr_rank: int | None = None  # which rate of the protocol's table: 0, 1 or 2; null: the middle one
    bias_lr_factor: float | None = None  # rate of tensors of ndim <= 1 as a multiple of the others'; null: the same
    grad_clip: float | None = None  # upper bound of the gradient's global 2-norm
    ema: float | None = None  # decay, a step, of the moving average of the weights that is evaluated; null: none
    layer_norms: int | None = None  # updates between two measurements of the probe layer_norms; null: it is off
    probes: list[str] = field(default_factory=list)  # what is measured besides, names of lbt.train.probes
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor computes in it
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False  # refuse nondeterministic kernels
    cuda_graph: bool = False  # replay updates as one CUDA graph; equals the plain loop but for rounding
    compile: bool | Literal["auto"] = False  # the model's training pass as compiled code; auto: where that pays
    results_dir: str = "results"
    experiment: str = "adhoc"  # folder of the record
    study: dict | None = None  # what a sweep says of this run: its trial's number, or what it was chosen from
    time_budget: str | int | float | None = None  # a sweep starts no run later than this: 90, 90s, 9m, 1h
    wandb: WandbConfig = field(default_factory=lambda: WandbConfig())
    sweep: SweepConfig = field(default_factory=lambda: SweepConfig())

    @property
    def peak_lr(self) -> float:
        """Learning rate the schedule's factor multiplies: `lr` scaled for the batch."""
        return self.lr * scaling_factor(self.lr_scaling, self.batch)


def scaling_factor(rule: str, batch: int) -> float:
    """Returns the factor on the base rate: linear (Goyal et al. 2017), square root (Krizhevsky 2014) or none."""
    ratio = batch / BASE_BATCH
    return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule]


def table_lr(table: Mapping[int, list[float]], batch: int, rank: int | None) -> float:
    """Returns the protocol's learning rate for `batch`.

    Args:
        table: batch -> rates, ascending.
        batch: images per update; one that is not in the table takes the nearest batch's (by ratio) rate, times the
            square root of the batches' ratio.
        rank: which of the rates; None is the middle one.

    Raises:
        UserError: the table has no such rank.
    """
    table = {int(key): list(rates) for key, rates in table.items()}
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise UserError(f"batch={batch}: expected a whole number, 1 or more")
    nearest = min(table, key=lambda known: abs(math.log(known / batch)))
    rates = table[nearest]
    rank = len(rates) // 2 if rank is None else rank
    if not isinstance(rank, int) or not 0 <= rank < len(rates):
        raise UserError(f"lr_rank={rank}: the protocol's table has the ranks 0 to {len(rates) - 1}")
    return rates[rank] * math.sqrt(batch / nearest)


def seconds(text: str | float | None) -> float | None:
    """Returns a duration such as `90`, `90s`, `9m` or `1.5h` in seconds; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(text).strip())
    if not match:
        raise UserError(f"time_budget={text}: expected a duration such as 90s, 9m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"{key}={value}: expected a number")
    return float(value)


def _epochs_or_share(limit: float, share: float, epochs: Any) -> float:
    """Returns `limit` epochs, or `share` of a training too short for it."""
    return min(float(limit), share * _number("epochs", epochs))


def register_resolvers() -> None:
    """Makes the functions the YAML files call known to OmegaConf."""
    for name, function in {
        "lbt.table_lr": lambda table, batch, rank: table_lr(table, batch, rank),
        "lbt.epochs_or_share": _epochs_or_share,
        "lbt.if_warm_up": lambda warmup, value, otherwise: value if warmup else otherwise,
        "lbt.part": lambda whole, parts: max(1, int(_number("batch", whole)) // parts),
        "lbt.per_base_batch": lambda value, batch: value * _number("batch", batch) / BASE_BATCH,
    }.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def resolve(composed: DictConfig) -> Config:
    """Returns the typed configuration of what Hydra composed, checked as far as it can be without data or device.

    Raises:
        UserError: an unknown setting, a value of the wrong type or out of range; one line that names it.
    """
    register_resolvers()
    # The plain numbers come first: what is derived from them would otherwise fail with a less direct message.
    for key in ("batch", "epochs", "seed"):
        if OmegaConf.is_missing(composed, key) or not isinstance(composed[key], int) or isinstance(composed[key], bool):
            raise UserError(f"{key}={composed[key]}: expected a whole number")
    if isinstance(base := composed.optimizer.get("base"), str):
        raise UserError(f"optimizer.base={base}: an optimizer inside is chosen by optimizer@optimizer.base={base}")
    try:
        raw = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise UserError(message.removeprefix("UserError raised while resolving interpolation: ")) from None
    raw.pop("hydra", None)
    raw.pop("audit", None)  # what a switch is about; what it does reaches the run through the other groups
    optimizer = raw["optimizer"]
    while isinstance(optimizer, dict):
        for default in ("lr", "lr_scaling"):  # an optimizer's own, read by interpolation
            optimizer.pop(default, None)
        optimizer = optimizer.get("base")  # the one inside
    raw["data"] = _data_config(raw["data"])
    raw["wandb"] = WandbConfig(**bind(WandbConfig, raw["wandb"], "wandb"))
    raw["sweep"] = SweepConfig(**bind(SweepConfig, raw["sweep"], "sweep"))
    config = _with_probes(Config(**bind(Config, raw, "")))
    _check(config, [table for key, table in raw["protocol"].items() if key.endswith("lr_table")])
    return config


def _with_probes(config: Config) -> Config:
    """Returns the configuration in which the layers' norms are asked for in one way alone, `layer_norms`.

    A probe changes nothing of a run and is no part of its id. This one's interval is: it is in the ids of records made
    before there were others. So `probes=[layer_norms]` is the run of `layer_norms=10`.
    """
    if "layer_norms" not in config.probes:
        return config
    others = [name for name in config.probes if name != "layer_norms"]
    return replace(config, probes=others, layer_norms=config.layer_norms or LAYER_NORMS)


def _data_config(raw: dict) -> DataConfig:
    own = {key: value for key, value in raw.items() if key in DataConfig.__dataclass_fields__ and key != "options"}
    options = {key: value for key, value in raw.items() if key not in own}
    return DataConfig(**bind(DataConfig, {**own, "options": options}, "data"))


def _check(config: Config, tables: Sequence[Mapping]) -> None:
    def require(holds: bool, message: str) -> None:
        if not holds:
            raise UserError(message)

    require(config.batch >= 1, f"batch={config.batch}: expected a whole number, 1 or more")
    require(config.epochs >= 1, f"epochs={config.epochs}: expected 1 or more")
    require(0 <= config.seed < 2**63, f"seed={config.seed}: expected 0 or more, below 2^63")
    require(math.isfinite(config.lr) and config.lr > 0, f"lr={config.lr}: expected a positive number")
    require(
        0 <= config.warmup <= config.epochs,
        f"warmup={config.warmup:g}: expected 0 to {config.epochs} epochs, the length of the training",
    )
    if config.micro_batch is not None:
        require(
            1 <= config.micro_batch <= config.batch,
            f"micro_batch={config.micro_batch}: expected 1 to {config.batch}, the batch",
        )
    require(0 <= config.data.val < 1, f"data.val={config.data.val:g}: expected a share of at least 0 and less than 1")
    require(config.data.subset >= 0, f"data.subset={config.data.subset}: expected a number of images, 0 for all")
    require(
        config.data.test_every is None or config.data.test_every > 1,
        f"data.test_every={config.data.test_every}: expected a whole number of images, 2 or more, or null",
    )
    require(
        re.fullmatch(r"[\w.-]+", config.experiment) is not None,
        f"experiment={config.experiment}: expected letters, digits, '.', '_' and '-'",
    )
    require(
        config.grad_clip is None or config.grad_clip > 0,
        f"grad_clip={config.grad_clip}: expected a positive number, or null",
    )
    require(
        config.bias_lr_factor is None or 0 <= config.bias_lr_factor < math.inf,
        f"bias_lr_factor={config.bias_lr_factor}: expected a number of 0 or more, or null",
    )
    require(
        config.layer_norms is None or config.layer_norms >= 1,
        f"layer_norms={config.layer_norms}: expected a whole number of updates, 1 or more, or null",
    )
    require(config.ema is None or 0 < config.ema < 1, f"ema={config.ema}: expected a number between 0 and 1, or null")
    seconds(config.time_budget)
    require(config.sweep.parallel >= 1, f"sweep.parallel={config.sweep.parallel}: expected 1 or more")
    if config.lr_rank is not None:
        rates = [table_lr(table, config.batch, config.lr_rank) for table in tables]
        require(
            any(math.isclose(config.lr, rate) for rate in rates),
            f"lr_rank={config.lr_rank}: has no effect, lr is set to {config.lr:g}",
        )
