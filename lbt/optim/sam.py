"""SAM: sharpness-aware minimisation around any other optimizer (Foret et al. 2020, arXiv 2010.01412)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

import lbt.optim
from lbt.optim.checks import check, check_number
from lbt.optim.sharded import local, refuse_flat, refuse_zero, spread_of
from lbt.optim.tensors import norms, scalar_for, wide_dtype
from lbt.optim.wrapping import WrappingOptimizer

ASAM_ETA = 0.01  # added to |w|, so that weights near zero may be moved at all (the authors' program)


def build_base(params: Any, lr: Any, base: dict[str, Any], maximize: bool) -> Optimizer:
    """Build the optimizer that ``base`` names, with the rest of it as arguments; a mistake is a ValueError."""
    options = {key: value for key, value in base.items() if key != "name"}
    known = [name for name in lbt.optim.names() if not _takes_gradients_itself(lbt.optim.get(name))]
    check("base name", base.get("name"), base.get("name") in known, f"one of {', '.join(known)}")
    factory = lbt.optim.get(base["name"])
    arguments = [name for name in inspect.signature(factory).parameters if name not in ("params", "lr", "maximize")]
    for key in options:
        check(f"base argument of {base['name']}", key, key in arguments, f"one of {', '.join(arguments)}")
    return factory(params, lr=lr, maximize=maximize, **options)


def _takes_gradients_itself(factory: Callable[..., Optimizer]) -> bool:
    return getattr(factory, "needs_closure", False) or getattr(factory, "local_gradients", False)


class SAM(WrappingOptimizer):
    r"""SAM: the update of another optimizer, with the gradient at the worst point nearby.

    ``e = rho * g / ||g||`` with the norm over all parameters; ``g' = gradient at w + e``; the base optimizer steps
    from ``w`` with ``g'``. ``adaptive=True`` is ASAM (Kwon et al. 2021, arXiv 2102.11600), as in its authors' program:
    ``e = rho * T**2 * g / ||T * g||`` with ``T = |w| + 0.01`` for weights and ``T = 1`` for biases. Theirs are told
    apart by name, here ``ndim <= 1`` are biases, the scales of norm layers among them. (davda54/sam and the packages
    after it have ``T = |w|`` for all.)

    A step costs two forward and backward passes. ``closure()`` clears the gradients, computes them anew, and should
    leave the running statistics of batch norm alone where it is called at ``w + e``, so that they are updated once. The
    caller computes the gradients at ``w`` as always and calls ``step(closure)``; where no parameter has a gradient that
    was computed since the last step, as in trainers that hand the whole step over, the closure is called for that too,
    first. The weights return to ``w`` exactly (a copy is kept meanwhile). A zero gradient norm gives ``e = 0``.
    `CLARS` as a base is LARS: it is shown no micro-batches.

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
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers (FSDP1), or
            some of the layers (ZeroRedundancyOptimizer).
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
        refuse_zero("SAM's radius", "each process sees the gradients of its layers alone")
        inner = build_base(params, lr, {"name": "nesterov"} if base is None else dict(base), maximize)
        super().__init__(inner, {"rho": rho, "adaptive": adaptive, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer too."""
        if "rho" in param_group:
            check_number("rho", param_group["rho"])
        super().add_param_group(param_group)

    def __getattr__(self, name: str) -> Any:
        if name in ("train", "eval", "trust_ratios", "share_with") and "inner" in vars(self):
            return getattr(self.inner, name)
        raise AttributeError(f"SAM has no attribute {name!r}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; what is left of them does not count as computed."""
        super().zero_grad(set_to_none)
        self._mark_used()

    def _gradients(self) -> list[Tensor]:
        """All gradients, or this process' parts of them."""
        return [local(p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _mark_used(self) -> None:
        """Mark the gradients, so that the next step knows them from those that are new or have been written to."""
        for grad in self._gradients():
            grad.used_at_version = grad._version

    def _has_fresh_gradients(self) -> bool:
        return any(getattr(grad, "used_at_version", None) != grad._version for grad in self._gradients())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Climb by ``e``, have loss and gradients computed there, go back, and take the base optimizer's step.

        Args:
            closure: Computes loss and gradients anew; called with gradients enabled, at ``w + e``, and before that at
                ``w`` where no gradient has been computed since the last step. May be missing where all gradients are
                zero, so that there is no climb.

        Returns:
            What the closure returned first: the loss at ``w`` if it was called there, else that at ``w + e``.

        Raises:
            RuntimeError: Without a closure, or for a sparse gradient.
            ValueError: For parameters which FSDP1 has flattened.
        """
        losses = []
        if closure is not None and not self._has_fresh_gradients():
            with torch.enable_grad():
                losses.append(closure())
        lists = self.with_gradients()
        climbs, length = self._climbs(lists)
        if closure is None and not (lists and bool(length == 0)):
            raise RuntimeError("SAM.step needs a closure that computes the gradients anew")
        if closure is not None:
            weights = [[local(param) for param in params] for params in lists]
            before = [[weight.clone() for weight in some] for some in weights]
            for some, climb in zip(weights, climbs, strict=True):
                torch._foreach_add_(some, climb)
            try:
                with torch.enable_grad():
                    losses.append(closure())
            finally:
                for some, old in zip(weights, before, strict=True):
                    torch._foreach_copy_(some, old)
        self.step_inside()
        self._mark_used()
        return losses[0] if losses else None

    def _climbs(self, lists: list[list[Tensor]]) -> tuple[list[list[Tensor]], Tensor | None]:
        """The vectors ``e``, and the norm by which they have been divided, 0-dim; None without gradients."""
        group_of = {param: group for group in self.param_groups for param in group["params"]}
        found, norm_parts = [], []
        for params in lists:
            for param in params:
                refuse_flat(param, "SAM")
            dtype, spread = wide_dtype(params[0]), spread_of(params[0])  # float16 would overflow
            scales = [asam_scale(p).to(dtype) if group_of[p]["adaptive"] else None for p in params]
            grads = [local(p.grad, p).to(dtype) for p in params]
            grads = [g if scale is None else g * scale for g, scale in zip(grads, scales, strict=True)]
            norm_parts.append(norms(grads) if spread is None else spread.norms(norms(grads)))
            found.append([g if scale is None else g * scale for g, scale in zip(grads, scales, strict=True)])
        if not lists:
            return [], None
        dtype = torch.float32 if norm_parts[0].device.type == "mps" else torch.float64
        total = torch.cat([part.to(norm_parts[0].device, dtype) for part in norm_parts]).norm()
        inverse = torch.where(total > 0, 1 / total, torch.zeros_like(total))
        climbs = []
        for params, directions in zip(lists, found, strict=True):
            signed = [(-1.0 if group_of[p]["maximize"] else 1.0) * group_of[p]["rho"] for p in params]
            climb = torch._foreach_mul(directions, scalar_for(directions[0], inverse))
            torch._foreach_mul_(climb, signed)
            climbs.append([e.to(p.dtype) for e, p in zip(climb, params, strict=True)])
        return climbs, total


def asam_scale(param: Tensor) -> Tensor:
    """ASAM's ``T`` for a parameter, or for this process' part of it."""
    values = local(param)
    return values.abs() + ASAM_ETA if param.ndim > 1 else torch.ones_like(values)


OPTIMIZERS = {"sam": SAM}
