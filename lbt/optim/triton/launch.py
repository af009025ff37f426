"""Starting the kernels of LARS and LAMB for one plan; vectors by tensor have the plan's order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lbt.optim.triton.plan import Plan

BLOCK = 1024  # partial sums that are added at a time
WARPS = 8
SUMS = torch.float64  # of squares, which leave float32 where their roots do not


def _start(name: str, plan: Plan, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    from lbt.optim.triton import kernels

    if 0 not in grid:
        types = {dtype: getattr(kernels.tl, str(dtype).removeprefix("torch.")) for dtype in (plan.dtype, plan.acc)}
        kernel = getattr(kernels, name)
        if "table" in kernel.arg_names:
            arguments = (plan.table, plan.owner, plan.first, plan.numel, *arguments)
            constants |= {"CHUNK": plan.chunk, "TYPE": types[plan.dtype], "ALIGNED": plan.aligned}
        with plan.here():
            kernel[grid](*arguments, ACC=types[plan.acc], num_warps=WARPS, enable_fp_fusion=True, **constants)


def scalar(plan: Plan, value: float | Tensor) -> Tensor:
    """A number or a 0-dim tensor as one that the kernels can read; waits for no GPU."""
    if isinstance(value, Tensor) and value.device == plan.device:
        return value
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return value.to(plan.device)
    return torch.full((), float(value), dtype=plan.acc, device=plan.device)


def gradient_norms(plan: Plan) -> Tensor:
    """Norms of all gradients, shape ``[n]``."""
    sums, n = plan.empty(2, plan.chunks, dtype=SUMS), len(plan.params)
    _start("square", plan, (plan.chunks,), plan.numel, sums, n, plan.chunks, WEIGHTS=False, JOINT=False)
    found = plan.empty(n, dtype=SUMS)
    _start("norms", plan, (n,), sums[1], plan.first, found, BLOCK=BLOCK)
    return found


def trust_ratios(plan: Plan, hyper: Tensor, sums: Tensor) -> Tensor:
    """Trust ratios ``[adapted]`` from the sums of squares by chunk, ``[2, chunks]``, of weights and updates."""
    ratios = plan.empty(plan.adapted)
    _start("trust", plan, (plan.adapted,), sums, plan.first, hyper, ratios, sums.shape[1], BLOCK=BLOCK)
    return ratios


def _constants(plan: Plan, trust: dict[str, float | None], rule: list[float]) -> Tensor:
    """``hyper``: those of the trust ratio ``eta * ||w|| / (||u|| + of_weight * ||w|| + added)``, then the rule's own.

    ``weight``, ``other`` and ``ratio`` are upper bounds of the norms and of the ratio, or None.
    """
    numbers = {"eta": 1.0, "of_weight": 0.0, "added": 0.0, "weight": None, "other": None, "ratio": None} | trust
    return plan.hyper([math.inf if number is None else number for number in numbers.values()] + rule)


def lars_constants(plan: Plan, group: dict[str, Any]) -> Tensor:
    """What LARS's kernels read as ``hyper``: momentum, decay, and what of the weights a joint norm contains."""
    decay, clamp = group["weight_decay"], group["norm_clamp"]
    trust = {"eta": group["eta"], "added": group["eps"], "weight": clamp, "other": clamp}
    if group["denominator"] == "sum":
        trust["of_weight"] = decay
    elif group["denominator"] == "bare":
        trust["added"] += decay
    return _constants(plan, trust, [group["momentum"], decay, -decay if group["maximize"] else decay])


def lars_sums(plan: Plan, hyper: Tensor, joint: bool) -> Tensor:
    """Sums of squares by chunk, ``[2, chunks]``, of weights and gradients, ``joint``: with decay."""
    chunks = plan.adapted_chunks
    sums = plan.empty(2, chunks, dtype=SUMS)
    _start("square", plan, (chunks,), hyper, sums, len(plan.params), chunks, WEIGHTS=True, JOINT=joint)
    return sums


def lars(plan: Plan, hyper: Tensor, scales: Tensor | None, lr: float | Tensor, group: dict[str, Any]) -> None:
    """Update weights and momentum buffers; ``scales`` are the factors of the first ``adapted`` tensors."""
    rate = scalar(plan, lr)
    _start(
        "lars", plan, (plan.chunks,), hyper, rate if scales is None else scales, rate, len(plan.params), plan.adapted,
        MOMENTUM=group["momentum"] != 0, NESTEROV=bool(group["nesterov"]), MAXIMIZE=bool(group["maximize"]),
        INSIDE=group["momentum_placement"] == "inside" or group["momentum"] == 0,
    )  # fmt: skip


def lamb_constants(plan: Plan, group: dict[str, Any]) -> Tensor:
    """What LAMB's kernels read as ``hyper``; the last is the correction where there is none."""
    (beta1, beta2), trust = group["betas"], {"weight": group["norm_clamp"], "ratio": group["ratio_clip"]}
    return _constants(plan, trust, [1 - beta1, beta2, 1 - beta2, group["eps"], group["weight_decay"], 1.0])


def lamb_moments(
    plan: Plan, hyper: Tensor, corrections: tuple[Tensor, Tensor], clip: Tensor | None, group: dict[str, Any]
) -> Tensor:
    """Update the moments; give the sums of squares by chunk, ``[2, chunks]``, of weights and updates."""
    sums = plan.empty(2, plan.chunks, dtype=SUMS)
    factor = hyper if clip is None else scalar(plan, clip)
    _start(
        "moments", plan, (plan.chunks,), hyper, sums, factor, *corrections, len(plan.params), plan.chunks, plan.adapted,
        CLIP=clip is not None, MAXIMIZE=bool(group["maximize"]),
    )  # fmt: skip
    return sums


def lamb(
    plan: Plan, hyper: Tensor, corrections: tuple[Tensor, Tensor], ratios: Tensor | None, lr: float | Tensor
) -> None:
    """Update the weights from the moments; without ``ratios`` all of them are 1."""
    rate = scalar(plan, lr)
    scales, scaled = (rate, 0) if ratios is None else (ratios, plan.adapted)
    _start("lamb", plan, (plan.chunks,), hyper, scales, rate, *corrections, len(plan.params), scaled, plan.adapted)
