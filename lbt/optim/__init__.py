"""Layer-wise large-batch optimizers for PyTorch, and the generic ones, found by name.

A new optimizer is one module in this package with ``OPTIMIZERS = {"name": callable(params, lr, **options)}``.

What a training loop asks of any of them, by attribute and never by name: ``needs_closure`` (`SAM`: ``step(closure)``
recomputes loss and gradients), ``observe_micro_batch(share)`` (`CLARS`: after each micro-batch's backward pass),
``train()`` and ``eval()`` (the schedule-free ones: around evaluations). Those who lack an attribute do without.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

from torch.optim import Optimizer

from lbt.optim.clars import CLARS
from lbt.optim.lamb import LAMB
from lbt.optim.larc import LARC
from lbt.optim.lars import LARS
from lbt.optim.muon import Muon
from lbt.optim.sam import SAM
from lbt.optim.shampoo import Shampoo
from lbt.optim.sm3 import SM3
from lbt.optim.tvlars import TVLARS

__all__ = ["CLARS", "LAMB", "LARC", "LARS", "SAM", "SM3", "TVLARS", "Muon", "Shampoo", "get", "names"]


@cache
def _registry() -> dict[str, Callable[..., Optimizer]]:
    found: dict[str, Callable[..., Optimizer]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        table = getattr(importlib.import_module(f"{__name__}.{module.name}"), "OPTIMIZERS", {})
        if twice := found.keys() & table.keys():
            raise RuntimeError(f"lbt.optim.{module.name} registers names a second time: {sorted(twice)}")
        found |= table
    return found


def names() -> list[str]:
    """Names of all optimizers, sorted."""
    return sorted(_registry())


def get(name: str) -> Callable[..., Optimizer]:
    """Look an optimizer up by name.

    Args:
        name: One of `names`.

    Returns:
        ``callable(params, lr, **options) -> torch.optim.Optimizer``.

    Raises:
        KeyError: For a name that no module registers.
    """
    return _registry()[name]
