"""What several test files use: configurations from overrides, and runs of a model small enough for hundreds."""

import multiprocessing
import os
import sys
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from lbt import build, records, sweep
from lbt.config import CONFIG_DIR, Config, groups, resolve
from lbt.models import MODELS
from lbt.run import run
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.train import Training

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = [
    "data=synthetic",
    "data.size=44",
    "data.test_size=16",
    "data.resolution=8",
    "data.augment=crop_flip_rotate",
    "model.name=tiny",
    "batch=16",  # 3 updates an epoch, the last one of 12 images
    "epochs=4",
    "precision=fp32",
    "device=cpu",
]


def tiny(
    num_classes: int,
    *,
    stem: str = "",
    norm: str = "",
    norm_groups: int = 0,
    ghost_size: int | None = None,
    bn_momentum: float = 0.1,
    bn_eps: float = 1e-5,
    zero_init_residual: bool = False,
    init: str | None = None,
) -> nn.Module:
    """A convolution, a batch norm and a linear layer."""
    layers = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.add_module("fc", nn.Linear(8, num_classes))
    return model


MODELS["tiny"] = tiny


@lru_cache(maxsize=64)
def composed(overrides: tuple[str, ...]):
    """What Hydra composes of lbt's own files, once in a process: it takes longer than a small run."""
    return sweep.compose(overrides)


def configure(*overrides: str) -> Config:
    """Returns the resolved configuration; plain settings, on which no choice of files depends, are set afterwards."""
    if groups.folders() != (CONFIG_DIR,):
        return resolve(sweep.compose(overrides))
    words, later = [], {}
    for word in overrides:
        name, _, value = word.partition("=")
        if name == "results_dir" or (name in ("batch", "epochs", "lr_rank", "seed") and value.isdecimal()):
            later[name] = value if name == "results_dir" else int(value)
            word = f"{name}=1"
        words.append(word)
    found = composed(tuple(words))
    for name, value in later.items():
        found[name] = value
    return resolve(found)


def tiny_config(results_dir, *overrides: str) -> Config:
    """Returns the configuration of a run of a few milliseconds."""
    return configure(*TINY, f"results_dir={results_dir}", *overrides)


class StopAfter(Interrupt):
    """Asks the run to stop after its n-th update from now on."""

    def __init__(self, updates: int):
        super().__init__()
        self.left = updates

    def requested(self) -> bool:
        """Counts the loop's questions, one an update."""
        self.left -= 1
        return self.left <= 0


def run_tiny(results_dir, *overrides: str, interrupt: Interrupt | None = None) -> Outcome:
    """Executes a run of a few milliseconds."""
    torch.manual_seed(12345)  # whatever the process did before must not matter
    return run(tiny_config(results_dir, *overrides), interrupt=interrupt)


def script(code):
    """Returns the command that executes `code` with this folder's support module."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n{code}"]


def process(function, *arguments):
    """Starts a function of a test's module in a process of its own, forked from one that has imported what runs need.

    That is there at once, where `script` takes seconds to import torch; what it says is not kept.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lbt.run"])
    started = context.Process(target=function, args=arguments)
    started.start()
    return started


def figures(path):
    """A record's numbers, without times."""
    record = records.read(path)
    lines = [*record.epochs, record.end["summary"]]
    return [{key: value for key, value in line.items() if not key.startswith("wall_")} for line in lines]


def training(tmp_path, *overrides, optimizer=None, regions=None):
    """Returns a training that has not begun, with an optimizer or a timer of the test's own."""
    config = tiny_config(tmp_path, *overrides)
    made = Training(config, build.images(config), "test", regions)
    if optimizer is not None:
        made.update.optimizer = optimizer(made.model.parameters(), lr=0.1)
        made.update.optimizer.param_groups[0]["initial_lr"] = 0.1
    return made
