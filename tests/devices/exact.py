"""Trainings in float64 on one device or several, which differ by rounding alone: what the processes of a test do."""

import itertools
import os
import socket
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from support import StopAfter, figures, tiny_config
from torch import nn

from lbt import build
from lbt.devices import norm
from lbt.devices.group import ALONE
from lbt.devices.processes import joined
from lbt.models import MODELS, GhostBatchNorm2d
from lbt.optim import shampoo
from lbt.run import run
from lbt.tasks import TASKS, BarlowTwins, Classification
from lbt.train import Training

UPDATES = 10  # into the fourth epoch
DATA = ("data.size=34", "data.last_batch=keep", "epochs=7")  # 3 updates an epoch, of 16, 16 and 2 images


class Double(nn.Module):
    """Takes images of a run in fp32."""

    def forward(self, x):
        return x.double()


def exact(
    num_classes: int,
    *,
    stem: str = "",
    norm: str = "group",
    norm_groups: int = 2,
    ghost_size: int | None = None,
    bn_momentum: float = 0.1,
    bn_eps: float = 1e-5,
    zero_init_residual: bool = False,
    init: str | None = None,
) -> nn.Module:
    """Two convolutions with a norm, and a linear layer, in float64."""

    def normed(channels):
        kinds = {"group": lambda: nn.GroupNorm(2, channels), "batch": lambda: nn.BatchNorm2d(channels)}
        return kinds.get(norm, lambda: GhostBatchNorm2d(channels, ghost_size or 1))()

    model = nn.Sequential(Double(), nn.Conv2d(3, 6, 3, padding=1), normed(6), nn.Tanh())
    model.extend([nn.Conv2d(6, 8, 3, stride=2), normed(8), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    model.add_module("fc", nn.Linear(8, num_classes))
    return model.double()


class ExactClassification(Classification):
    """Classification whose loss is not rounded to float32."""

    def loss(self, outputs, labels):
        return {"loss": F.cross_entropy(outputs, labels), "right": (outputs.argmax(1) == labels).double().mean()}


class ExactTwins(BarlowTwins):
    """Barlow Twins with a projector in float64, too."""

    def prepare(self, model):
        return super().prepare(model).double()


MODELS["exact"] = exact
TASKS.update(exact=ExactClassification, exact_twins=ExactTwins)


@cache
def base():
    return tiny_config("nowhere", *DATA, "schedule=constant")


def config(folder, *, data=None, **changes):
    """A run's configuration: settings of `data` and of the run, the optimizer's options as they are given."""
    made = replace(base(), results_dir=str(folder), lr=0.05, lr_scaling="none", optimizer={"name": "nesterov"})
    made = replace(made, model={"name": "exact", "norm": "group"}, task={"name": "exact"})
    return replace(made, data=replace(made.data, **(data or {})), **changes)


def trained(config, group=ALONE, updates=UPDATES):
    """What these updates make: weights and buffers, figures, scores and what the probes measured."""
    made = Training(config, build.images(config), "test", group=group)
    made.record = None
    figures, norms = {}, {}
    while made.progress.step < updates:
        epoch = made.progress.epoch
        made.data.batch = made.update.executor.batch = made.batch_of[epoch]
        for images, labels in made.data.batches():
            made._update(images, labels)
            if made.progress.step == updates:
                break
        figures |= {f"{name} {epoch}": torch.tensor(mean) for name, mean in made.progress.means().items()}
        norms |= {f"{name} {epoch}": torch.tensor(values) for name, values in measured(made).items()}
        made.progress.next_epoch()
    # As after the last epoch: a linear probe is trained then alone.
    scores = made.update.scores(made.sets, made.data, epoch=config.epochs, epochs=config.epochs)
    if hasattr(made.update.optimizer, "show_worker"):  # workers have weights of their own: their mean
        made.update.optimizer.eval()
    state = {name: value.double() for name, value in made.model.state_dict().items()}
    if made.update.executor.workers:
        state["bytes sent"] = torch.tensor(float(made.update.optimizer.bytes_sent))
    if made.update.average is not None:
        state |= {f"average {name}": value.double() for name, value in made.update.average.state_dict().items()}
    return {**state, "scores": torch.tensor(list(scores.values())), **figures, **norms}


def measured(made):
    readings = made.update.readings().get("layer_norms", {})
    return {name: values for name, values in readings.items() if name in ("lwn", "lgn")}


def locally(config, group):
    """The control: as `trained`, with batch norm over each device's images alone."""
    kept, norm.SpreadNorm.forward = norm.SpreadNorm.forward, nn.BatchNorm2d.forward
    try:
        return trained(config, group)
    finally:
        norm.SpreadNorm.forward = kept


def roots(config, group=ALONE):
    """How many roots Shampoo computes in this process in two updates, and the state that it then has."""
    computed, function = [], shampoo.inverse_root
    shampoo.inverse_root = lambda matrices, eps: computed.append(len(matrices)) or function(matrices, eps)
    try:
        made = Training(config, build.images(config), "test", group=group)
        for images, labels in itertools.islice(made.data.batches(), 2):
            made._update(images, labels)
    finally:
        shampoo.inverse_root = function
    state = made.update.optimizer.state_dict()["state"]
    tensors = {f"{index} {name}": value for index, of in state.items() for name, value in of.items() if name != "step"}
    return sum(computed), tensors


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def in_group(rank, size, port):
    """Has this process be one of several, as torch's launcher would: of one machine, or of three with one each."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    local_rank, local_size = (0, 1) if size == 3 else (rank, size)
    os.environ.update(zip(names, map(str, (rank, local_rank, size, local_size, "127.0.0.1", port)), strict=True))
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # this machine's own name may lead nowhere


def work(rank, ports, cases, controls, wholes, folder):
    """One of the processes: its share of the cases alone, then all cases on each number of devices in `ports`."""
    torch.set_num_threads(1)
    folder = Path(folder)
    alone = {name: trained(case) for name, case in list(cases.items())[rank :: max(ports)]}
    if rank == 0 and "shampoo, blocks" in cases:
        alone["roots"] = roots(cases["shampoo, blocks"])
    torch.save(alone, folder / f"alone{rank}.pt")
    for size, (port, *others) in ports.items():
        if rank >= size:
            continue
        in_group(rank, size, port)
        with joined("cpu") as group:
            found = {name: trained(case, group) for name, case in cases.items()}
            found |= {f"local {name}": locally(cases[name], group) for name in controls}
            if "shampoo, blocks" in cases:
                found["roots"] = roots(cases["shampoo, blocks"], group)
            torch.save(found, folder / f"{size}-{rank}.pt")
        torch.distributed.destroy_process_group()
        # Runs of their own: begun on one device, gone on with on two and on three, stopped by the last process.
        for (name, whole), other in zip(wholes.items(), others, strict=True):
            in_group(rank, size, other)
            outcome = run(whole, interrupt=StopAfter(6) if rank == size - 1 else None)
            (folder / f"stopped-{name}-{size}-{rank}").write_text(f"{outcome.status} {outcome.summary.get('steps')}")
            torch.distributed.destroy_process_group()


def numbers(path):
    """A record's numbers, line by line, without times and the host's threads, of which several devices have fewer."""
    return [{key: value for key, value in line.items() if key not in ("kind", "threads")} for line in figures(path)]
