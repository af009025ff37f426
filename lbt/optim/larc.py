"""LARC: LARS whose layer-wise rate is clipped at the global one (NVIDIA apex, ``apex.parallel.LARC``, 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lbt.optim.lars import LARS, lars_ratios
from lbt.optim.layerwise import Bucket, arguments_are_defaults
from lbt.optim.tensors import scalar_for


class LARC(LARS):
    r"""LARC: no layer moves faster than under plain SGD, so that it needs no warm-up.

    ``ratio = eta * ||w|| / (||g|| + wd * ||w|| + eps)``; ``d = min(ratio / lr, 1) * (g + wd * w)``; then SGD with
    momentum, ``b = mu * b + d; w -= lr * b``: the rate of a layer is ``min(ratio, lr)``. A zero norm gives ratio 1.

    The defaults are timm's ``Lars(trust_clip=True)`` with eps 0 and the usual exclusion of biases and norms; apex has
    ``eta=0.02, eps=1e-8, exclude_1d=False``. ``trust_ratios()`` gives ``min(ratio / lr, 1)``.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Learning rate, and the upper bound of every layer's rate; not multiplied by the trust ratio.
        momentum, weight_decay, eta, eps, denominator, momentum_placement, nesterov, exclude_1d, maximize: See `LARS`.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    fixed = {"norm_clamp": None}  # noqa: RUF012

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
        momentum_placement: str = "outside",
        nesterov: bool = False,
        exclude_1d: bool = True,
        maximize: bool = False,
    ): ...

    def ratios(self, bucket: Bucket, lr: float | Tensor, group: dict[str, Any]) -> Tensor:
        """Trust ratios in units of the rate, at most 1, shape ``[n]``."""
        ratios = lars_ratios(bucket, group)
        return (ratios / scalar_for(ratios, lr)).clamp(max=1.0)


OPTIMIZERS = {"larc": LARC}
