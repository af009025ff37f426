"""A network without its classifier."""

from torch import nn


def classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """Returns the name and the layer of a network's classifier: what timm says, `fc`, or the last linear layer.

    Raises:
        ValueError: there is none, or it is more than a linear layer.
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if hasattr(model, "get_classifier"):
        said = model.get_classifier()
        found = next((name for name, layer in linear.items() if layer is said), None)
    else:
        found = "fc" if "fc" in linear or hasattr(model, "fc") else next(reversed(linear), None)
    if found not in linear:
        raise ValueError(f"{type(model).__name__} has no linear classifier to replace")
    return found, linear[found]


def backbone(model: nn.Module) -> tuple[nn.Module, int]:
    """Replaces the classifier by the identity, in place, so that the model returns features (N, feature_dim).

    What stands before the classifier stays, a dropout in training for instance.

    Args:
        model: a model that still has its classifier, see `classifier`.

    Returns:
        The same model, and feature_dim: 512 for ResNet18 and 34, 2048 for ResNet50.

    Raises:
        ValueError: it has no linear classifier, or no longer.
    """
    name, layer = classifier(model)
    model.set_submodule(name, nn.Identity())
    return model, layer.in_features
