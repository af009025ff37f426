"""TVLARS: LARS with a time-varying rate in place of a warm-up (Do et al. 2024, arXiv 2309.14053, eq. 8)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_number
from lbt.optim.lars import LARS
from lbt.optim.layerwise import arguments_are_defaults

SCOPES = ("all", "adapted")


def phi(
    t: float | Tensor, alpha: float = 1.0, lam: float = 1e-3, delay_steps: int | None = 0, floor: float = 0.0
) -> Any:
    """Eq. 8, ``1 / (alpha + exp(lam * (t - delay_steps))) + floor``: falls from about 1/alpha to ``floor``.

    Args:
        t: Steps already taken (the first update has t = 0); a number, or a tensor of any shape.
        alpha: Bounds phi by ``1 / alpha + floor``.
        lam: Decay rate per step.
        delay_steps: d_e, in steps. None is the released code's form: no delay, and t counted from 1.
        floor: The paper's gamma_min.

    Returns:
        A float for a number, a tensor for a tensor. A large t gives ``floor``, not an overflow.
    """
    exponent = lam * (t + 1 if delay_steps is None else t - delay_steps)
    growth = torch.exp(exponent) if isinstance(exponent, Tensor) else math.exp(min(exponent, 709.0))
    return 1.0 / (alpha + growth) + floor


class TVLARS(LARS):
    """LARS whose rate is multiplied by phi_t (`phi`): high at first, then a sigmoid decay to a floor; no warm-up.

    The defaults follow the paper, with LARS's own default denominator and placement, so that a comparison with LARS
    shows phi alone (eq. 2's text has ``denominator="bare"``). The released code is ``alpha=0.1, delay_steps=None,
    phi_scope="adapted", norm_clamp=10.0, denominator="joint", momentum_placement="outside"``.
    After each step ``group["lr_factor"]`` is phi (0-dim tensor), so that the rate in force is ``lr * lr_factor``.

    Args:
        params: Tensors, or groups of them, which may override each argument below.
        lr: Target learning rate.
        alpha, lam, delay_steps, floor: See `phi`; ``lam`` is per step, the delay in steps. Each group counts its own
            steps: one that is added later begins with t = 0.
        phi_scope: "all": phi scales lr, wherever lr stands. "adapted": phi scales the trust ratio (so it is inside
            the momentum buffer), and biases and norms keep the raw lr (released code).
        momentum, weight_decay, eta, eps, denominator, momentum_placement, exclude_1d, norm_clamp, maximize, fused: See
            `LARS`.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """

    counts_steps = True
    fixed = {"nesterov": False}  # noqa: RUF012

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        alpha: float = 1.0,
        lam: float = 1e-3,
        delay_steps: int | None = 0,
        floor: float = 0.0,
        phi_scope: str = "all",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        eta: float = 1e-3,
        eps: float = 0.0,
        denominator: str = "sum",
        momentum_placement: str = "inside",
        exclude_1d: bool = True,
        norm_clamp: float | None = None,
        maximize: bool = False,
        fused: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        super().check_group(group)
        check_number("alpha", group["alpha"], open_low=True)
        check_number("lam", group["lam"])
        if group["delay_steps"] is not None:
            check_number("delay_steps", group["delay_steps"])
        check_number("floor", group["floor"])
        check("phi_scope", group["phi_scope"], group["phi_scope"] in SCOPES, "all or adapted")

    def factors(self, group: dict[str, Any]) -> tuple[float | Tensor, float | Tensor]:
        """Give phi for the learning rate or for the trust ratios, by ``phi_scope``; counts the step."""
        factor = phi(group["step"], *(group[k] for k in ("alpha", "lam", "delay_steps", "floor")))
        group["step"].add_(1)
        group["lr_factor"] = factor
        return (factor, 1.0) if group["phi_scope"] == "all" else (1.0, factor)


OPTIMIZERS = {"tvlars": TVLARS}
