"""Muon: orthogonalised momentum for matrices, AdamW for the rest (Jordan et al. 2024; Liu et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_betas, check_number
from lbt.optim.layerwise import Bucket, LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.tensors import norms, scalar_for

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al. 2024
PRECISIONS = ("bf16", "full")
SCALES = ("match_rms_adamw", "original")


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Push the singular values of matrices (``[..., rows, columns]``) towards 1, into about [0.7, 1.2].

    ``steps`` Newton-Schulz iterations ``X <- a X + (b A + c A A) X`` with ``A = X X^T``, from ``X / ||X||``. The result
    has the type ``dtype``.
    """
    a, b, c = COEFFICIENTS
    add_product = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    x = matrices.to(dtype)
    flip = x.shape[-1] < x.shape[-2]
    if flip:
        x = x.mT
    norm = norms([x] if x.ndim == 2 else list(x.unbind())).to(dtype)
    x = x / norm.reshape(-1, *[1] * (x.ndim - 1)).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if flip else x


def scale_of(shape: tuple[int, int], scale: str) -> float:
    """What the orthogonalised matrix of a shape is multiplied by, besides the learning rate."""
    rows, columns = shape
    return math.sqrt(max(1.0, rows / columns)) if scale == "original" else 0.2 * math.sqrt(max(rows, columns))


class Muon(LayerwiseOptimizer):
    r"""Muon: the momentum of a weight matrix is replaced by the nearest (semi-)orthogonal matrix.

    For ``ndim >= 2``, as matrices ``[out, everything else]``: ``b = mu * b + (1 - mu) * g``;
    ``u = mu * b + (1 - mu) * g`` (Nesterov) or ``b``; ``w -= lr * (scale * NS(u) + wd * w)``.
    For ``ndim <= 1``: AdamW with the same ``lr``, its ``betas`` and ``eps``, and no decay.

    This is ``torch.optim.Muon``, which takes nothing but 2-D tensors and loops over them, for whole networks: same
    rule and constants, convolutions as matrices, matrices of one shape in one batch, AdamW built in.

    * ``scale="match_rms_adamw"``: ``0.2 * sqrt(max(rows, columns))`` (Moonshot, Liu et al. 2025): the update has
      AdamW's usual size, so that one rate serves matrices and the rest. The default.
    * ``scale="original"``: ``sqrt(max(1, rows / columns))`` (Jordan et al.): lr about 0.02, and ``rest_lr`` about
      0.015, AdamW's rate as a multiple of ``lr``.

    A classifier's last layer and embeddings are matrices too here; the authors leave them to AdamW.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate.
        momentum: mu, in [0, 1).
        nesterov: Look ahead.
        weight_decay: wd, decoupled, of the matrices.
        ns_steps: Newton-Schulz iterations.
        ns_precision: "bf16" (as published) or "full", the parameter's own.
        scale: "match_rms_adamw" or "original".
        rest_lr: Rate of the rest, a multiple of ``lr``.
        betas: Decay rates of AdamW's moments, each in [0, 1).
        eps: AdamW's, added to the root of the second moment.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    counts_steps = True
    fixed = {"exclude_1d": True}  # noqa: RUF012

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.01,
        ns_steps: int = 5,
        ns_precision: str = "bf16",
        scale: str = "match_rms_adamw",
        rest_lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        maximize: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        for name in ("lr", "weight_decay", "rest_lr", "eps"):
            check_number(name, group[name])
        check_number("momentum", group["momentum"], high=1.0)
        steps = group["ns_steps"]
        check("ns_steps", steps, isinstance(steps, int) and 1 <= steps < 100, "a whole number from 1 to 99")
        check("ns_precision", group["ns_precision"], group["ns_precision"] in PRECISIONS, "bf16 or full")
        check("scale", group["scale"], group["scale"] in SCALES, " or ".join(SCALES))
        check_betas(group["betas"])

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        if any(param.grad is not None for param in group["params"]) or not group["params"]:
            group["step"].add_(1)  # without parameters: those of the group are on other processes
        for bucket in self.buckets(group):
            if group["maximize"]:
                bucket = bucket._replace(grads=torch._foreach_neg(bucket.grads))
            (self._matrices if bucket.adapted else self._rest)(bucket, group)

    def _matrices(self, bucket: Bucket, group: dict[str, Any]) -> None:
        params, grads, mu = bucket.params, bucket.grads, group["momentum"]
        buffers = self.state_tensors(bucket.layers, "momentum_buffer")
        torch._foreach_lerp_(buffers, grads, 1 - mu)
        update = torch._foreach_lerp(grads, buffers, mu) if group["nesterov"] else buffers
        lr = scalar_for(params[0], group["lr"])
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        together: dict[Any, list[int]] = {}
        for i, layer in enumerate(bucket.layers):
            if layer.numel():
                together.setdefault((layer.shape[0], layer.numel() // layer.shape[0]), []).append(i)
        for shape, members in together.items():
            rate = lr * scale_of(shape, group["scale"])
            matrices = [bucket.whole(i, update[i]).reshape(shape) for i in members]
            for i, move in zip(members, self._moves(matrices, group), strict=True):
                part = bucket.part(move.view(bucket.layers[i].shape))
                if isinstance(rate, Tensor):
                    params[i].sub_(part.to(params[i].dtype) * rate)
                else:
                    params[i].sub_(part, alpha=rate)

    def _moves(self, matrices: list[Tensor], group: dict[str, Any]) -> Iterator[Tensor]:
        """Orthogonalised matrices of one shape: in one batch, which on a CPU only costs copies."""
        dtype = torch.bfloat16 if group["ns_precision"] == "bf16" else matrices[0].dtype
        if len(matrices) > 1 and matrices[0].device.type != "cpu":
            yield from orthogonalise(torch.stack(matrices), group["ns_steps"], dtype).unbind()
            return
        for matrix in matrices:
            yield orthogonalise(matrix, group["ns_steps"], dtype)

    def _rest(self, bucket: Bucket, group: dict[str, Any]) -> None:
        params, grads, (beta1, beta2) = bucket.params, bucket.grads, group["betas"]
        first, second = (self.state_tensors(bucket.layers, key) for key in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        step = group["step"].to(params[0].device)
        lr = scalar_for(params[0], group["lr"])
        update = torch._foreach_sqrt(second)
        torch._foreach_mul_(update, scalar_for(params[0], (1 - beta2**step).rsqrt()))
        torch._foreach_add_(update, group["eps"])
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, first)
        torch._foreach_mul_(update, scalar_for(params[0], group["rest_lr"] / (1 - beta1**step)) * lr)
        torch._foreach_sub_(params, update)


OPTIMIZERS = {"muon": Muon}
