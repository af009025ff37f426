"""Which tensors of a file a network begins from.

Below a task's own layers lies the model; there a tensor is known by the model's own name for it, whether the task has
the model as it is (`conv1.weight`) or as its backbone (`backbone.conv1.weight`). All of that must be there and fit, or
it is another architecture. What lies above, the classifier and a task's own layers, is taken where all of it fits, and
otherwise begins as drawn.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lbt import build
from lbt.config import Config
from lbt.errors import UserError
from lbt.weights.file import Weights
from lbt.weights.origin import opened

BACKBONE = "backbone."
ANY_SIZE = (224, 224)  # pixels: the shape of a classifier does not depend on them


@dataclass(frozen=True)
class _Match:
    """Tensors by their names in the network.

    Attributes:
        weights: what they come from.
        taken: those that the network begins from.
        left: names, in the file, of those that it does not.
        drawn: names, in the network, of those that begin as drawn.
        classes: of a classifier left for its size, there and here.
    """

    weights: Weights
    taken: dict[str, Tensor]
    left: list[str]
    drawn: list[str]
    classes: tuple[int, int] | None


def take(config: Config, network: nn.Module) -> None:
    """Puts the weights that `init_from` names into a network; does nothing where it is off.

    Args:
        config: settled configuration.
        network: as its task trains it, freshly made.

    Raises:
        UserError: they are of another architecture, or not at hand.
    """
    if config.init_from is None:
        return
    match, own = _match(config, network), network.state_dict()
    with torch.no_grad():
        for name, tensor in match.taken.items():
            own[name].copy_(tensor)


def check_vocabulary(config: Config, vocabulary: str | None, weights: Weights | None = None) -> None:
    """Refuses weights that know a token number by another meaning than the data.

    Args:
        config: settled configuration.
        vocabulary: the fingerprint of that of the data; None: they are no text.
        weights: None: those that `init_from` names.

    Raises:
        UserError: the run that kept them was trained with another vocabulary.
    """
    theirs = (weights or opened(config.init_from)).metadata.get("vocabulary")
    if theirs is not None and vocabulary is not None and json.loads(theirs) != vocabulary:
        said = f"its tokens are of another vocabulary than data={config.data.name}'s"
        if weights is not None:
            raise UserError(f"{weights.run}: {said}; only the text and the settings it was trained with have the same")
        source = config.init_from["run"] or config.init_from["sha256"][:16]
        raise UserError(f"init_from={source}: {said}; begin from a run on the same text and with the same vocabulary")


def told(config: Config, network: nn.Module) -> str:
    """Returns in one line which weights `init_from` has a network begin from, how many, and what is left out.

    Args:
        config: settled configuration, with `init_from`.
        network: as its task trains it; one without memory (torch's meta device) will do.

    Raises:
        UserError: as `take` says.
    """
    match = _match(config, network)
    source = f"run {match.weights.run}" if match.weights.run else match.weights.path.name
    line = f"begins from {source}: {len(match.taken)} of its {len(match.weights.tensors)} tensors taken"
    if match.left:
        line += f", without {_layers(match.left)}"
    if match.drawn:
        line += f"; {_layers(match.drawn)} begins as drawn"
    if match.classes:
        line += f" ({match.classes[0]} classes there, {match.classes[1]} here)"
    return line


def classifier(model: Mapping[str, Any]) -> frozenset[str]:
    """Returns the names of a model's tensors whose shape depends on the number of classes.

    Args:
        model: its settings, as in a configuration.
    """
    return _classifier(json.dumps(model, sort_keys=True))


@lru_cache(maxsize=16)
def _classifier(model: str) -> frozenset[str]:
    as_it_is = {"name": "classification"}
    two, three = (build.outline(json.loads(model), as_it_is, classes, ANY_SIZE).state_dict() for classes in (2, 3))
    return frozenset(name for name in two if two[name].shape != three[name].shape)


def _match(config: Config, network: nn.Module) -> _Match:
    weights, names = opened(config.init_from), classifier(config.model)
    there, here = _Side(weights.tensors, names), _Side(network.state_dict(), names)
    taken = set(here.of_model)
    if here.above and all(here.shape(key) == there.shape(key) for key in here.above):
        taken |= here.above
    unfit = [key for key in here.of_model if here.shape(key) != there.shape(key)]
    foreign = [key for key in there.of_model if key not in here.name_of]
    if unfit or foreign:
        raise UserError(_misfit(config, weights, there, here, unfit, foreign))
    sizes = [(there.shape(key)[0], here.shape(key)[0]) for key in here.name_of if key in names & there.above - taken]
    sizes = [(theirs, ours) for theirs, ours in sizes if theirs != ours]
    return _Match(
        weights,
        taken={name: there.tensor(key) for key, name in here.name_of.items() if key in taken},
        left=[name for key, name in there.name_of.items() if key not in taken],
        drawn=[name for key, name in here.name_of.items() if key not in taken],
        classes=sizes[0] if sizes else None,
    )


class _Side:
    """A file's or a network's tensors.

    Args:
        tensors: by name.
        classifier: the model's names for its classifier's tensors.

    Attributes:
        name_of: the tensors' names by those that the model has for them; a task's own layers keep theirs.
        above: of these, the classifier and a task's own layers.
        of_model: all others, sorted.
    """

    def __init__(self, tensors: Mapping[str, Tensor], classifier: frozenset[str]):
        has_backbone = any(name.startswith(BACKBONE) for name in tensors)
        self._tensors = tensors
        self.name_of = {name.removeprefix(BACKBONE) if has_backbone else name: name for name in sorted(tensors)}
        own = {key for key, name in self.name_of.items() if has_backbone and not name.startswith(BACKBONE)}
        self.above = own | (self.name_of.keys() & classifier)
        self.of_model = [key for key in self.name_of if key not in self.above]

    def tensor(self, key: str) -> Tensor:
        """Returns a tensor by the model's name."""
        return self._tensors[self.name_of[key]]

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Returns a tensor's shape, None where there is no such tensor."""
        return tuple(self.tensor(key).shape) if key in self.name_of else None


def _misfit(
    config: Config, weights: Weights, there: _Side, here: _Side, unfit: Sequence[str], foreign: Sequence[str]
) -> str:
    """Says in one line why weights are not this model's."""
    if unfit and unfit[0] in there.name_of:
        why = f"{unfit[0]} is {_size(there.shape(unfit[0]))} there and {_size(here.shape(unfit[0]))} here"
    elif unfit:
        why = f"they have no {unfit[0]}"
    else:
        why = f"it has no {foreign[0]}"
    if others := len(unfit) + len(foreign) - 1:
        why += f", and {others} more"
    model, source = config.model["name"], weights.run or weights.path
    theirs = f"; they are of {_settings(weights.config['model'])}" if "config" in weights.metadata else ""
    return f"init_from={source}: weights of another architecture than model={model}: {why}{theirs}"


def _settings(model: Mapping[str, Any]) -> str:
    shown = [f" model.{key}={value}" for key, value in model.items() if key in ("arch", "stem", "norm")]
    return f"model={model['name']}{''.join(shown)}"


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _layers(names: Iterable[str]) -> str:
    """Returns the outermost layers of some tensors."""
    return ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
