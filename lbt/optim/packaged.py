"""Strong generic optimizers of today, from the package pytorch_optimizer, imported when one of them is built.

The rules are the package's; this file gives them the manners of the rest of ``lbt.optim``: ``p.grad`` is not changed
(they get a copy), arguments are checked alike, complex and sparse tensors refused, the learning rate may be a tensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.optim.checks import check, check_betas, check_number
from lbt.optim.generic import groups_of
from lbt.optim.sharded import is_spread, refuse_flat
from lbt.optim.wrapping import WrappingOptimizer

PACKAGE = "pytorch_optimizer"
NO_DTENSORS = ("Adan", "SOAP")  # whose steps in the package fail on them
WHOLE_LAYERS = ("SOAP",)


def load(kind: str) -> type[Optimizer]:
    """Import a class of the package; ValueError with the command that installs it where it is missing."""
    try:
        return getattr(importlib.import_module(PACKAGE), kind)
    except ImportError as error:
        raise ValueError(f"{kind} needs the package {PACKAGE}: pip install 'lbt[more]'") from error


class Packaged(WrappingOptimizer):
    """One of the package's optimizers.

    Args:
        kind: Name of its class.
        params: Tensors, or groups of them.
        lr: Learning rate.
        maximize: Go up the gradient.
        options: Further arguments of the class.

    Raises:
        ValueError: A bad argument; complex or sparse parameters; the package is not installed.
    """

    def __init__(self, kind: str, params: Any, lr: float | Tensor, maximize: bool, **options: Any):
        check_number("lr", lr)
        self.kind = kind
        groups = groups_of(params)
        self._refuse_parts([m[1] if isinstance(m, tuple) else m for group in groups for m in group["params"]])
        super().__init__(load(kind)(groups, lr=lr, **options), {"maximize": maximize})

    def _refuse_parts(self, params: list[Tensor]) -> None:
        for param in params:
            if self.kind in WHOLE_LAYERS:
                refuse_flat(param, self.kind)
            if self.kind in NO_DTENSORS and is_spread(param):
                raise ValueError(f"{self.kind} takes no DTensors (use DistributedDataParallel in place of fully_shard)")

    def __getstate__(self) -> dict[str, Any]:
        own = {k: v for k, v in vars(self.inner).items() if k not in ("state", "param_groups") and k[0] != "_"}
        return {**super().__getstate__(), "inner": None, "kind": self.kind, "own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "own" in state:  # a copy or a pickle; without it, load_state_dict
            kind = load(state["kind"])
            inner = kind.__new__(kind)
            inner.__setstate__({**state.pop("own"), "state": state["state"], "param_groups": state["param_groups"]})
            state["inner"] = inner
        super().__setstate__(state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. Parameters without a gradient are skipped; gradients are not changed.

        Args:
            closure: Re-evaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, else None.

        Raises:
            RuntimeError: For a sparse gradient.
            ValueError: For pieces of layers (FSDP1) or DTensors where the rule cannot take them.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        params = [param for some in self.with_gradients() for param in some]
        self._refuse_parts(params)
        grads = [param.grad for param in params]
        up = {id(p) for group in self.param_groups if group["maximize"] for p in group["params"]}
        rates = [group["lr"] for group in self.param_groups]
        try:
            for param, grad in zip(params, grads, strict=True):
                param.grad = -grad if id(param) in up else grad.clone()
            for group in self.param_groups:  # some of the rules write to a rate that is a tensor
                if isinstance(group["lr"], Tensor):
                    group["lr"] = group["lr"].item() if group["lr"].device.type == "cpu" else group["lr"].clone()
            if params:
                self.step_inside()
        finally:
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
        return loss


class ScheduleFree(Packaged):
    """A schedule-free rule: `eval` puts the averaged weights into the model, `train` the ones to train on."""

    @torch.no_grad()
    def train(self) -> None:
        """Switch the parameters to the point where gradients are taken. Call before training."""
        self.inner.train()

    @torch.no_grad()
    def eval(self) -> None:
        """Switch the parameters to the average. Call before evaluating or exporting, `train` before going on."""
        self.inner.eval()


def lion(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Optimizer:
    """Lion (Chen et al. 2023): ``w -= lr * (sign(b1 * m + (1 - b1) * g) + wd * w); m = b2 * m + (1 - b2) * g``.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate: every weight moves by it in each step; 3 to 10 times smaller than AdamW's.
        betas: b1 for the update, b2 for the buffer, each in [0, 1).
        weight_decay: wd, times lr; 3 to 10 times larger than AdamW's.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; no package.
    """
    check_betas(betas)
    check_number("weight_decay", weight_decay)
    return Packaged("Lion", params, lr, maximize, betas=tuple(betas), weight_decay=weight_decay)


def adan(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Optimizer:
    """Adan (Xie et al. 2022): Adam with Nesterov's look-ahead from gradient differences; made for large batches.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate; the paper's are 5 to 10 times AdamW's.
        betas: Decay rates of gradient, gradient difference and squared look-ahead (one minus the paper's betas).
        eps: Added to the root of the second moment.
        weight_decay: wd, decoupled, in the paper's proximal form ``w / (1 + lr * wd)``.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; no package.
    """
    check_betas(betas, 3)
    check_number("weight_decay", weight_decay)
    check_number("eps", eps)
    return Packaged("Adan", params, lr, maximize, betas=tuple(betas), eps=eps, weight_decay=weight_decay)


def soap(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10000,
    maximize: bool = False,
) -> Optimizer:
    """SOAP (Vyas et al. 2024): Adam in the eigenbasis of Shampoo's preconditioner.

    Its first step only initialises the basis and leaves the weights as they are.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate, of AdamW's order.
        betas: Decay rates of the two moments, each in [0, 1); the second is the preconditioner's too.
        eps: Added to the root of the second moment.
        weight_decay: wd, times lr.
        precondition_frequency: Steps between two updates of the basis.
        max_precondition_dim: Longer axes keep the identity as their basis.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; no package.
    """
    check_betas(betas)
    check_number("weight_decay", weight_decay)
    check_number("eps", eps)
    for name, value in (
        ("precondition_frequency", precondition_frequency),
        ("max_precondition_dim", max_precondition_dim),
    ):
        check(name, value, isinstance(value, int) and value > 0, "a whole number > 0")
    return Packaged(
        "SOAP", params, lr, maximize, betas=tuple(betas), eps=eps, weight_decay=weight_decay,
        precondition_frequency=precondition_frequency, max_precondition_dim=max_precondition_dim,
    )  # fmt: skip


def schedulefree_sgd(
    params: Any,
    lr: float | Tensor,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    maximize: bool = False,
) -> Optimizer:
    """Schedule-free SGD (Defazio et al. 2024): an average of the iterates in place of a decay of the rate.

    Wants a constant rate after its own linear warm-up, and `ScheduleFree.train` and ``eval`` around evaluations.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate; 10 to 50 times that of SGD with momentum.
        momentum: Where between the iterate (0) and the average (1) gradients are taken, in (0, 1).
        weight_decay: wd, added to the gradient.
        warmup_steps: Steps of linear warm-up.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; no package.
    """
    check_number("momentum", momentum, high=1.0, open_low=True)
    check_number("weight_decay", weight_decay)
    check_number("warmup_steps", warmup_steps)
    options = {"momentum": momentum, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
    return ScheduleFree("ScheduleFreeSGD", params, lr, maximize, **options)


def schedulefree_adamw(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    maximize: bool = False,
) -> Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024), winner of AlgoPerf's self-tuning track.

    Wants a constant rate after its own linear warm-up, and `ScheduleFree.train` and ``eval`` around evaluations.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate; 1 to 10 times AdamW's.
        betas: Where gradients are taken, in (0, 1) (see `schedulefree_sgd`), and decay rate of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: wd, times lr.
        warmup_steps: Steps of linear warm-up.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; no package.
    """
    check_betas(betas)
    check_number("weight_decay", weight_decay)
    check_number("eps", eps)
    check("betas", betas, betas[0] > 0, "two numbers < 1, the first > 0, the second >= 0")
    check_number("warmup_steps", warmup_steps)
    options = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
    return ScheduleFree("ScheduleFreeAdamW", params, lr, maximize, **options)


OPTIMIZERS = {
    "lion": lion,
    "adan": adan,
    "soap": soap,
    "schedulefree_sgd": schedulefree_sgd,
    "schedulefree_adamw": schedulefree_adamw,
}
