"""Every classification network of torchvision, and of timm where it is installed, with weights drawn anew.

Nothing is downloaded: no weights are asked for, and a name that would ask for some is no network's name.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

import torchvision.models as library
from torch import nn

Arch = Literal[*library.list_models(module=library)]
Size = tuple[int, int]  # height and width of an image, pixels

_SHARES = {"dropout", "drop_rate", "stochastic_depth_prob"}

# What gives a second output in training, for a loss of its own, is left out.
_FIXED = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def sized(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Marks a builder whose second argument is the images' size."""
    builder.sized = True
    return builder


@sized
def torchvision(
    num_classes: int,
    image_size: Size | None = None,
    /,
    *,
    arch: Arch,
    dropout: float | None = None,
    stochastic_depth: float | None = None,
) -> nn.Module:
    """Builds one of torchvision's classification networks: images (N, 3, H, W) to logits (N, num_classes).

    Args:
        num_classes: number of logits.
        image_size: pixels; a network that is made for one size is made for this one.
        arch: the name torchvision gives it, e.g. "convnext_tiny".
        dropout: share of the features that are dropped in training; None: the network's own.
        stochastic_depth: share of the samples for which the last residual branch is left out in training; None: the
            network's own.

    Raises:
        ValueError: a setting that the network does not have, or images it cannot take.
    """
    builder = library.get_model_builder(arch)
    known = inspect.signature(get_type_hints(builder)["return"].__init__).parameters
    arguments = dict(_FIXED.get(arch, {}))
    arguments |= _named(arch, known, "dropout", dropout, ("dropout", "drop_rate"))
    arguments |= _named(arch, known, "stochastic_depth", stochastic_depth, ("stochastic_depth_prob",))
    if "image_size" in known:
        arguments["image_size"] = _side(arch, image_size)
    elif "input_size" in known:
        arguments["input_size"] = (_side(arch, image_size),) * 2
    return _built(arch, image_size, builder, num_classes=num_classes, weights=None, **arguments)


@sized
def timm(
    num_classes: int,
    image_size: Size | None = None,
    /,
    *,
    arch: str,
    dropout: float | None = None,
    stochastic_depth: float | None = None,
    patch_size: int | None = None,
) -> nn.Module:
    """Builds one of timm's networks: images (N, 3, H, W) to logits (N, num_classes).

    Args:
        num_classes: number of logits.
        image_size: pixels; a network that is made for one size is made for this one.
        arch: the name timm gives it, without a tag of weights, e.g. "vit_tiny_patch16_224".
        dropout: share of the features that are dropped before the classifier in training; None: the network's own.
        stochastic_depth: share of the samples for which the last residual branch is left out in training; None: the
            network's own.
        patch_size: side of a transformer's patches, pixels; None: the network's own.

    Raises:
        ValueError: timm is not installed, an unknown name, a setting that the network does not have, or images it
            cannot take.
    """
    try:
        import timm as package
    except ImportError:
        raise ValueError("timm is not installed: pip install 'lbt[timm]'") from None
    if arch not in (names := package.list_models()):
        near = get_close_matches(arch, names, n=1, cutoff=0)[0]
        raise ValueError(f'arch={arch}: timm has no network of that name; did you mean "{near}"?')
    given = {"drop_rate": dropout, "drop_path_rate": stochastic_depth, "patch_size": patch_size}
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    described = package.get_pretrained_cfg(arch, allow_unregistered=True)
    if described is not None and described.fixed_input_size:
        arguments["img_size"] = image_size
    return _built(arch, image_size, package.create_model, arch, pretrained=False, num_classes=num_classes, **arguments)


def _named(arch: str, known: Mapping[str, Any], setting: str, value: float | None, names: tuple[str, ...]) -> dict:
    """Returns a setting under the name that a network's constructor has for it."""
    if value is None:
        return {}
    if not 0 <= value < 1:
        raise ValueError(f"{setting}={value}: expected a share of at least 0 and less than 1")
    found = next((name for name in names if name in known), None)
    if found is None:
        raise ValueError(f"{setting}={value}: {arch} has no {setting.replace('_', ' ')}")
    return {found: value}


def _side(arch: str, image_size: Size | None) -> int:
    if image_size is None or image_size[0] != image_size[1]:
        raise ValueError(f"{arch} is made for square images of one size, not {image_size}")
    return image_size[0]


def _built(arch: str, size: Size | None, builder: Callable[..., nn.Module], /, *names: str, **arguments: Any) -> Any:
    """Calls a library's builder; what it refuses in its own words is said in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries', about names and weights
            return builder(*names, **arguments)
    except (AssertionError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if any(f"'{name}'" in str(error) for name in _SHARES & arguments.keys()):  # which the builder gives as well
            raise ValueError(f"{arch} has a share of its own that cannot be changed") from error
        for_size = "" if size is None else f" for images of {size[0]}x{size[1]} pixels"
        raise ValueError(f"{arch} cannot be built{for_size}: {' '.join(str(error).split())}") from error
