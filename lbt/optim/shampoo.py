"""Distributed Shampoo: blocked, grafted (Gupta et al. 2018, arXiv 1802.09568; Anil et al. 2020, arXiv 2002.09018)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_betas, check_number
from lbt.optim.layerwise import Bucket, LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.shares import refuse_others, shared
from lbt.optim.tensors import safe_ratio, scalar_for, scaled_by_layer, wide_dtype

GRAFTS = ("sgd", "adam", "none")


def inverse_root(matrices: Tensor, eps: float) -> Tensor:
    """``(S + eps * lambda_max(S) * I) ** (-1/4)`` of symmetric matrices, shape ``[n, m, m]``; I where S is zero.

    NaN where S is not finite: eigh would raise an error, and what has diverged should show as that.
    """
    finite = matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(finite, matrices, torch.zeros_like(matrices)))
    top = values[:, -1:].clamp(min=0)
    values = values.clamp(min=0) + eps * top
    values = torch.where(top > 0, values, torch.ones_like(values)).clamp(min=torch.finfo(values.dtype).tiny)
    root = (vectors * values.pow(-0.25).unsqueeze(-2)) @ vectors.mT
    return torch.where(finite, root, torch.full_like(root, math.nan))


def to_blocks(tensor: Tensor, size: int) -> Tensor:
    """A tensor, as a matrix ``[out, everything else]``, cut into equal blocks ``[n, rows, columns]``, zero-padded."""
    matrix = tensor.reshape(tensor.shape[0], -1)
    counts = [math.ceil(n / size) for n in matrix.shape]
    sides = [math.ceil(n / count) for n, count in zip(matrix.shape, counts, strict=True)]
    pads = [side * count - n for n, side, count in zip(matrix.shape, sides, counts, strict=True)]
    matrix = torch.nn.functional.pad(matrix, (0, pads[1], 0, pads[0]))
    return matrix.view(counts[0], sides[0], counts[1], sides[1]).transpose(1, 2).flatten(0, 1)


def from_blocks(blocks: Tensor, like: Tensor) -> Tensor:
    """Undo `to_blocks` for a tensor shaped like ``like``."""
    rows, columns = like.shape[0], like.numel() // like.shape[0]
    count = math.ceil(rows / blocks.shape[1])
    grid = blocks.unflatten(0, (count, -1)).transpose(1, 2)
    return grid.flatten(2).flatten(0, 1)[:rows, :columns].reshape(like.shape)


class Shampoo(LayerwiseOptimizer):
    r"""Distributed Shampoo: each side of a weight matrix is whitened by its own gradient covariance.

    For each block ``G`` of a matrix: ``L = b2 * L + (1 - b2) * G G^T``; ``R = b2 * R + (1 - b2) * G^T G``;
    ``P = L^(-1/4) G R^(-1/4)`` with bias-corrected L and R, the roots renewed every ``interval`` steps. Grafting: a
    layer's ``P`` (all its blocks) is rescaled to the norm of a simpler direction ``D``, the gradient ("sgd") or
    RMSprop's with bias correction ("adam"). ``m = mu * m + P + wd * w``; ``w -= lr * m``.
    Vectors, and every layer before step ``start``, take ``D`` itself. Bias correction counts a layer's own steps.

    Convolutions are matrices ``[out, in * height * width]``; sides longer than ``block`` are cut into equal parts.
    Why not ``pytorch_optimizer.ScalableShampoo`` (4.1): its state holds objects of its own, so that a checkpoint
    cannot be loaded with ``weights_only=True``; small convolutions, up to ``block`` weights, are merged to a vector
    and not preconditioned at all; it inverts block after block in Python and waits for the device in each iteration;
    and ``p.grad`` is changed. Where both apply they agree (see the conformance table).

    On a GPU the eigendecomposition waits for the device once every ``interval`` steps and cannot be captured in a
    CUDA graph. Memory: for an ``r x c`` block, ``2 * (r * r + c * c)`` numbers. On several processes that train one
    model each computes all the roots, or, after `share_with`, those of its share of the blocks, and receives the
    others. Each keeps all statistics and roots, so that a checkpoint is that of a single process. Of layers that are
    spread over processes (FSDP2) each has the statistics whole and computes all the roots.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate, of the size the grafted rule wants.
        momentum: mu, in [0, 1).
        nesterov: Step along ``P + wd * w + mu * m``.
        betas: Decay rates of Adam's graft (only the second moment is used) and of L and R, each in [0, 1).
        weight_decay: wd, added to the grafted direction of matrices, as in AdamW times lr.
        graft: "sgd", "adam" or "none".
        block: Longest side of a block.
        interval: Steps between two computations of the roots.
        start: Step (the first is 1) from which the preconditioner is used; before, its statistics are too few.
        eps: Ridge of the roots, relative to the largest eigenvalue.
        graft_eps: Added to the root of Adam's second moment.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    fixed = {"exclude_1d": True, "step": 0}  # noqa: RUF012
    _process_group: Any = None

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        betas: tuple[float, float] = (0.999, 0.99),
        weight_decay: float = 0.0,
        graft: str = "adam",
        block: int = 512,
        interval: int = 10,
        start: int = 10,
        eps: float = 1e-6,
        graft_eps: float = 1e-8,
        maximize: bool = False,
    ): ...

    def share_with(self, process_group: Any) -> None:
        """Share the computation of the roots out among processes that take every step together.

        Args:
            process_group: Of torch's, whose processes have equal parameters and gradients, as under
                DistributedDataParallel; all of them call this. None: this process computes everything, as at first.

        Raises:
            ValueError: They have different layers.
        """
        self._process_group = process_group
        if process_group is not None:
            refuse_others([p for group in self.param_groups for p in group["params"]], process_group)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        for name in ("lr", "weight_decay", "graft_eps"):
            check_number(name, group[name])
        check_number("momentum", group["momentum"], high=1.0)
        check("nesterov", group["nesterov"], not (group["nesterov"] and group["momentum"] == 0), "off when momentum=0")
        check_betas(group["betas"])
        check_number("eps", group["eps"], high=1.0)
        check("graft", group["graft"], group["graft"] in GRAFTS, ", ".join(GRAFTS))
        for name in ("block", "interval", "start"):
            check(name, group[name], isinstance(group[name], int) and group[name] >= 1, "a whole number >= 1")

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        present = [param for param in group["params"] if param.grad is not None]
        if present and present[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("Shampoo cannot be captured in a CUDA graph")
        if present or not group["params"]:  # without parameters: those of the group are on other processes
            group["step"] = int(group["step"]) + 1
        for bucket in self.buckets(group):
            full = [i for i, layer in enumerate(bucket.layers) if layer.numel()]
            if full:
                grads = torch._foreach_neg(bucket.grads) if group["maximize"] else bucket.grads
                self._update(bucket.only(full, grads), group)

    def _update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        params, mu = bucket.params, group["momentum"]
        for layer in bucket.layers:
            state = self.state[layer]
            before = group["step"] - 1 if state else 0  # an older state has the group's steps alone
            state["step"] = state.get("step", before) + 1
        update = self._graft(bucket, group)
        if bucket.adapted:
            whitened = self._whitened(bucket, group)
            if whitened:
                if group["graft"] != "none":
                    wanted, found = bucket.norms(update), bucket.norms(whitened)
                    scaled_by_layer(whitened, safe_ratio(wanted, found, found > 0))
                update = whitened
            if group["weight_decay"]:
                torch._foreach_add_(update, params, alpha=group["weight_decay"])
        if mu:
            buffers = self.state_tensors(bucket.layers, "momentum_buffer")
            torch._foreach_mul_(buffers, mu)
            torch._foreach_add_(buffers, update)
            if group["nesterov"]:
                torch._foreach_add_(update, buffers, alpha=mu)
            else:
                update = buffers
        torch._foreach_sub_(params, torch._foreach_mul(update, scalar_for(params[0], group["lr"])))

    def _graft(self, bucket: Bucket, group: dict[str, Any]) -> list[Tensor]:
        """The simpler rule's directions ``D``, fresh tensors."""
        if group["graft"] != "adam":
            return torch._foreach_mul(bucket.grads, 1.0)
        beta = group["betas"][0]
        second = self.state_tensors(bucket.layers, "exp_avg_sq")
        torch._foreach_mul_(second, beta)
        torch._foreach_addcmul_(second, bucket.grads, bucket.grads, 1 - beta)
        update = torch._foreach_sqrt(second)
        torch._foreach_mul_(update, [(1 - beta ** self.state[layer]["step"]) ** -0.5 for layer in bucket.layers])
        torch._foreach_add_(update, group["graft_eps"])
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, bucket.grads)
        return update

    def _whitened(self, bucket: Bucket, group: dict[str, Any]) -> list[Tensor]:
        """``L^(-1/4) G R^(-1/4)`` of each layer, none before ``start``; keeps the statistics, and renews the roots."""
        ready, due = group["step"] >= group["start"], group["step"] % group["interval"] == 0
        blocked, wanted, matrices = [], [], []
        for i, (layer, grad) in enumerate(zip(bucket.layers, bucket.grads, strict=True)):
            blocks = to_blocks(bucket.whole(i, grad).to(wide_dtype(grad)), group["block"])
            blocked.append(blocks)
            state = self.state[layer]
            for side, products in (("left", blocks @ blocks.mT), ("right", blocks.mT @ blocks)):
                if side not in state:
                    state[side] = torch.zeros_like(products)
                state[side] = state[side].to(products.dtype)  # load_state_dict gives it the parameter's
                state[side].lerp_(products, 1 - group["betas"][1])
                if ready and (due or f"{side}_root" not in state):
                    wanted.append((state, f"{side}_root"))
                    matrices.append(state[side] / (1 - group["betas"][1] ** state["step"]))
        if not ready:
            return []
        together = self._process_group if bucket.spread is None else None
        roots = shared(partial(inverse_root, eps=group["eps"]), matrices, together)
        for (state, name), root in zip(wanted, roots, strict=True):
            state[name] = root
        out = []
        for layer, blocks, grad in zip(bucket.layers, blocked, bucket.grads, strict=True):
            left, right = (self.state[layer][f"{side}_root"].to(blocks.dtype) for side in ("left", "right"))
            out.append(bucket.part(from_blocks(left @ blocks @ right, layer)).to(grad.dtype))
        return out


OPTIMIZERS = {"shampoo": Shampoo}
