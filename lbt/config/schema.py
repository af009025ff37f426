"""The settings of one run: their names, types, defaults and what they mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

BASE_BATCH = 256  # Goyal et al. 2017, arXiv 1706.02677: the batch at which a base learning rate is stated

# Declares settings of which null alone means "off", so that 0 is part of a run's id. Of every other setting all that
# is empty (null, false, 0, nothing) means "off" and is left out.
ZERO_IS_A_VALUE = "zero_is_a_value"
BEFORE = {"small_maps": "convolutions"}  # what a record that does not know the setting was made with


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
class ProbeConfig:
    """How the probes that look at the weights measure; none of it changes the training."""

    images: int = 64  # of the stratified subset whose curvature is measured
    noise_images: int = 1024  # drawn for the noise scale
    micro_batch: int = 64  # images per pass: bounds the memory; batch norm normalises so many together
    seed: int = 0  # decides which images these are, how they are augmented, and where Lanczos begins
    eigenvalues: int = 1  # how many of the largest are sought
    tolerance: float = 0.05  # residual of an eigenvector as a share of its eigenvalue; 0: the machine's precision
    rho: float = 0.05  # SAM's radius
    updates: int | None = None  # measure also after every so many updates of the first epochs; null: do not
    first_epochs: int = 1  # how many epochs these are


@dataclass(frozen=True)
class BranchConfig:
    """How a run departs from a training, its trunk: up to there it is the trunk, then the batch is another one.

    Merrill et al. 2025 (arXiv 2505.23971) measure the critical batch size by such branches.
    """

    at: int  # epochs of the trunk after which it does
    factor: int = 1  # on the batch from then on; the learning rate is scaled with it
    epochs: int = 1  # that are trained from then on; a factor of 1 is the trunk's own continuation
    lr_scaling: Literal["none", "linear", "sqrt"] | None = None  # by which rule; null: that of the run


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep is executed."""

    parallel: int = 1  # runs at once on this machine, each in a process of its own


@dataclass(frozen=True)
class Config:
    """One run, resolved: every value is the one used. Rates are per step, warm-up and delays in epochs until bound."""

    # name and constructor arguments; `<x>_epochs` becomes `<x>_steps` when built
    optimizer: dict = field(metadata={ZERO_IS_A_VALUE: ("delay_epochs",)})  # d_e of TVLARS: null is another phi than 0
    schedule: dict  # name and builder arguments
    data: DataConfig
    # name and builder arguments; null is the network's own share, 0 is none
    model: dict = field(metadata={ZERO_IS_A_VALUE: ("dropout", "stochastic_depth")})
    task: dict  # name and constructor arguments
    protocol: dict  # name and switches; the switches act through the other groups, only the name is kept
    batch: int  # images per update
    lr: float  # base learning rate, before lr_scaling
    epochs: int
    warmup: float  # epochs; reaches the run through the schedule
    micro_batch: int | None = None  # images per forward and backward pass; null: the whole batch
    workers: int | None = None  # parts of a batch whose gradients the optimizer exchanges by its own rule; null: one
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # factor on lr: 1, batch/256 or sqrt(batch/256)
    lr_rank: int | None = None  # which rate of the protocol's table: 0, 1 or 2; null: the middle one
    # rate of tensors of ndim <= 1 as a multiple of the others'; null: the same
    bias_lr_factor: float | None = field(default=None, metadata={ZERO_IS_A_VALUE: ("bias_lr_factor",)})
    grad_clip: float | None = None  # upper bound of the gradient's global 2-norm
    ema: float | None = None  # decay, a step, of the moving average of the weights that is evaluated; null: none
    layer_norms: int | None = None  # updates between two measurements of the probe layer_norms; null: it is off
    probes: list[str] = field(default_factory=list)  # what is measured besides, names of lbt.train.probes
    probe_every: int = 5  # epochs between two looks of sharpness and noise_scale, besides the first and the last
    probe: ProbeConfig = field(default_factory=lambda: ProbeConfig())
    branch: BranchConfig | None = None  # where the run departs from the training that the other settings describe
    init_from: str | dict | None = None  # weights to begin from: a run's id or a file; as settled, their sha256 and run
    plugins: list[str] = field(default_factory=list)  # modules of one's own that bring optimizers, models, data sets
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor computes in it
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int | Literal["auto"] = 1  # that share each batch, a process each; auto: all GPUs that are visible
    threads: Literal["auto"] | int = "auto"  # of the CPU; auto: torch's number, or one where that is timed to be faster
    small_maps: Literal["winograd", "products", "convolutions"] = "winograd"  # on a CPU; equal but for rounding
    deterministic: bool = False  # refuse nondeterministic kernels
    cuda_graph: bool = False  # replay updates as one CUDA graph; equals the plain loop but for rounding
    compile: bool | Literal["auto"] = False  # the model's training pass as compiled code; auto: where that pays
    keep: Literal["weights"] | None = None  # what is kept of a finished run besides its record; null: nothing
    results_dir: str = "results"
    experiment: str = "adhoc"  # folder of the record
    study: dict | None = None  # what a sweep says of this run: its trial's number, or what it was chosen from
    time_budget: str | int | float | None = None  # a sweep starts no run later than this: 90, 90s, 9m, 1h
    mirror: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)  # live copies of the record
    wandb: WandbConfig = field(default_factory=lambda: WandbConfig())
    sweep: SweepConfig = field(default_factory=lambda: SweepConfig())

    @property
    def peak_lr(self) -> float:
        """Learning rate the schedule's factor multiplies: `lr` scaled for the batch."""
        return self.lr * scaling_factor(self.lr_scaling, self.batch)

    @property
    def length(self) -> int:
        """Epochs that are trained: all of them, or a branch's last one."""
        return self.epochs if self.branch is None else self.branch.at + self.branch.epochs


def length_of(settings: Mapping) -> int:
    """Returns how many epochs a run trains whose settings a record holds."""
    branch = settings.get("branch")
    return branch["at"] + branch["epochs"] if branch else settings["epochs"]


def network_of(model: Mapping) -> str:
    """Returns what the settings of a model name, as it is shown: `resnet18`, `torchvision convnext_tiny`."""
    return " ".join(str(model[key]) for key in ("name", "arch") if model.get(key))


def scaling_factor(rule: str, batch: int) -> float:
    """Returns the factor on the base rate: 1, or after Goyal et al. 2017 (linear) or Krizhevsky 2014 (square root)."""
    ratio = batch / BASE_BATCH
    return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule]
