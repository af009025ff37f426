"""LARS: layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv 1708.03888, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_number
from lbt.optim.layerwise import Bucket, LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.tensors import (
    CPU_KERNEL_DTYPES,
    safe_ratio,
    same_layout,
    scalar,
    scalar_for,
    scaled_by_layer,
    sum_norms,
    wide_dtype,
)
from lbt.optim.triton import launch
from lbt.optim.triton.plan import Plan

DENOMINATORS = ("sum", "joint", "bare")
PLACEMENTS = ("inside", "outside")
EXACT = 2.0**-20  # below it `1 - (1 - x)`, which the fused kernel computes in double, is no longer x in float32


def lars_ratios(bucket: Bucket, group: dict[str, Any], factors: Tensor | None = None) -> Tensor:
    """Trust ratios ``eta * ||w|| / denominator`` of ``n`` layers, shape ``[n]``; 1 where a norm is zero.

    ``factors`` (shape ``[n]``) multiply the gradients' norms, or are None for 1.
    """
    wd = group["weight_decay"]
    weight = bucket.norms(bucket.params)
    if group["denominator"] == "joint" and wd:
        sign = -1.0 if group["maximize"] else 1.0
        gradient = bucket.whole_norms(sum_norms(bucket.grads, bucket.params, sign * wd))
    else:
        gradient = bucket.norms(bucket.grads)
    if factors is not None:
        gradient = gradient * factors
    if group["norm_clamp"] is not None:
        weight, gradient = weight.clamp(max=group["norm_clamp"]), gradient.clamp(max=group["norm_clamp"])
    added = {"sum": wd * weight, "joint": 0.0, "bare": wd}[group["denominator"]]
    ratios = safe_ratio(group["eta"] * weight, gradient + added + group["eps"], (weight > 0) & (gradient > 0))
    return ratios.to(wide_dtype(bucket.params[0]))


class LARS(LayerwiseOptimizer):
    r"""LARS: SGD with momentum whose rate is scaled, layer by layer, by a trust ratio of norms.

    ``ratio = eta * ||w|| / (||g|| + wd * ||w|| + eps)``; ``b = mu * b + lr * ratio * (g + wd * w)``; ``w -= b``.
    Biases and norm layers (``ndim <= 1``) get neither decay nor ratio; a zero norm gives ratio 1.

    The defaults are the published Algorithm 1 with the usual exclusion of biases and norms. Variants, by argument:

    * ``denominator``: "sum" is ``||g|| + wd * ||w||`` (paper, MLPerf, timm); "joint" is ``||g + wd * w||``
      (facebookresearch/barlowtwins, optax, released TVLARS; the norm tested for zero and clamped is then this one);
      "bare" is ``||g|| + wd`` (the text of eq. 2 in the TVLARS paper).
    * ``momentum_placement``: "inside" has the rate in the buffer (paper, MLPerf, optax); "outside" is
      ``b = mu * b + ratio * (g + wd * w); w -= lr * b`` (timm, barlowtwins). Equal only while lr is constant.
    * ``nesterov``: with ``u`` what was added to the buffer, the step is ``mu * b + u`` in place of ``b``.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate, dimensionless, multiplied by the trust ratio; a tensor (of one element) can be changed in a
            CUDA graph.
        momentum: mu, in [0, 1).
        weight_decay: wd, added to the gradient (not decoupled).
        eta: Trust coefficient.
        eps: Added to the denominator.
        denominator: "sum", "joint" or "bare".
        momentum_placement: "inside" or "outside".
        nesterov: Look ahead; needs momentum.
        exclude_1d: Leave tensors of ``ndim <= 1`` without decay and adaptation.
        norm_clamp: Clamp both norms to [0, norm_clamp] (released TVLARS: 10), or None.
        maximize: Go up the gradient.
        fused: On a GPU, use our Triton kernels (needs the package triton): a few launches a step instead of some for
            each tensor. Tensors that they cannot take, and those on a CPU, take the paths of ``fused=False``.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    cpu_bucket = 2**20
    heavy_ball = True

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        eta: float = 1e-3,
        eps: float = 0.0,
        denominator: str = "sum",
        momentum_placement: str = "inside",
        nesterov: bool = False,
        exclude_1d: bool = True,
        norm_clamp: float | None = None,
        maximize: bool = False,
        fused: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        check_number("lr", group["lr"])
        check_number("momentum", group["momentum"], high=1.0)
        check_number("weight_decay", group["weight_decay"])
        check_number("eta", group["eta"], open_low=True)
        check_number("eps", group["eps"])
        if group["norm_clamp"] is not None:
            check_number("norm_clamp", group["norm_clamp"], open_low=True)
        check("denominator", group["denominator"], group["denominator"] in DENOMINATORS, "sum, joint or bare")
        check(
            "momentum_placement", group["momentum_placement"], group["momentum_placement"] in PLACEMENTS,
            "inside or outside",
        )  # fmt: skip
        check("nesterov", group["nesterov"], not (group["nesterov"] and group["momentum"] == 0), "off when momentum=0")

    def factors(self, group: dict[str, Any]) -> tuple[float | Tensor, float | Tensor]:
        """What this step multiplies the learning rate and the trust ratios by; TVLARS's phi enters here."""
        return 1.0, 1.0

    def ratios(self, bucket: Bucket, lr: float | Tensor, group: dict[str, Any]) -> Tensor:
        """Trust ratios of a bucket's layers, shape ``[n]``; LARC's clip and CLARS's norms enter here."""
        return lars_ratios(bucket, group)

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        of_lr, of_ratio = self.factors(group)
        lr = scalar(group["lr"]) * of_lr
        plans, rest = self.plans(group, ["momentum_buffer"] if group["momentum"] else [])
        for plan in plans:
            self.keep_ratios(plan.params[: plan.adapted], triton_update(plan, lr, of_ratio, group))
        for bucket in self.buckets(group, rest):
            scales = None
            if bucket.adapted:
                ratios = self.ratios(bucket, lr, group)
                self.keep_ratios(bucket.layers, ratios)
                scales = ratios * of_ratio
            buffers = self.state_tensors(bucket.layers, "momentum_buffer") if group["momentum"] else []
            fast = self.runs_on_cpu_kernels(bucket) and bucket.params[0].dtype in CPU_KERNEL_DTYPES
            update = cpu_kernel_update if fast else foreach_update
            update(bucket, buffers, lr, scales, group)


