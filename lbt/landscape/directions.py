"""Points of weight space: between two networks, and along random directions scaled to a network's filters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]  # by the parameters' or buffers' names


def between(first: Weights, second: Weights, place: float) -> dict[str, Tensor]:
    """Returns the weights that lie on the line through two networks', 0 being the first's and 1 the second's.

    At both ends they are the networks' own, bit for bit. What is no number with fractions (a counter) is the first's.
    """
    return {
        name: one if not one.is_floating_point() or place == 0 else (1 - place) * one + place * second[name]
        for name, one in first.items()
    }


def filter_normalised(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Returns a random direction, each filter of which is as long as the network's own.

    Gaussian, and scaled filter by filter: d <- d / ||d|| * ||w||, a filter being what makes one output of a layer (a
    row of a linear one). Biases and the weights of norm layers, all that has one dimension, do not move. So a step of
    one length means the same for networks whose layers are of different scales.

    Args:
        network: whose parameters count.
        seed: of the draw, which is the same on every device.

    Source: Li et al. 2018, arXiv 1712.09913, section 4.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in network.named_parameters():
        if weight.ndim <= 1:
            direction[name] = torch.zeros_like(weight.detach())
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
        lengths = weight.detach().flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
        direction[name] = drawn * lengths.reshape(-1, *[1] * (weight.ndim - 1))
    return direction


def moved(start: Weights, *steps: tuple[float, Weights]) -> dict[str, Tensor]:
    """Returns weights after some steps, each so far along a direction; what a direction lacks stays where it is."""
    found = dict(start)
    for length, direction in steps:
        found |= {name: found[name] + length * along for name, along in direction.items()}
    return found
