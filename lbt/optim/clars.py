"""CLARS: LARS with the mean of the micro-batches' gradient norms (Huo, Gu and Huang 2021, arXiv 2002.01576)."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check_number
from lbt.optim.lars import LARS, lars_ratios
from lbt.optim.layerwise import Bucket, arguments_are_defaults
from lbt.optim.sharded import is_spread, process_count, refuse_zero
from lbt.optim.tensors import norms, wide_dtype
from lbt.optim.triton.plan import is_adapted

WHOLE = 1.0 - 1e-6  # micro-batches whose shares sum to this are the whole batch
EQUAL = 1e-10  # relative variance of norms up to which processes have seen the same gradients


class CLARS(LARS):
    r"""Complete LARS: the ratio's denominator has ``mean_i ||g_i||`` in place of ``||mean_i g_i||``.

    ``ratio = eta * ||w|| / (mean_i ||g_i|| + wd * ||w|| + eps)``, with ``g_i`` the gradient of micro-batch ``i`` and
    the mean weighted by size; the rest is LARS, with its variants. Early in training the micro-batches disagree, their
    mean norm is far above the norm of the mean, and the ratio is small: the paper needs no warm-up.

    The loop calls `observe_micro_batch` after each micro-batch's backward pass. With one micro-batch, or if it is
    never called, CLARS is LARS. The paper takes the mean over the gradients of single examples or of a device's
    share; here it is over the micro-batches, whose size therefore is a hyper-parameter. What is kept is each layer's
    ``mean_i ||g_i|| / ||g||``, so that a gradient clipped or unscaled between backward and step is taken as it is.
    Memory: one copy of the gradients, while micro-batches are being observed.

    On several processes: where the gradient of each micro-batch is exchanged, ``g_i`` is that of all processes' joint
    micro-batch; with DistributedDataParallel's ``no_sync`` it is that of one process' micro-batch, and the mean is over
    all of them. The processes of the default group average the norms in each step for which micro-batches were
    observed. FSDP2 shows no gradient that was not exchanged: ``set_requires_gradient_sync(False)`` is refused.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate, dimensionless, multiplied by the trust ratio.
        momentum, weight_decay, eta, eps, momentum_placement, nesterov, exclude_1d, maximize: See `LARS`.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; ZeroRedundancyOptimizer.
    """

    fixed = {"denominator": "sum", "norm_clamp": None}  # noqa: RUF012

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
        momentum_placement: str = "inside",
        nesterov: bool = False,
        exclude_1d: bool = True,
        maximize: bool = False,
    ):
        self._forget()
        self._listens = False  # to the layers' gradients

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()
        self._listens = False

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        super().check_group(group)
        refuse_zero("CLARS", "it is shown no micro-batches")

    def _forget(self) -> None:
        self._shares: list[float] = []  # of the batch observed so far
        self._seen: dict[Tensor, Tensor] = {}  # parameter -> its gradient so far, `sum_i share_i * g_i`
        self._sums: dict[Tensor, Tensor] = {}  # parameter -> `sum_i share_i * ||g_i||`, 0-dim
        self._own_sums: dict[Tensor, Tensor] = {}  # the same of this process' gradients, before they are exchanged
        self._arrived: dict[Tensor, Tensor] = {}  # parameter -> norm of what the last backward pass added here

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients and, with them, what was observed of a batch that was broken off."""
        super().zero_grad(set_to_none)
        self._forget()

    @torch.no_grad()
    def observe_micro_batch(self, share: float) -> None:
        """Take note of a micro-batch whose backward pass has just added ``share * g_i`` to the gradients.

        Args:
            share: The micro-batch's part of the batch, in (0, 1]; those of one step sum to 1.

        Raises:
            ValueError: For a share that is no such number.
            RuntimeError: Where there is no gradient.
        """
        check_number("share", share, open_low=True, high=1.0 + 1e-6)
        if sum(self._shares) >= WHOLE:  # the step was skipped, for instance by a gradient scaler
            self._forget()
        self._shares.append(share)
        if len(self._shares) == 1 and share >= WHOLE:
            return
        if process_count() > 1 and not self._listens:
            self._listen()
        if all(param.grad is None for group in self.param_groups for param in group["params"]):
            raise RuntimeError("CLARS: there is no gradient to observe (exchange the gradients of every micro-batch)")
        for group in self.param_groups:
            for bucket in self.buckets(group):
                if bucket.adapted:
                    self._add(bucket)

    def _add(self, bucket: Bucket) -> None:
        for layer, grad in zip(bucket.layers, bucket.grads, strict=True):
            if layer not in self._seen:
                self._seen[layer] = torch.zeros_like(grad)
                self._sums[layer] = torch.zeros((), dtype=wide_dtype(grad), device=grad.device)
        seen = [self._seen[layer] for layer in bucket.layers]
        added = bucket.norms(torch._foreach_sub(bucket.grads, seen)).unbind()
        for layer, norm in zip(bucket.layers, added, strict=True):
            own = self._arrived.pop(layer, norm)
            self._own_sums[layer] = self._own_sums.get(layer, 0.0) + own
            self._sums[layer] = self._sums[layer] + norm
        torch._foreach_copy_(seen, bucket.grads)

    def _listen(self) -> None:
        """From now on take the norm of what a backward pass adds to a gradient before processes exchange it."""
        me = weakref.ref(self)

        def arrived(layer: Tensor) -> None:
            if (optimizer := me()) is not None:
                with torch.no_grad():
                    seen = optimizer._seen.get(layer)
                    optimizer._arrived[layer] = norms([layer.grad if seen is None else layer.grad - seen])[0]

        for layer in self._own_layers():
            if layer.requires_grad:
                layer.register_post_accumulate_grad_hook(arrived)
        self._listens = True

    def _own_layers(self) -> list[Tensor]:
        """Adapted layers that each process has whole."""
        layers = ((p, group) for group in self.param_groups for p in group["params"])
        return [p for p, group in layers if is_adapted(p, group) and not is_spread(p)]

    def begin_step(self) -> None:
        """Refuse a batch of which only a part was observed; take the mean over processes."""
        share = sum(self._shares)
        if 0 < share < WHOLE:
            raise RuntimeError(f"CLARS: the observed micro-batches are only {share:.3g} of the batch")
        layers = self._own_layers()
        if self._sums and layers and process_count() > 1:
            self._average(layers)

    def _average(self, layers: list[Tensor]) -> None:
        """Mean norms over processes: of joint micro-batches where all have seen the same gradients, else of each."""
        zero = torch.zeros((), dtype=torch.float64, device=layers[0].device)
        joint, own = (
            torch.stack([sums.get(layer, zero).to(zero) for layer in layers]) for sums in (self._sums, self._own_sums)
        )
        found = torch.cat([joint, own, joint.square()])
        torch.distributed.all_reduce(found)
        joint, own, squares = (found / process_count()).chunk(3)
        same = (squares - joint.square() <= EQUAL * squares).all()
        means = torch.where(same, joint, own)
        for layer, mean in zip(layers, means.unbind(), strict=True):
            if layer in self._sums:
                self._sums[layer] = mean

    def ratios(self, bucket: Bucket, lr: float | Tensor, group: dict[str, Any]) -> Tensor:
        """Trust ratios of a bucket's layers, shape ``[n]``."""
        if not self._sums:
            return lars_ratios(bucket, group)
        seen = bucket.norms([self._seen.get(p, g) for p, g in zip(bucket.layers, bucket.grads, strict=True)])
        sums = [self._sums.get(p, n).to(seen.dtype) for p, n in zip(bucket.layers, seen.unbind(), strict=True)]
        factors = torch.where(seen > 0, torch.stack(sums) / seen, torch.ones_like(seen))
        return lars_ratios(bucket, group, factors)

    def end_step(self) -> None:
        """Forget the micro-batches of this step."""
        self._forget()


OPTIMIZERS = {"clars": CLARS}
