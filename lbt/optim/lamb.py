"""LAMB: layer-wise Adam for large batches (You et al. 2020, arXiv 1904.00962, Algorithm 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check_betas, check_number
from lbt.optim.layerwise import Bucket, LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.sharded import refuse_zero
from lbt.optim.tensors import safe_ratio, same_layout, scalar_for, scaled_by_layer, wide_dtype
from lbt.optim.triton import launch
from lbt.optim.triton.plan import Plan

MOMENTS = ["exp_avg", "exp_avg_sq"]
FOREVER = 1e30  # a step count at which Adam's bias correction is exactly 1


def lamb_ratios(bucket: Bucket, params: list[Tensor], update: list[Tensor], group: dict[str, Any]) -> Tensor:
    """Trust ratios ``||w|| / ||u||`` of ``n`` of a bucket's layers, shape ``[n]``; 1 where a norm is zero."""
    weight, update = bucket.norms(params), bucket.norms(update)
    if group["norm_clamp"] is not None:
        weight = weight.clamp(max=group["norm_clamp"])
    ratios = safe_ratio(weight, update, (weight > 0) & (update > 0)).to(wide_dtype(params[0]))
    return ratios if group["ratio_clip"] is None else ratios.clamp(max=group["ratio_clip"])


class LAMB(LayerwiseOptimizer):
    r"""LAMB: Adam's direction plus decay, rescaled layer by layer to the norm of the weights.

    ``r = m_hat / (sqrt(v_hat) + eps)``; ``u = r + wd * w``; ``w -= lr * ||w|| / ||u|| * u``; a zero norm gives ratio 1.

    The defaults are the published rule (v5: bias-corrected, every tensor decayed and adapted, as in Algorithm 2, optax
    and timm; the BERT reference program leaves biases and norms out: ``exclude_1d=True``). Variants, by argument:

    * v3: ``bias_correction=False``. * NVLAMB: ``grad_clip=1.0``, on the norm of all gradients (timm's default too).
    * LAMBC (Fong et al. 2020): ``ratio_clip=1.0``. * Released TVLARS code: ``bias_correction=False, norm_clamp=10.0``,
      and in Barlow Twins ``unit_ratio=True``, which makes it Adam with decoupled decay.

    Bias correction counts the steps of the parameter group (``group["step"]``) in which it had a gradient.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate: the relative change of a layer's weights in one step.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, decoupled: added to Adam's direction before the ratio.
        bias_correction: Divide the moments by ``1 - beta**t``.
        exclude_1d: Leave tensors of ``ndim <= 1`` without decay and adaptation.
        ratio_clip: Upper bound of the trust ratio, or None.
        grad_clip: Scale the gradients of all groups down to this global 2-norm, or None; ``p.grad`` stays as it is.
        norm_clamp: Clamp the weight norm to [0, norm_clamp], or None.
        unit_ratio: Trust ratio 1 everywhere.
        maximize: Go up the gradient.
        fused: On a GPU, use our Triton kernels; see `LARS`.

    Raises:
        ValueError: A bad argument, by its name and value; groups which differ in ``grad_clip``; complex or sparse
            parameters.
    """

    counts_steps = True

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        exclude_1d: bool = False,
        ratio_clip: float | None = None,
        grad_clip: float | None = None,
        norm_clamp: float | None = None,
        unit_ratio: bool = False,
        maximize: bool = False,
        fused: bool = False,
    ):
        self._clip: Tensor | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._clip = None

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        check_number("lr", group["lr"])
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        check_number("weight_decay", group["weight_decay"])
        for name in ("ratio_clip", "grad_clip", "norm_clamp"):
            if group[name] is not None:
                check_number(name, group[name], open_low=True)
        if group["grad_clip"] != self.param_groups[0]["grad_clip"]:
            raise ValueError(f"Invalid grad_clip: {group['grad_clip']!r} (must be the same in all groups)")
        if group["grad_clip"] is not None:
            refuse_zero("LAMB's grad_clip", "each process sees the gradients of its layers alone")

    def begin_step(self) -> None:
        """Find what all gradients are multiplied by: ``min(1, grad_clip / global norm)``, or None."""
        self._clip = None
        limit = self.param_groups[0]["grad_clip"]
        if limit is None:
            return
        parts = []
        for group in self.param_groups:
            plans, rest = self.plans(group, MOMENTS)
            parts += [launch.gradient_norms(plan) for plan in plans]
            parts += [bucket.norms(bucket.grads) for bucket in self.buckets(group, rest)]
        if parts:
            total = torch.cat([part.to(parts[0].device, torch.float64) for part in parts]).norm()
            self._clip = 1.0 / torch.clamp(total / limit, min=1.0)

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        plans, rest = self.plans(group, MOMENTS)
        if any(param.grad is not None for param in group["params"]) or not group["params"]:
            group["step"].add_(1)  # without parameters: those of the group are on other processes
        for plan in plans:
            ratios = triton_update(plan, self._clip, group)
            if ratios is not None:
                self.keep_ratios(plan.params[: plan.adapted], ratios)
        for bucket in self.buckets(group, rest):
            moments = [self.state_tensors(bucket.layers, key) for key in MOMENTS]
            update = cpu_kernel_update if self.runs_on_cpu_kernels(bucket) else foreach_update
            adapted = bucket.adapted and not group["unit_ratio"]
            ratios = update(bucket, *moments, adapted, self._clip, group)
            if adapted:
                self.keep_ratios(bucket.layers, ratios)


