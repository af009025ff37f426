"""A network with the weights that a run has kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lbt import build, plugins
from lbt.config import groups
from lbt.errors import UserError, reading
from lbt.weights.file import Weights, find, read


def load_model(run: str | Path, results_dir: str | Path = "results", config_dir: str | Path | None = None) -> nn.Module:
    """Returns the network of a run with the weights it has kept, in eval mode, on the CPU.

    What it takes are images [b, C, H, W] normalised with ImageNet's mean and standard deviation
    (`lbt.data.normalise`). It gives logits; that of a Barlow Twins run gives embeddings, its `backbone` the features.

    Args:
        run: the run's id, the beginning of one, or the path of its weights.
        results_dir: where the run's results lie.
        config_dir: a folder of configuration files of one's own, whose plug-ins the network may need.

    Raises:
        UserError: there are no such weights, or they are damaged; one line that says what to do.
    """
    with groups.using(config_dir):
        return network_of(read(find(run, results_dir))).eval()


@contextmanager
def its_plugins(weights: Weights) -> Iterator[None]:
    """Says in a mistake which of the run's plug-ins are not here: what is unknown may be theirs."""
    try:
        yield
    except UserError as error:
        if missing := [name for name in weights.plugins if name not in plugins.names()]:
            remedy = "--config-dir, in Python config_dir=, finds those of a folder"
            raise UserError(f"{error} (made with plug-ins: {', '.join(missing)}; {remedy})") from error
        raise


def network_of(weights: Weights) -> nn.Module:
    """Returns the network of the run that kept the weights, with them; torch's generator is left as it was.

    Raises:
        UserError: they are damaged, or not written by a run.
    """
    settings, classes = weights.config, weights.classes
    plugins.load(settings.get("plugins", ()))
    with its_plugins(weights), reading(weights.path), torch.random.fork_rng(devices=[]):
        network = build.network(settings["model"], settings["task"], len(classes), weights.size)
        network.load_state_dict(dict(weights.tensors))
    return network
