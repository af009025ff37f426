"""AGVM: the learning rate of each module by the variance of its gradient (Xue et al. 2022, NeurIPS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_number
from lbt.optim.exchange import Exchange
from lbt.optim.generic import groups_of
from lbt.optim.gradients import Gradients
from lbt.optim.sam import build_base
from lbt.optim.wrapping import WrappingWorkers

SMALL = 1e-6  # added to both variances of a ratio
BOUNDS = (0.5, 10.0)  # of their ratio


class AGVM(WrappingWorkers):
    r"""AGVM: the update of another optimizer, each module's rate by how much its gradient varies between workers.

    Every ``interval`` steps after the first ``warmup_steps`` the workers form two halves with the mean gradients A and
    B. Of each parameter group (a module) ``d_j = 1 - cos(A_j, B_j)``; with the first group as 0
    ``f_j = sqrt(clip((d_0 + 1e-6) / (d_j + 1e-6), 0.5, 10))``; ``F_j = decay * F_j + (1 - decay) * f_j``, from 1. The
    base optimizer gets the mean gradient and the group's rate times ``F_j``. Where it has Adam's second moment, cosines
    are of ``g / (sqrt(v) + 1e-8)``. One worker has no halves: its rates stay. Where there are, both are sent.

    Args:
        params: Groups of tensors, a module each, which may override the base's arguments.
        lr: Learning rate of the base optimizer.
        workers: Workers on this process; None is 1. See `lbt.optim.workers.LocalGradients`.
        base: Its name and arguments, ``{"name": "lars", "eta": 0.01}``; None is ``{"name": "nesterov"}``.
        interval: Steps between two looks at the variances.
        warmup_steps: Steps before the first look.
        decay: Of the moving average F.
        maximize: Go up the gradient.

    Attributes:
        groups_by_module: Asks whoever makes the groups to make one of each module of the network.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers.
    """

    groups_by_module = True
    mark = "module"

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        workers: int | None = None,
        base: dict | None = None,
        interval: int = 5,
        warmup_steps: int = 0,
        decay: float = 0.97,
        maximize: bool = False,
    ):
        for name, value, least in (("interval", interval, 1), ("warmup_steps", warmup_steps, 0)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            check(name, value, whole and value >= least, f"a whole number >= {least}")
        check_number("decay", decay, high=1.0)
        groups = groups_of(params)
        inner = build_base(groups, lr, {"name": "nesterov"} if base is None else dict(base), maximize)
        own = {"interval": interval, "warmup_steps": warmup_steps, "decay": decay, "looks": 0}
        super().__init__(inner, {"workers": workers, "maximize": maximize, **own})
        self.keep(groups)

    def keep(self, groups: list[dict[str, Any]]) -> None:
        """Keep which of the given groups a parameter is of; the base optimizer may have split one."""
        known = 1 + max(group.get("module", -1) for group in self.param_groups)
        module_of = {
            member[1] if isinstance(member, tuple) else member: known + number
            for number, group in enumerate(groups)
            for member in group["params"]
        }
        for group in self.param_groups:
            self.check_workers(group)
            if "module" not in group:
                group["module"] = module_of[group["params"][0]] if group["params"] else known

    def row_count(self) -> int:
        """Rows of collected gradients: one for each half of the workers."""
        return 2

    def row_of(self, worker: int) -> int:
        """The half that a worker belongs to."""
        exchange = self.exchange()
        return int(exchange.first + worker >= exchange.count // 2)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Exchange gradients, look at their variance where it is time to, and take the base optimizer's step.

        Args:
            closure: Re-evaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, else None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.begin_collected()
        exchange = self.exchange()
        halves = exchange.count // 2, exchange.count - exchange.count // 2
        given: dict[Tensor, Tensor] = {}
        products: dict[int, list[Tensor]] = {}
        for index, group in enumerate(self.param_groups):
            found = [*self.collected(index, exchange)]
            if found:
                group["looks"] = group["looks"] + 1
            past = group["looks"] - group["warmup_steps"]
            look = exchange.count > 1 and past > 0 and past % group["interval"] == 0
            for one in found:
                if look:
                    products.setdefault(group["module"], []).append(self._halves(one, halves, exchange))
                mean = one.rows.sum(0).div_(exchange.count) if look else exchange.mean(one.rows)
                given |= dict(zip(one.layers, one.views(mean), strict=True))
        self._follow({module: _variance(some) for module, some in products.items()})
        self.step_with(given, [group.get("agvm_factor", 1.0) for group in self.param_groups])
        self.end_collected(exchange)
        return loss

    def _halves(self, found: Gradients, halves: tuple[int, int], exchange: Exchange) -> Tensor:
        """``(A.B, A.A, B.B)``; leaves the sums over both halves of all workers in the rows."""
        first, second = exchange.total(found.rows).double()
        first, second = first / halves[0], second / halves[1]
        moments = [self.state.get(layer, {}).get("exp_avg_sq") for layer in found.layers]
        if all(moment is not None for moment in moments):
            scale = torch.cat([moment.flatten() for moment in moments]).double().sqrt().add_(1e-8)
            first, second = first / scale, second / scale
        return torch.stack([first @ second, first @ first, second @ second])

    def _follow(self, variances: dict[int, Tensor]) -> None:
        """Move the factors by the variances of this step, by module."""
        first = variances.get(min(variances, default=0))
        for group in self.param_groups:
            variance = variances.get(group["module"])
            if variance is None:
                continue
            wanted = ((first.to(variance.device) + SMALL) / (variance + SMALL)).clamp(*BOUNDS).sqrt()
            before = group.get("agvm_factor", torch.ones_like(wanted))
            group["agvm_factor"] = before.to(wanted.device).lerp(wanted, 1 - group["decay"])


def _variance(products: list[Tensor]) -> Tensor:
    """``1 - cos`` of two vectors from their products with each other and themselves."""
    across, one, other = torch.stack(products).sum(0).unbind()
    length = (one * other).sqrt()
    return torch.where(length > 0, 1 - across / length, torch.zeros_like(length)).clamp(min=0)


OPTIMIZERS = {"agvm": AGVM}