def foreach_update(
    bucket: Bucket, first: list[Tensor], second: list[Tensor], adapted: bool, clip: Tensor | None, group: dict[str, Any]
) -> Tensor | None:
    """Apply the rule to lists of tensors; return the trust ratios (shape ``[n]``), None where not adapted."""
    params, grads, (beta1, beta2) = bucket.params, bucket.grads, group["betas"]
    sign = -1.0 if group["maximize"] else 1.0
    if clip is not None or group["maximize"]:  # fresh lists: gradients are never written to
        factor = sign if clip is None else scalar_for(params[0], sign * clip)
        grads = torch._foreach_mul(grads, factor)
    torch._foreach_lerp_(first, grads, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
    update = torch._foreach_sqrt(second)
    if group["bias_correction"]:
        step = group["step"].to(params[0].device)
        torch._foreach_mul_(update, scalar_for(params[0], (1 - beta2**step).rsqrt()))
    torch._foreach_add_(update, group["eps"])  # a tensor here would be read back: foreach adds numbers only
    torch._foreach_reciprocal_(update)
    torch._foreach_mul_(update, first)
    if group["bias_correction"]:
        torch._foreach_mul_(update, scalar_for(params[0], 1 / (1 - beta1**step)))
    if bucket.adapted and group["weight_decay"]:
        torch._foreach_add_(update, params, alpha=group["weight_decay"])
    ratios, lr = None, scalar_for(params[0], group["lr"])
    if adapted:
        ratios = lamb_ratios(bucket, params, update, group)
        scaled_by_layer(update, ratios * lr)
    else:
        torch._foreach_mul_(update, lr)
    torch._foreach_sub_(params, update)
    return ratios


def triton_update(plan: Plan, clip: Tensor | None, group: dict[str, Any]) -> Tensor | None:
    """The same by the kernels of `lbt.optim.triton`; gives the trust ratios of the plan's adapted tensors."""
    hyper = launch.lamb_constants(plan, group)
    corrections = (hyper[-1], hyper[-1])
    if group["bias_correction"]:
        step, (beta1, beta2) = group["step"].to(plan.device), group["betas"]
        corrections = (1 / (1 - beta1**step), (1 - beta2**step).rsqrt())
    sums = launch.lamb_moments(plan, hyper, corrections, clip, group)
    ratios = None
    if not group["unit_ratio"]:
        ratios = launch.trust_ratios(plan, hyper, sums)
    launch.lamb(plan, hyper, corrections, ratios, group["lr"])
    return ratios


def cpu_kernel_update(
    bucket: Bucket, first: list[Tensor], second: list[Tensor], adapted: bool, clip: Tensor | None, group: dict[str, Any]
) -> Tensor | None:
    """The same on CPU by torch's fused Adam kernel, one tensor after another.

    The kernel, run at lr 1 on a scratch tensor of zeros, leaves ``-r`` there and updates both moments in one pass.
    """
    lr, clip_by = float(group["lr"]), 1.0 if clip is None else float(clip)
    decay = group["weight_decay"] if bucket.adapted else 0.0
    count = float(group["step"]) if group["bias_correction"] else FOREVER
    step = torch.tensor(count, dtype=torch.float32, device="cpu")
    options = {key: group[key] for key in ("eps", "maximize")}
    options["beta1"], options["beta2"] = group["betas"]
    scratch = bucket.params[0].new_empty(max(param.numel() for param in bucket.params))
    kept = []
    for i, (param, grad, m, v) in enumerate(zip(bucket.params, bucket.grads, first, second, strict=True)):
        if not same_layout(param, grad, m, v):
            one = bucket.only([i])
            kept.append(foreach_update(one, first[i : i + 1], second[i : i + 1], adapted, clip, group))
            continue
        if clip_by != 1.0:
            grad = grad * clip_by
        update = scratch[: param.numel()].as_strided(param.shape, param.stride()).zero_()
        torch._fused_adam_(
            [update], [grad], [m], [v], [], [step], lr=1.0, weight_decay=0.0, amsgrad=False, **options
        )  # fmt: skip
        if decay:
            update.sub_(param, alpha=decay)
        ratio = lamb_ratios(bucket, [param], [update], group) if adapted else None
        kept.append(ratio)
        param.add_(update, alpha=lr if ratio is None else lr * ratio.item())
    return torch.cat(kept) if adapted else None


OPTIMIZERS = {"lamb": LAMB}
