"""1-bit LAMB: LAMB whose momentum is exchanged by its signs (Li et al. 2021, arXiv 2104.06069)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_number
from lbt.optim.gradients import Gradients
from lbt.optim.layerwise import arguments_are_defaults
from lbt.optim.onebit import spread_over
from lbt.optim.onebitadam import OneBitOptimizer, exact_steps
from lbt.optim.tensors import norms, safe_ratio, scalar_for, scaled_by_layer, wide_dtype

KEPT = 0.9  # share of a layer's average ratio that an update before the freeze leaves


class OneBitLAMB(OneBitOptimizer):
    r"""1-bit LAMB: LAMB until its second moment is stable, then with a momentum that is exchanged by its signs.

    Until ``freeze_steps``: LAMB of the mean gradient, its trust ratio clamped; ``c`` is the moving average of a layer's
    ratios, from its first one. From then on v and c are frozen and the momentum is exchanged as in `OneBitAdam`, with
    one scale for all layers of a group, for which momenta are multiplied by the mean over layers of ``RMS(m)`` over the
    layer's own, both of the freeze and of the elements that ever had a gradient. The mean gradient is found back,
    ``g = (m - beta1 * m_before) / (1 - beta1)``, and moves a second moment v' that starts from v. ``f = max (sqrt(v)
    + eps) / (sqrt(v') + eps)`` over a layer's elements; with decay ``f = f * q + 1 - q``, ``q = min(1, ||u|| / ||u +
    wd * w||)``; f is clamped to ``factor_low`` and ``factor_high`` and to ``factor_change`` of its last value a step.
    ``w -= lr * c * f * (u + wd * w)``, ``u = m / (sqrt(v) + eps)``.

    Args:
        params: Tensors, or groups of them, which may override each argument below but ``workers``.
        lr: Learning rate: the relative change of a layer's weights in one step.
        workers: Workers on this process; None is 1. See `lbt.optim.workers.LocalGradients`.
        freeze_steps: Steps of a layer before v and c are frozen; at least one is made.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, decoupled: added to Adam's direction before the ratio.
        bias_correction: Divide the moments by ``1 - beta**t``, v in its frozen form by that of the freeze; the public
            implementation does not.
        ratio_low: Lower bound of the trust ratio before the freeze; it and the next are the public implementation's.
        ratio_high: Upper bound of it.
        factor_low: Lower bound of f.
        factor_high: Upper bound of f.
        factor_change: Largest relative change of f in a step.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers.
    """

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        workers: int | None = None,
        freeze_steps: int = 100,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        ratio_low: float = 0.01,
        ratio_high: float = 10.0,
        factor_low: float = 0.5,
        factor_high: float = 4.0,
        factor_change: float = 0.1,
        maximize: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        super().check_group(group)
        for name in ("ratio", "factor"):
            low, high = group[f"{name}_low"], group[f"{name}_high"]
            check_number(f"{name}_low", low)
            check_number(f"{name}_high", high, open_low=True)
            check(f"{name}_high", high, high >= low, f"at least {name}_low")
        check_number("factor_change", group["factor_change"], open_low=True)

    def update_warm(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step of LAMB; keep the moving average of the ratios."""
        update = self.directions(found, *self.moments(found, group), group)
        if group["weight_decay"]:
            torch._foreach_add_(update, found.layers, alpha=group["weight_decay"])
        weight, length = norms(found.layers), norms(update)
        valid = (weight > 0) & (length > 0)
        clamped = (weight / length).clamp(group["ratio_low"], group["ratio_high"])
        ratios = torch.where(valid, clamped, torch.ones_like(clamped)).to(wide_dtype(update[0]))
        for layer, ratio in zip(found.layers, ratios.unbind(), strict=True):
            state = self.state[layer]
            before = state.get("mean_ratio")
            state["mean_ratio"] = ratio.clone() if before is None else before.lerp(ratio.to(before.dtype), 1 - KEPT)
        self._step(found, update, ratios, group)

    def update_frozen(self, found: Gradients, group: dict[str, Any]) -> None:
        """Take one step with the momentum that the workers have received."""
        size = sum(layer.numel() for layer in found.layers)
        before = self.joined_state(found, "exp_avg")
        scaling = spread_over(self._scalings(found), [layer.numel() for layer in found.layers])
        momentum = self.exchanged_momentum(found, group, [size], scaling)
        gradient = momentum.sub(before, alpha=group["betas"][0]).div_(1 - group["betas"][0])
        before.copy_(momentum)
        first, second = (self.state_tensors(found.layers, key) for key in ("exp_avg", "exp_avg_sq"))
        fresh = self._fresh(found, found.views(gradient), second, group["betas"][1])
        plain = self.directions(found, first, second, group)
        update = plain
        if group["weight_decay"]:
            update = torch._foreach_add(plain, found.layers, alpha=group["weight_decay"])
        factors = self._factors(found, plain, update, second, fresh, group)
        ratios = torch.stack([self.state[layer]["mean_ratio"] for layer in found.layers]).to(factors.dtype) * factors
        self._step(found, update, ratios, group)

    def _step(self, found: Gradients, update: list[Tensor], ratios: Tensor, group: dict[str, Any]) -> None:
        scaled_by_layer(update, ratios * scalar_for(ratios, group["lr"]))
        torch._foreach_sub_(found.layers, update)
        self.keep_ratios(found.layers, ratios)

    def _scalings(self, found: Gradients) -> Tensor:
        """What each layer's momentum is multiplied by for the way; fixed when a layer freezes."""
        new = [layer for layer in found.layers if "momentum_scale" not in self.state[layer]]
        if new:
            momenta = self.state_tensors(new, "exp_avg")
            rms = norms(momenta)
            alive = [one.count_nonzero() for one in self.state_tensors(new, "exp_avg_sq")]  # the others are never sent
            rms = rms / torch.stack(alive).clamp(min=1).to(rms).sqrt()
            scales = safe_ratio(rms.mean().expand_as(rms), rms, rms > 0).to(momenta[0].dtype)
            for layer, scale in zip(new, scales.unbind(), strict=True):
                self.state[layer]["momentum_scale"] = scale.clone()
        return torch.stack([self.state[layer]["momentum_scale"] for layer in found.layers])

    def _fresh(self, found: Gradients, gradients: list[Tensor], second: list[Tensor], beta: float) -> list[Tensor]:
        """The second moment v' that goes on after the freeze."""
        for layer, frozen in zip(found.layers, second, strict=True):
            if "exp_avg_sq_fresh" not in self.state[layer]:
                self.state[layer]["exp_avg_sq_fresh"] = frozen.clone()
        fresh = self.state_tensors(found.layers, "exp_avg_sq_fresh")
        torch._foreach_mul_(fresh, beta)
        torch._foreach_addcmul_(fresh, gradients, gradients, 1 - beta)
        return fresh

    def _factors(
        self, found: Gradients, plain: list[Tensor], update: list[Tensor], second: list[Tensor], fresh: list[Tensor],
        group: dict[str, Any],
    ) -> Tensor:  # fmt: skip
        """The factors f on the frozen ratios, shape ``[n]``."""
        rooted = self._rooted(found, second, group, [exact_steps(group)] * len(second))
        torch._foreach_div_(rooted, self._rooted(found, fresh, group, [self.state[p]["step"] for p in found.layers]))
        found_before = [
            torch.where(v > 0, r, 0) for v, r in zip(second, rooted, strict=True)
        ]  # the others are not moved
        factors = torch.stack([one.max() for one in found_before])
        factors = torch.where(factors > 0, factors, torch.ones_like(factors))
        if group["weight_decay"]:
            length = norms(update)
            shares = (
                torch.where(length > 0, norms(plain) / length, torch.ones_like(length)).clamp(max=1).to(factors.dtype)
            )
            factors = factors * shares + 1 - shares
        factors = factors.clamp(group["factor_low"], group["factor_high"])
        before = [self.state[layer].get("factor", torch.ones_like(factors[0])) for layer in found.layers]
        last, change = torch.stack(before).to(factors.dtype), group["factor_change"]
        factors = torch.minimum(torch.maximum(factors, last * (1 - change)), last * (1 + change))
        for layer, factor in zip(found.layers, factors.unbind(), strict=True):
            self.state[layer]["factor"] = factor.clone()
        return factors

    def _rooted(self, found: Gradients, second: list[Tensor], group: dict[str, Any], steps: list[int]) -> list[Tensor]:
        """``sqrt(v) + eps`` of second moments of so many steps."""
        rooted = torch._foreach_sqrt(second)
        if group["bias_correction"]:
            torch._foreach_mul_(rooted, [(1 - group["betas"][1] ** step) ** -0.5 for step in steps])
        torch._foreach_add_(rooted, group["eps"])
        return rooted


OPTIMIZERS = {"onebit_lamb": OneBitLAMB}
