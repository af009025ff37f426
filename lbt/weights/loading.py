"""A network with the weights that a run has kept."""

from pathlib import Path

import torch
from torch import nn

from lbt import build, plugins
from lbt.errors import reading
from lbt.weights.file import Weights, find, read


def load_model(run: str | Path, results_dir: str | Path = "results") -> nn.Module:
    """Returns the network of a run with the weights it has kept, in eval mode, on the CPU.

    What it takes are images [b, C, H, W] normalised with ImageNet's mean and standard deviation
    (`lbt.data.normalise`). It gives logits; that of a Barlow Twins run gives embeddings, its `backbone` the features.

    Args:
        run: the run's id, the beginning of one, or the path of its weights.
        results_dir: where the run's results lie.

    Raises:
        UserError: there are no such weights, or they are damaged; one line that says what to do.
    """
    return network_of(read(find(run, results_dir))).eval()


def network_of(weights: Weights) -> nn.Module:
    """Returns the network of the run that kept the weights, with them; torch's generator is left as it was.

    Raises:
        UserError: they are damaged, or not written by a run.
    """
    settings, classes = weights.config, weights.classes
    plugins.load(settings.get("plugins", ()))
    with reading(weights.path), torch.random.fork_rng(devices=[]):
        network = build.network(settings["model"], settings["task"], len(classes), weights.image_size)
        network.load_state_dict(dict(weights.tensors))
    return network