def foreach_update(
    bucket: Bucket, buffers: list[Tensor], lr: float | Tensor, scales: Tensor | None, group: dict[str, Any]
) -> None:
    """Apply the rule to lists of tensors; ``scales`` (shape ``[n]``) are the trust ratios, or None for 1."""
    params, grads, mu = bucket.params, bucket.grads, group["momentum"]
    decay = group["weight_decay"] if bucket.adapted else 0.0
    inside = group["momentum_placement"] == "inside" or mu == 0
    lr = scalar_for(params[0], lr)
    # `update` is a fresh list, the layers' steps: gradients are never written to
    update = torch._foreach_mul(grads, -1.0 if group["maximize"] else 1.0)
    if decay:
        torch._foreach_add_(update, params, alpha=decay)
    if scales is not None:
        scaled_by_layer(update, scales * lr if inside else scales)
    elif inside:
        torch._foreach_mul_(update, lr)
    if mu:
        torch._foreach_mul_(buffers, mu)
        torch._foreach_add_(buffers, update)
        if group["nesterov"]:
            torch._foreach_add_(update, buffers, alpha=mu)
        else:
            update = buffers
    if inside:
        torch._foreach_sub_(params, update)
    else:
        torch._foreach_sub_(params, torch._foreach_mul(update, lr))


def triton_update(plan: Plan, lr: float | Tensor, of_ratio: float | Tensor, group: dict[str, Any]) -> Tensor:
    """The same by the kernels of `lbt.optim.triton`; gives the trust ratios of the plan's adapted tensors."""
    hyper = launch.lars_constants(plan, group)
    joint = group["denominator"] == "joint" and group["weight_decay"] != 0
    ratios = launch.trust_ratios(plan, hyper, launch.lars_sums(plan, hyper, joint))
    launch.lars(plan, hyper, ratios * of_ratio, lr, group)
    return ratios


def cpu_kernel_update(
    bucket: Bucket, buffers: list[Tensor], lr: float | Tensor, scales: Tensor | None, group: dict[str, Any]
) -> None:
    """The same on CPU by torch's fused SGD kernel: all of a tensor's update in one pass over memory.

    The kernel does ``b = mu * b + (1 - dampening) * (g + wd * w); w -= lr * b``: the ratio enters as dampening.
    Nesterov's ``w -= s * (g + wd * w) + lr * mu * b`` takes it twice, first without momentum for the first term. That
    leaves ``v = w - s * (g + wd * w)``, and what the buffer needs is ``g + wd * w = (g + wd * v) / (1 - s * wd)``.
    """
    lr, mu, count = float(lr), group["momentum"], len(bucket.params)
    decay = group["weight_decay"] if bucket.adapted else 0.0
    inside = group["momentum_placement"] == "inside"
    width = count if scales is None else 1  # layers which share a ratio share a call
    factors = [1.0] if scales is None else scales.tolist()
    for i, factor in enumerate(factors):
        piece = slice(i, i + width)
        params, grads, buffer = bucket.params[piece], bucket.grads[piece], buffers[piece]
        inner, outer = (lr * factor, 1.0) if inside else (factor, lr)
        if not mu:
            inner, outer = 1.0, lr * factor  # without momentum the kernel ignores dampening
        tensors = zip(params, grads, buffer, strict=True) if mu else zip(params, grads, strict=True)
        left = 1.0 - inner * outer * decay
        if inner < EXACT or left < 0.5 or not all(same_layout(*together) for together in tensors):
            one = bucket.only(list(range(count))[piece])
            foreach_update(one, buffer, lr, None if scales is None else scales[piece], group)
            continue
        if group["nesterov"]:
            torch._fused_sgd_(
                params, grads, [], weight_decay=decay, momentum=0.0, lr=inner * outer, dampening=0.0,
                nesterov=False, maximize=group["maximize"], is_first_step=False,
            )  # fmt: skip
            inner, outer = inner / left, outer * mu
        torch._fused_sgd_(
            params, grads, buffer,
            weight_decay=decay, momentum=mu, lr=outer, dampening=1.0 - inner,
            nesterov=False, maximize=group["maximize"], is_first_step=False,
        )  # fmt: skip


OPTIMIZERS = {"lars": LARS}
