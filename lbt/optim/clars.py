"""CLARS: LARS with the mean of the micro-batches' gradient norms (Huo, Gu and Huang 2021, arXiv 2002.01576)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.lars import LARS, lars_ratios
from lbt.optim.layerwise import Bucket, check_number, norms

WHOLE = 1.0 - 1e-6  # micro-batches whose shares sum to this are the whole batch


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

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate, dimensionless, multiplied by the trust ratio.
        momentum, weight_decay, eta, eps, momentum_placement, nesterov, exclude_1d, maximize: See `LARS`.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

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
        defaults = {k: v for k, v in locals().items() if k not in ("self", "params", "__class__")}
        self._forget()
        super(LARS, self).__init__(params, defaults | {"denominator": "sum", "norm_clamp": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        self._share = 0.0  # of the batch observed so far
        self._seen: dict[Tensor, Tensor] = {}  # parameter -> its gradient so far, `sum_i share_i * g_i`
        self._sums: dict[Tensor, Tensor] = {}  # parameter -> `sum_i share_i * ||g_i||`, 0-dim

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
        """
        check_number("share", share, open_low=True, high=1.0 + 1e-6)
        if self._share >= WHOLE:  # the step was skipped, for instance by a gradient scaler
            self._forget()
        first, self._share = self._share == 0, self._share + share
        if first and share >= WHOLE:
            return
        for group in self.param_groups:
            for bucket in self.buckets(group):
                if bucket.adapted:
                    self._add(bucket)

    def _add(self, bucket: Bucket) -> None:
        for param, grad in zip(bucket.params, bucket.grads, strict=True):
            if param not in self._seen:
                self._seen[param] = torch.zeros_like(grad)
                self._sums[param] = norms([self._seen[param]])[0]
        seen, sums = [self._seen[p] for p in bucket.params], [self._sums[p] for p in bucket.params]
        torch._foreach_add_(sums, list(norms(torch._foreach_sub(bucket.grads, seen)).unbind()))
        torch._foreach_copy_(seen, bucket.grads)

    def begin_step(self) -> None:
        """Refuse a batch of which only a part was observed."""
        if 0 < self._share < WHOLE:
            raise RuntimeError(f"CLARS: the observed micro-batches are only {self._share:.3g} of the batch")

    def ratios(self, bucket: Bucket, lr: float | Tensor, group: dict[str, Any]) -> Tensor:
        """Trust ratios of a bucket's layers, shape ``[n]``."""
        if not self._sums:
            return lars_ratios(bucket.params, bucket.grads, group)
        seen = norms([self._seen.get(p, g) for p, g in zip(bucket.params, bucket.grads, strict=True)])
        sums = torch.stack([self._sums.get(p, n) for p, n in zip(bucket.params, seen.unbind(), strict=True)])
        spread = torch.where(seen > 0, sums / seen, torch.ones_like(seen))
        return lars_ratios(bucket.params, bucket.grads, group, spread)

    def end_step(self) -> None:
        """Forget the micro-batches of this step."""
        self._forget()


OPTIMIZERS = {"clars": CLARS}
