"""Optimizers that hold another one, which makes the update: what SAM and the packages' optimizers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.optim.generic import groups_of
from lbt.optim.layerwise import LayerwiseOptimizer, restore_wide_state
from lbt.optim.sharded import spread_of
from lbt.optim.workers import LocalGradients


class WrappingOptimizer(Optimizer):
    """Shares parameter groups and state with the optimizer inside, so that schedules and checkpoints see one.

    Args:
        inner: Makes the update.
        defaults: Further arguments, put into each group that lacks them.
    """

    def __init__(self, inner: Optimizer, defaults: dict[str, Any]):
        self.inner = inner
        super().__init__(inner.param_groups, {**inner.defaults, **defaults})
        self.param_groups, self.state = inner.param_groups, inner.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the optimizer inside too.

        Raises:
            ValueError: For a bad learning rate or decay, and for complex or sparse parameters.
        """
        if getattr(self, "state", None) is self.inner.state:  # else the constructor takes over what is inside
            known = len(self.param_groups)
            self.inner.add_param_group(*groups_of([param_group]))
            for group in self.param_groups[known:]:
                for name, value in self.defaults.items():
                    group.setdefault(name, value)
        else:
            super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "inner": self.inner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.inner.__setstate__({"state": self.state, "param_groups": self.param_groups})
        for group in self.param_groups:
            for name, value in self.defaults.items():
                if name != "differentiable":  # torch adds that to the defaults
                    group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` gave, for the optimizer inside too."""
        super().load_state_dict(state_dict)
        if isinstance(self.inner, LayerwiseOptimizer):
            restore_wide_state(self, state_dict)

    def step_inside(self) -> None:
        """Let the optimizer inside take its step, past torch's wrapper, which would call global step hooks again."""
        step = type(self.inner).step
        (step.__wrapped__ if getattr(step, "hooked", False) else step)(self.inner)

    def step_with(self, gradients: dict[Tensor, Tensor], factors: Sequence[float | Tensor] = ()) -> None:
        """Let the optimizer inside take its step with other gradients than ``p.grad``, which is left as it is.

        Args:
            gradients: Of the parameters that have one.
            factors: On the learning rate of each group; none: 1.
        """
        params = [param for group in self.param_groups for param in group["params"]]
        grads, rates = [param.grad for param in params], [group["lr"] for group in self.param_groups]
        try:
            for param in params:
                given = gradients.get(param)
                param.grad = None if given is None else given.to(param.dtype)
            for group, rate, factor in zip(self.param_groups, rates, factors, strict=False):
                on_host = isinstance(factor, Tensor) and factor.device.type == "cpu"  # reading it waits for no device
                group["lr"] = rate * (factor.item() if on_host else factor)
            self.step_inside()
        finally:
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate

    def with_gradients(self) -> list[list[Tensor]]:
        """Parameters that have a gradient, in lists of one device and dtype, spread over processes in one way.

        Raises:
            RuntimeError: For a sparse gradient.
        """
        lists: dict[Any, list[Tensor]] = {}
        for param in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if param.grad.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            lists.setdefault((param.device, param.dtype, spread_of(param)), []).append(param)
        return list(lists.values())


class WrappingWorkers(LocalGradients, WrappingOptimizer):
    """A rule for several workers around another optimizer, which may split the groups that are given: what AGVM and
    JointSpar share.

    Attributes:
        mark: Key of a group that `keep` has seen.
    """

    mark: ClassVar[str]

    def keep(self, groups: list[dict[str, Any]]) -> None:
        """Put `mark` into the groups that lack it.

        Args:
            groups: As they were given, parameters with or without a name.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer too."""
        if not self.param_groups or self.mark not in self.param_groups[0]:  # while the optimizer is made
            super().add_param_group(param_group)
            return
        groups = groups_of([param_group])
        super().add_param_group(groups[0])
        self.keep(groups)

    def __getattr__(self, name: str) -> Any:
        if name in ("train", "eval", "trust_ratios") and "inner" in vars(self):
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def state_dict(self) -> dict[str, Any]:
        """The state, which is the same on all processes."""
        return self.whole_state_dict(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` gave; raises ValueError for that of another number of workers."""
        super().load_state_dict(self.own_state_dict(state_dict))
