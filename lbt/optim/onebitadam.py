"""1-bit Adam: Adam whose momentum is exchanged by its signs (Tang et al. 2021, arXiv 2102.02888)."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_betas, check_number
from lbt.optim.gradients import Gradients, side_by_side
from lbt.optim.layerwise import LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.onebit import Signs
from lbt.optim.tensors import scalar_for
from lbt.optim.workers import LocalGradients


def exact_steps(group: dict[str, Any]) -> int:
    """Steps of a layer before its freeze: at least one, without which there is no second moment."""
    return max(1, group["freeze_steps"])


class OneBitOptimizer(LocalGradients, LayerwiseOptimizer):
    """What 1-bit Adam and 1-bit LAMB share: until a layer's freeze the mean gradient, from then on signs.

    Each layer counts its own steps, so that one which joins later has a warm-up of its own before its freeze.
    """

    per_worker = ("worker_error",)
    per_server = ("server_error",)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        self.check_workers(group)
        for name in ("lr", "eps", "weight_decay"):
            check_number(name, group[name])
        check_betas(group["betas"])
        steps = group["freeze_steps"]
        whole = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0
        check("freeze_steps", steps, whole, "a whole number >= 0")

    def begin_step(self) -> None:
        """See that gradients are there."""
        self.begin_collected()
        self._exchange = self.exchange()

    def end_step(self) -> None:
        """Count what was sent."""
        self.end_collected(self.__dict__.pop("_exchange"))

    def _forget_steps(self) -> None:
        super()._forget_steps()
        self.forget_joined()
        self._plans: dict[Any, tuple[Any, Signs, Tensor | None]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The state of this process' workers, and of all after `consolidate_state_dict`."""
        return self.whole_state_dict(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` gave; raises ValueError for that of another number of workers."""
        super().load_state_dict(self.own_state_dict(state_dict))

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        index = next(i for i, known in enumerate(self.param_groups) if known is group)
        for found in self.collected(index, self._exchange):
            for layer in found.layers:
                self.state[layer]["step"] = int(self.state[layer].get("step", 0)) + 1
            warm = [self.state[layer]["step"] <= exact_steps(group) for layer in found.layers]
            if any(warm):
                self.update_warm(found.only(warm), group)
            if not all(warm):
                self.update_frozen(found.only([not one for one in warm]), group)

    def update_warm(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step with the mean gradient, for layers before their freeze."""
        raise NotImplementedError

    def update_frozen(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step with what has been exchanged by signs, for layers after their freeze."""
        raise NotImplementedError

    def moments(self, found: Gradients, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Adam's two moments after the mean gradient; lists like the layers."""
        mean = self._exchange.mean(found.rows)
        if group["maximize"]:
            mean.neg_()
        grads, (beta1, beta2) = found.views(mean), group["betas"]
        first, second = (self.state_tensors(found.layers, key) for key in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        return first, second

    def plan(self, found: Gradients, lengths: list[int]) -> tuple[Signs, Tensor | None]:
        """How the layers' momenta are sent, and which elements of them are: those whose second moment is not zero.

        A sign cannot say 0, and an element that never had a gradient would be divided by eps.
        """
        known = self._plans.get(found.key)
        if known is None or len(known[0]) != len(found.layers) or any(map(operator.is_not, known[0], found.layers)):
            mask = side_by_side([self.state[layer]["exp_avg_sq"] for layer in found.layers]).ne(0)
            whole = mask.device.type == "cpu" and bool(mask.all())  # elsewhere asking would wait for the device
            mask = None if whole else mask.to(found.rows.dtype)
            known = self._plans[found.key] = (found.layers, Signs(lengths, self._exchange), mask)
        return known[1], known[2]

    def exchanged_momentum(
        self, found: Gradients, group: dict[str, Any], lengths: list[int], scaling: Tensor | None = None
    ) -> Tensor:
        """The new momentum ``[d]``: the mean by signs of ``beta1 * m + (1 - beta1) * g_i``.

        Args:
            found: The gradients.
            group: Of the layers.
            lengths: Of the pieces with a scale of their own.
            scaling: ``[d]``; momenta are multiplied by it for the way.
        """
        plan, mask = self.plan(found, lengths)
        exchange, here, beta1 = self._exchange, self.here, group["betas"][0]
        momentum = self.joined_state(found, "exp_avg")
        errors = self.joined_state(found, "worker_error", here, plan.length)

        def share_out(error: Tensor) -> None:
            plan.only_own(exchange.summed(error))

        server_error = self.joined_state(found, "server_error", None, plan.length, share_out)
        sent = found.rows.mul_((beta1 - 1) if group["maximize"] else (1 - beta1)).add_(momentum, alpha=beta1)
        if scaling is not None:
            sent.mul_(scaling)
        mean = plan.mean(sent, errors, server_error, exchange, mask)
        if scaling is not None:
            mean.div_(scaling)
        return mean

    def directions(
        self, found: Gradients, first: list[Tensor], second: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """Adam's ``m / (sqrt(v) + eps)`` with both corrected for bias, v as of its freeze; fresh tensors."""
        beta1, beta2 = group["betas"]
        update = torch._foreach_sqrt(second)
        if group["bias_correction"]:
            steps = [self.state[layer]["step"] for layer in found.layers]
            seen = [min(step, exact_steps(group)) for step in steps]
            torch._foreach_mul_(update, [(1 - beta2**step) ** -0.5 for step in seen])
        torch._foreach_add_(update, group["eps"])
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, first)
        if group["bias_correction"]:
            torch._foreach_mul_(update, [1 / (1 - beta1**step) for step in steps])
        return update


class OneBitAdam(OneBitOptimizer):
    r"""1-bit Adam: Adam until its second moment is stable, then with a momentum that is exchanged by its signs.

    Until ``freeze_steps``: Adam of the mean gradient, with decoupled decay. From then on v is frozen; ``m_i = beta1 * m
    + (1 - beta1) * g_i`` of each worker, ``m`` their mean by signs with error feedback (`lbt.optim.onebit`, a scale a
    layer); ``w -= lr * (m / (sqrt(v) + eps) + wd * w)``. Frozen v keeps the bias correction of its last step. An
    element whose v is zero at the freeze has never had a gradient: it is neither sent nor, but for decay, moved.

    A NaN or an infinity of one worker reaches all of them, in the layer that it is in.

    Args:
        params: Tensors, or groups of them, which may override each argument below but ``workers``.
        lr: Learning rate.
        workers: Workers on this process; None is 1. See `lbt.optim.workers.LocalGradients`.
        freeze_steps: Steps of a layer before v is frozen, at least one is made; the paper has 15 to 20 % of a training.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, decoupled, times lr.
        bias_correction: Divide the moments by ``1 - beta**t``; the public implementation does not.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers.
    """

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        workers: int | None = None,
        freeze_steps: int = 100,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        maximize: bool = False,
    ): ...

    def update_warm(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step of Adam."""
        self._apply(found, *self.moments(found, group), group)

    def update_frozen(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step with the momentum that the workers have received."""
        lengths = [layer.numel() for layer in found.layers]
        momentum = self.exchanged_momentum(found, group, lengths)
        self.joined_state(found, "exp_avg").copy_(momentum)
        self._apply(found, *(self.state_tensors(found.layers, key) for key in ("exp_avg", "exp_avg_sq")), group)

    def _apply(self, found: Gradients, first: list[Tensor], second: list[Tensor], group: dict[str, Any]) -> None:
        update = self.directions(found, first, second, group)
        if group["weight_decay"]:
            torch._foreach_add_(update, found.layers, alpha=group["weight_decay"])
        torch._foreach_mul_(update, scalar_for(update[0], group["lr"]))
        torch._foreach_sub_(found.layers, update)


OPTIMIZERS = {"onebit_adam": OneBitAdam}
