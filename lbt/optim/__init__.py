"""Layer-wise large-batch optimizers for PyTorch, and the generic ones, found by name.

A new optimizer is one module in this package with ``OPTIMIZERS = {"name": callable(params, lr, **options)}``.

What a training loop asks of any of them, by attribute and never by name: ``needs_closure`` (`SAM`: ``step(closure)``
recomputes loss and gradients), ``observe_micro_batch(share)`` (`CLARS`: after each micro-batch's backward pass),
``train()`` and ``eval()`` (the schedule-free ones, SLAMB: around evaluations), ``share_with(process_group)``
(`Shampoo`: work is shared out among processes that take every step together), ``local_gradients`` (rules for several
workers: ``collect(worker)`` after each worker's backward pass, gradients are not averaged; before an update's passes
``begin_update()``, before a worker's ``show_worker(worker)``). Those who lack an attribute do without.

``fused`` is an argument of LARS, TVLARS and LAMB: our Triton kernels on a GPU (``lbt.optim.triton``). In the groups of
sgd, nesterov, adam and adamw it is torch's own switch, which these set in each step. ``cpu_kernels``, an attribute of
all of them, says whether torch's fused CPU kernels are used where every tensor suits them.

In anybody's loop: found by trying each on two processes, float64, whole weights after some steps against one process
(tests/optim/test_processes.py), and the compiled step against the plain one. "right" is equal but for rounding;
"refused" is one line that says what to use. ZeRO is ZeroRedundancyOptimizer, FSDP2 ``fully_shard``, compile
``torch.compile(optimizer.step)``.

=================  =====  ========  =================  =======  =================  =======
optimizer          DDP    no_sync   ZeRO               FSDP2    FSDP1              compile
=================  =====  ========  =================  =======  =================  =======
sgd, nesterov      right  right     right [1]_         right    right [1]_         right
adam, adamw        right  right     right [1]_         right    right [1]_         right
lars, larc         right  right     right              right    refused            right
tvlars             right  right     right              right    refused            right
clars              right  right     refused            right    refused            right
                          [2]_                         [2]_
lamb               right  right     right; grad_clip   right    refused            right
                                    refused
sm3, muon          right  right     right              right    refused            right
shampoo            right  right     right              right    refused            right
sam                right  right     refused            right    refused            right
                                                       [3]_
lion               right  right     right              right    right              right
adan               right  right     right              refused  right              right
soap               right  right     right              refused  refused            right
schedulefree_sgd   right  right     right              right    right              right
schedulefree_adamw right  right     right              right    right              right
=================  =====  ========  =================  =======  =================  =======

Rules for several workers (onebit_adam, onebit_lamb, slamb, agvm, jointspar) exchange gradients by themselves, on whole
parameters: no DDP, ZeRO is refused, and so are FSDP1 and FSDP2.

.. [1] ``decay_1d=False`` is refused: the groups that it makes, and which tensors are biases, are not seen there.
.. [2] Micro-batches that are exchanged are joint ones of all processes, those of ``no_sync`` one process' each. FSDP2
   without gradient synchronisation is refused, because it shows no gradient.
.. [3] Of its bases: as the base itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    from lbt.optim.agvm import AGVM
    from lbt.optim.clars import CLARS
    from lbt.optim.jointspar import JointSpar, JointSparLARS
    from lbt.optim.lamb import LAMB
    from lbt.optim.larc import LARC
    from lbt.optim.lars import LARS
    from lbt.optim.muon import Muon
    from lbt.optim.onebitadam import OneBitAdam
    from lbt.optim.onebitlamb import OneBitLAMB
    from lbt.optim.sam import SAM
    from lbt.optim.shampoo import Shampoo
    from lbt.optim.slamb import SLAMB
    from lbt.optim.sm3 import SM3
    from lbt.optim.tvlars import TVLARS

__all__ = [
    "AGVM", "CLARS", "LAMB", "LARC", "LARS", "SAM", "SLAMB", "SM3", "TVLARS", "JointSpar", "JointSparLARS", "Muon",
    "OneBitAdam", "OneBitLAMB", "Shampoo", "get", "names", "register",
]  # fmt: skip


if not TYPE_CHECKING:  # to type checkers a misspelt name is to be one

    def __getattr__(name: str) -> Any:
        """Imports an optimizer's module when its class is asked for (it is called like the class), or any module."""
        if name in __all__:
            module = {"JointSparLARS": "jointspar"}.get(name, name.lower())
            found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return found
        if name in {module.name for module in pkgutil.iter_modules(__path__)}:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@cache
def _registry() -> dict[str, Callable[..., Optimizer]]:
    found: dict[str, Callable[..., Optimizer]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        table = getattr(importlib.import_module(f"{__name__}.{module.name}"), "OPTIMIZERS", {})
        if twice := found.keys() & table.keys():
            raise RuntimeError(f"lbt.optim.{module.name} registers names a second time: {sorted(twice)}")
        found |= table
    return found


def register(name: str, factory: Callable[..., Optimizer]) -> None:
    """Enter an optimizer from outside of this package.

    Args:
        name: What `get` shall know it by.
        factory: ``callable(params, lr, **options) -> torch.optim.Optimizer``, its options annotated.
    """
    _registry()[name] = factory


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
