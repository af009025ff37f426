"""The field's generic optimizers, torch's own, behind factories with explicit arguments.

They are the baselines of the large-batch reality check (Nado et al. 2021): "sgd" is heavy ball, "nesterov" torch's
form (``b = mu * b + g; w -= lr * (g + mu * b)``), "adam" has L2 decay in the gradient, "adamw" decoupled decay.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from lbt.optim.checks import check_betas, check_number, check_params
from lbt.optim.sharded import refuse_flat, refuse_zero
from lbt.optim.tensors import CPU_KERNEL_DTYPES, PLAIN, is_dense, same_layout

SPLIT = "decay_1d=False"
LOOKED_AT = (Tensor.stride, attrgetter("dtype"), attrgetter("device"))


class _TorchKernels:
    """Takes torch's fused kernels in each step in which all of a group's tensors suit them, else torch's default.

    On a CPU these kernels walk through parameter, gradient and state as flat memory, without a look at the strides.

    Attributes:
        cpu_kernels: Use the fused kernels where they apply.
        cpu_dtypes: For what on a CPU.
        kept: Names of the state tensors.
    """

    cpu_kernels = True
    cpu_dtypes: tuple[torch.dtype, ...] = (*CPU_KERNEL_DTYPES, torch.bfloat16, torch.float16)
    kept: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as two where ``decay_1d`` is off; raises ValueError for bad arguments or parameters."""
        for group in _groups([param_group], self.defaults.get("decay_1d", True)):
            super().add_param_group(group)

    @property
    def _step_supports_amp_scaling(self) -> bool:  # what a GradScaler asks just before a step
        return all(self._suits_fused(group) for group in self.param_groups)

    def _suits_fused(self, group: dict[str, Any]) -> bool:
        if not self.cpu_kernels or torch.compiler.is_compiling():
            return False
        params = [param for param in group["params"] if param.grad is not None]
        states = [self.state.get(param, {}) for param in params]
        rows = [params, [param.grad for param in params]]
        rows += [[held.get(key, param) for held, param in zip(states, params, strict=True)] for key in self.kept]
        if not {type(tensor) for row in rows for tensor in row} <= {*PLAIN}:
            return False
        first, *others = ([list(map(look, row)) for look in LOOKED_AT] for row in rows)
        if any(other != first for other in others) or not all(map(is_dense, params)):
            return False
        _, dtypes, devices = first
        counters = [(held.get("step"), device) for held, device in zip(states, devices, strict=True)]
        if any(c is not None and (c.dtype, c.device) != (torch.float32, device) for c, device in counters):
            return False
        kinds = {device.type for device in devices}
        suited = "cpu" not in kinds or {*dtypes} <= {*self.cpu_dtypes}
        return suited and kinds <= {*_get_fused_kernels_supported_devices()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for param, held in self.state.items():
            for key, value in held.items():
                if isinstance(value, Tensor) and value.shape == param.shape and not same_layout(param, value):
                    held[key] = torch.empty_like(param, dtype=value.dtype).copy_(value)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        if any(param.grad is not None and param.grad.layout != torch.strided for param in group["params"]):
            raise RuntimeError(f"{type(self).__name__[1:]} does not support sparse gradients")
        fused = self._suits_fused(group)
        # torch's foreach writes to p.grad under Nesterov, and needs capturable for a tensor lr
        loop = group.get("nesterov") or (isinstance(group["lr"], Tensor) and not group.get("capturable"))
        group["fused"], group["foreach"] = fused or None, False if loop and not fused else None
        return super()._init_group(group, *lists)


class _SGD(_TorchKernels, SGD):
    """torch's SGD with momentum buffers made as zeros, layer by layer.

    Torch's fused path fails when a layer joins later (its buffer is missing), and leaves the first buffers
    uninitialised when a gradient scaler skips the first step.
    """

    cpu_dtypes = CPU_KERNEL_DTYPES
    kept = ("momentum_buffer",)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        for param in group["params"]:
            if group["momentum"] and param.grad is not None and self.state[param].get("momentum_buffer") is None:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        return super()._init_group(group, *lists)


class _Adam(_TorchKernels, Adam):
    """torch's Adam."""


class _AdamW(_TorchKernels, AdamW):
    """torch's AdamW."""


def groups_of(params: Any) -> list[dict[str, Any]]:
    """Parameter groups, checked, their tensors in lists: a generator is read once and not used up by the check."""
    if isinstance(params, Tensor):
        raise TypeError(
            "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
            + torch.typename(params)
        )
    items = list(params)
    groups = []
    for group in items if not items or isinstance(items[0], dict) else [{"params": items}]:
        for name in {"lr", "weight_decay"} & group.keys():
            check_number(name, group[name])
        members = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        check_params([m[1] if isinstance(m, tuple) else m for m in members])
        groups.append({**group, "params": members})
    return groups


def _groups(params: Any, decay_1d: bool) -> list[dict[str, Any]]:
    """Parameter groups; without ``decay_1d`` each is split, its biases and norms (``ndim <= 1``) without decay."""
    if decay_1d:
        return groups_of(params)
    refuse_zero(SPLIT, "it does not see the groups which that makes")
    groups = []
    for group in groups_of(params):
        for tensor in (m[1] if isinstance(m, tuple) else m for m in group["params"]):
            refuse_flat(tensor, SPLIT)
            if is_lazy(tensor):
                raise ValueError(f"{SPLIT} needs layers with a shape (call a lazy layer once before)")
        small = [(m[1] if isinstance(m, tuple) else m).ndim <= 1 for m in group["params"]]
        for flag, extra in ((False, {}), (True, {"weight_decay": 0.0})):
            chosen = [m for m, one in zip(group["params"], small, strict=True) if one is flag]
            if chosen:
                groups.append({**group, "params": chosen, **extra})
    return groups


def _build(kind: type[Optimizer], params: Any, lr: Any, decay_1d: bool, **options: Any) -> Optimizer:
    """Check what all have in common and build ``kind``."""
    check_number("lr", lr)
    check_number("weight_decay", options["weight_decay"])
    groups = _groups(params, decay_1d)
    tensors = [m[1] if isinstance(m, tuple) else m for group in groups for m in group["params"]]
    if not issubclass(kind, SGD) and {tensor.device.type for tensor in tensors} == {"cuda"}:
        options["capturable"] = True
    optimizer = kind(groups, lr=lr, **options)
    optimizer.defaults["decay_1d"] = decay_1d  # for groups added later
    return optimizer


def sgd(
    params: Any,
    lr: float | Tensor,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay_1d: bool = True,
    maximize: bool = False,
) -> Optimizer:
    """SGD with heavy-ball momentum: ``b = mu * b + g + wd * w; w -= lr * b``.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate.
        momentum: mu, in [0, 1).
        weight_decay: wd, added to the gradient.
        decay_1d: Decay biases and norms (``ndim <= 1``) too.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """
    check_number("momentum", momentum, high=1.0)
    return _build(_SGD, params, lr, decay_1d, momentum=momentum, weight_decay=weight_decay, maximize=maximize)


def nesterov(
    params: Any,
    lr: float | Tensor,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay_1d: bool = True,
    maximize: bool = False,
) -> Optimizer:
    """SGD with Nesterov's momentum, torch's form: ``b = mu * b + d; w -= lr * (d + mu * b)`` with ``d = g + wd * w``.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate.
        momentum: mu, in (0, 1).
        weight_decay: wd, added to the gradient.
        decay_1d: Decay biases and norms (``ndim <= 1``) too.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """
    check_number("momentum", momentum, high=1.0, open_low=True)
    options = {"momentum": momentum, "weight_decay": weight_decay, "maximize": maximize, "nesterov": True}
    return _build(_SGD, params, lr, decay_1d, **options)


def adam(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay_1d: bool = True,
    maximize: bool = False,
) -> Optimizer:
    """Adam (Kingma and Ba 2015), its decay added to the gradient.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, added to the gradient.
        decay_1d: Decay biases and norms (``ndim <= 1``) too.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """
    check_betas(betas)
    check_number("eps", eps)
    options = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return _build(_Adam, params, lr, decay_1d, **options)


def adamw(
    params: Any,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decay_1d: bool = True,
    maximize: bool = False,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019): Adam with decoupled decay, ``w -= lr * wd * w``.

    Args:
        params: Tensors, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, times lr.
        decay_1d: Decay biases and norms (``ndim <= 1``) too.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters.
    """
    check_betas(betas)
    check_number("eps", eps)
    options = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return _build(_AdamW, params, lr, decay_1d, **options)


OPTIMIZERS = {"sgd": sgd, "nesterov": nesterov, "adam": adam, "adamw": adamw}
