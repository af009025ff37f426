"""SAM: sharpness-aware minimisation around any other optimizer (Foret et al. 2020, arXiv 2010.01412)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

import lbt.optim
from lbt.optim.layerwise import check, check_number, norms, scalar_for
from lbt.optim.wrapper import Around


def build_base(params: Any, lr: Any, base: dict[str, Any], maximize: bool) -> Optimizer:
    """Build the optimizer that ``base`` names, with the rest of it as arguments; a mistake is a ValueError."""
    options = {key: value for key, value in base.items() if key != "name"}
    known = [name for name in lbt.optim.names() if not getattr(lbt.optim.get(name), "needs_closure", False)]
    check("base name", base.get("name"), base.get("name") in known, f"one of {', '.join(known)}")
    factory = lbt.optim.get(base["name"])
    arguments = [name for name in inspect.signature(factory).parameters if name not in ("params", "lr", "maximize")]
    for key in options:
        check(f"base argument of {base['name']}", key, key in arguments, f"one of {', '.join(arguments)}")
    return factory(params, lr=lr, maximize=maximize, **options)


class SAM(Around):
    r"""SAM: the update of another optimizer, with the gradient at the worst point nearby.

    ``e = rho * g / ||g||`` with the norm over all parameters; ``g' = gradient at w + e``; the base optimizer steps
    from ``w`` with ``g'``. ``adaptive=True`` is ASAM (Kwon et al. 2021): ``e = rho * w**2 * g / || |w| * g ||``.

    A step costs two forward and backward passes. The caller computes the gradients at ``w`` as always and calls
    ``step(closure)``; ``closure()`` clears the gradients, computes them anew, at ``w + e``, and should leave the
    running statistics of batch norm alone, so that they are updated once. The weights return to ``w`` exactly (a copy
    is kept meanwhile). A zero gradient norm gives ``e = 0``. `CLARS` as a base is LARS: it is shown no micro-batches.

    Args:
        params: Tensors, or groups of them, which may override rho, adaptive and the base's arguments.
        lr: Learning rate of the base optimizer.
        base: Its name and arguments, ``{"name": "lars", "eta": 0.01}``; None is ``{"name": "nesterov"}``.
        rho: Radius, in the weights' units; the paper has 0.05 for CIFAR and ImageNet, ASAM 0.5 to 1.
        adaptive: Measure the radius in units of each weight.
        maximize: Go up the gradient (and look for the lowest point nearby).

    Attributes:
        needs_closure: ``step`` has to be given a closure.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    needs_closure = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        base: dict | None = None,
        rho: float = 0.05,
        adaptive: bool = False,
        maximize: bool = False,
    ):
        check_number("rho", rho)
        inner = build_base(params, lr, {"name": "nesterov"} if base is None else dict(base), maximize)
        super().__init__(inner, {"rho": rho, "adaptive": adaptive, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer too."""
        if "rho" in param_group:
            check_number("rho", param_group["rho"])
        super().add_param_group(param_group)

    def __getattr__(self, name: str) -> Any:
        if name in ("train", "eval", "trust_ratios") and "inner" in vars(self):
            return getattr(self.inner, name)
        raise AttributeError(f"SAM has no attribute {name!r}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Climb by ``e``, have loss and gradients computed there, go back, and take the base optimizer's step.

        Args:
            closure: Computes loss and gradients anew; called once, with gradients enabled, at ``w + e``.

        Returns:
            What the closure returned: the loss at ``w + e``.

        Raises:
            RuntimeError: Without a closure, or for a sparse gradient.
        """
        if closure is None:
            raise RuntimeError("SAM.step needs a closure that computes the gradients anew")
        lists = self.with_gradients()
        before = [[param.clone() for param in params] for params in lists]
        self._climb(lists)
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            for params, old in zip(lists, before, strict=True):
                torch._foreach_copy_(params, old)
        self.inner.step()
        return loss

    def _climb(self, lists: list[list[Tensor]]) -> None:
        if not lists:
            return
        group_of = {param: group for group in self.param_groups for param in group["params"]}
        directions, parts = [], []
        for params in lists:
            adaptive = [group_of[p]["adaptive"] for p in params]
            grads = [p.grad * p.abs() if a else p.grad for p, a in zip(params, adaptive, strict=True)]
            parts.append(norms(grads))
            directions.append([g * p.abs() if a else g for p, g, a in zip(params, grads, adaptive, strict=True)])
        dtype = torch.float32 if parts[0].device.type == "mps" else torch.float64
        total = torch.cat([part.to(parts[0].device, dtype) for part in parts]).norm()
        inverse = torch.where(total > 0, 1 / total, torch.zeros_like(total))
        for params, direction in zip(lists, directions, strict=True):
            signed = [(-1.0 if group_of[p]["maximize"] else 1.0) * group_of[p]["rho"] for p in params]
            climb = torch._foreach_mul(direction, scalar_for(params[0], inverse))
            torch._foreach_mul_(climb, signed)
            torch._foreach_add_(params, climb)


OPTIMIZERS = {"sam": SAM}
