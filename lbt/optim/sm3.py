"""SM3-II: square-root of minima of sums of maxima of squared gradients (Anil et al. 2019, arXiv 1901.11150)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check_number
from lbt.optim.layerwise import Bucket, LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.tensors import scalar_for


def axis_maxima(x: Tensor, axes: list[int]) -> list[Tensor]:
    """The maxima of ``x`` over all ``axes`` but one, for each of them, with these axes kept as 1.

    By halves: two passes over ``x``, however many axes there are.
    """
    if len(axes) == 1:
        return [x]
    left, right = axes[: len(axes) // 2], axes[len(axes) // 2 :]
    return axis_maxima(x.amax(right, keepdim=True), left) + axis_maxima(x.amax(left, keepdim=True), right)


class SM3(LayerwiseOptimizer):
    r"""SM3-II: AdaGrad whose second moments take one number a row and column in place of one a weight.

    ``nu = min_r mu_r + g**2``, the minimum over a weight's rows, columns, ... (its axes ``r``);
    ``mu_r = max over the other axes of nu``; ``u = g / sqrt(nu)``; ``m = mu * m + (1 - mu) * u``; ``w -= lr * m``.
    For vectors this is diagonal AdaGrad. With ``momentum=0`` the state of a layer is a handful of vectors, which is
    what the rule is for; the paper trains BERT at large batches with it, momentum 0.9.

    Some texts on large batches spell SAM's name to this rule: it has nothing to do with sharpness.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate: about the change of a weight in the first step. As in AdaGrad it decays by itself.
        momentum: mu of the moving average of the updates, in [0, 1).
        weight_decay: wd, decoupled (``w -= lr * wd * w``); not in the paper.
        eps: Added to nu, so that a weight whose gradients were all zero stays.
        exclude_1d: Do not decay tensors of ``ndim <= 1``.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    cpu_bucket = 2**20

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-30,
        exclude_1d: bool = True,
        maximize: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        check_number("lr", group["lr"])
        check_number("momentum", group["momentum"], high=1.0)
        check_number("weight_decay", group["weight_decay"])
        check_number("eps", group["eps"])

    def axes(self, layer: Tensor, like: Tensor) -> list[Tensor]:
        """The maxima along each axis ``r`` of a layer, shapes ``[1, .., n_r, .., 1]``, made as zeros like ``like``."""
        state, count = self.state[layer], max(layer.ndim, 1)
        for r in range(count):
            if f"axis_{r}" not in state:
                shape = [n if i == r else 1 for i, n in enumerate(layer.shape)]
                state[f"axis_{r}"] = like.new_zeros(shape)
            state[f"axis_{r}"] = state[f"axis_{r}"].to(like.dtype)  # an older state has float16
        return [state[f"axis_{r}"] for r in range(count)]

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        for bucket in self.buckets(group):
            full = [i for i, layer in enumerate(bucket.layers) if layer.numel()]
            if full:
                self._update(bucket.only(full), group)

    def _update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        params, mu = bucket.params, group["momentum"]
        grads = [bucket.whole(i, grad) for i, grad in enumerate(bucket.grads)]
        buffers = self.state_tensors(bucket.layers, "momentum_buffer") if mu else []
        axes = [self.axes(layer, grad) for layer, grad in zip(bucket.layers, grads, strict=True)]
        nu = torch._foreach_addcmul([reduce(torch.minimum, own) for own in axes], grads, grads, value=1.0)
        for own, fresh in zip(axes, nu, strict=True):
            for axis, maximum in zip(own, axis_maxima(fresh, list(range(fresh.ndim)) or [0]), strict=True):
                axis.copy_(maximum)
        torch._foreach_add_(nu, max(group["eps"], torch.finfo(params[0].dtype).tiny))
        torch._foreach_rsqrt_(nu)
        torch._foreach_mul_(nu, grads)
        update = [bucket.part(whole) for whole in nu]
        if group["maximize"]:
            torch._foreach_neg_(update)
        if mu:
            torch._foreach_lerp_(buffers, update, 1 - mu)
            update = buffers
        lr = scalar_for(params[0], group["lr"])
        if group["weight_decay"] and bucket.adapted:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_sub_(params, torch._foreach_mul(update, lr))


OPTIMIZERS = {"sm3": SM3}
