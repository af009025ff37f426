"""Shared trust-ratio maths on lists of tensors, and the skeleton of a layer-wise optimizer.

Everything here works on whole lists (``torch._foreach_*``) and on vectors with one element a layer, so that nothing
has to be read back from the device. Only code which is reached for CPU tensors alone turns a tensor into a float.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.optim.triton.plan import Plan, Planner, check_triton, is_adapted

FUSED = (torch.float32, torch.float64)  # torch 2.11's fused SGD kernel on CPU skips elements of bfloat16 tensors
BUCKET = 2**24  # elements: bounds the temporaries of one foreach update to 64 MiB a list in float32


class Bucket(NamedTuple):
    """Tensors of one parameter group which share device, dtype and treatment."""

    params: list[Tensor]
    grads: list[Tensor]
    adapted: bool


def check(name: str, value: Any, ok: bool, rule: str) -> None:
    """Raise ``ValueError("Invalid <name>: <value> (must be <rule>)")`` unless ``ok``."""
    if not ok:
        raise ValueError(f"Invalid {name}: {value!r} (must be {rule})")


def check_number(name: str, value: Any, *, low: float = 0.0, high: float = math.inf, open_low: bool = False) -> None:
    """Check that a number is finite and lies in ``[low, high)``, or ``(low, high)``; a tensor must be 0-dim."""
    rule = f"a finite number {'>' if open_low else '>='} {low:g}" + ("" if high == math.inf else f" and < {high:g}")
    if isinstance(value, Tensor):
        check(name, tuple(value.shape), value.ndim == 0, "a float or a 0-dim tensor, not of this shape")
        if value.device.type != "cpu":  # reading it would wait for the device
            return
        value = value.item()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    check(name, value, number and (low < value if open_low else low <= value) and value < high, rule)


def check_betas(betas: Any) -> None:
    """Check a pair of decay rates, each in [0, 1)."""
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    numbers = pair and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    check("betas", betas, numbers, "two numbers >= 0 and < 1")


def check_params(params: list[Tensor]) -> None:
    """Refuse complex, integer and sparse parameters, and, in torch's words, what is no tensor."""
    for param in params:
        if not isinstance(param, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {torch.typename(param)}")
        if param.layout != torch.strided or not param.is_floating_point():
            what = "sparse" if param.layout != torch.strided else str(param.dtype).removeprefix("torch.")
            raise ValueError(f"Invalid params: a {what} tensor (must be dense, real floating point)")


def norms(tensors: list[Tensor]) -> Tensor:
    """2-norms of ``n`` tensors of one device and dtype as a vector of shape ``[n]``, at least in float32."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))


def sum_norms(tensors: list[Tensor], others: list[Tensor], alpha: float) -> Tensor:
    """Norms of ``tensors[i] + alpha * others[i]``, shape ``[n]``; on CPU with one temporary for all of them."""
    if tensors[0].device.type != "cpu":
        return norms(torch._foreach_add(tensors, others, alpha=alpha))
    scratch = tensors[0].new_empty(max(tensor.numel() for tensor in tensors))
    found = []
    for a, b in zip(tensors, others, strict=True):
        out = scratch[: a.numel()].as_strided(a.shape, a.stride()) if same_layout(a) else torch.empty_like(a)
        found.append(norms([torch.add(a, b, alpha=alpha, out=out)]))
    return torch.cat(found)


def scaled_by_layer(tensors: list[Tensor], factors: Tensor) -> None:
    """Multiply each of ``n`` tensors, in place, by its element of ``factors`` (shape ``[n]``)."""
    torch._foreach_mul_(tensors, list(factors.unbind()))


def scalar_for(like: Tensor, value: float | Tensor) -> float | Tensor:
    """A 0-dim tensor (a rate, a correction) in the form in which foreach takes it for tensors like ``like``.

    One on the CPU becomes a float for tensors elsewhere: reading it waits for no device.
    """
    if not isinstance(value, Tensor):
        return value
    if value.device != like.device and value.device.type == "cpu":
        return value.item()
    return value.to(like.device, torch.promote_types(like.dtype, torch.float32))


def safe_ratio(top: Tensor, bottom: Tensor, valid: Tensor) -> Tensor:
    """``top / bottom`` where ``valid``, else 1: a layer whose weights or gradients are zero is not adapted."""
    return torch.where(valid, top / bottom, torch.ones_like(top))


def same_layout(*tensors: Tensor) -> bool:
    """Whether the tensors lie densely in memory in the same order, as torch's fused CPU kernels silently assume."""
    first, strides = tensors[0], tensors[0].stride()
    dense = first.is_contiguous() or (first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last))
    return dense and all(tensor.stride() == strides for tensor in tensors[1:])


class LayerwiseOptimizer(Optimizer):
    """What our own rules share: groups, checks, step counter, trust ratios, loading of older states.

    A subclass gives ``check_group(group)`` and ``update_group(group)``. Groups may override every argument.

    Attributes:
        fast_cpu: Use torch's fused CPU kernels where they apply. The results are equal but for rounding.
        counts_steps: Keep ``group["step"]``, a 0-dim tensor on the device of the group's parameters.
        cpu_bucket: `BUCKET` on the CPU; a small one keeps tensors in the cache from one pass over them to the next.
    """

    fast_cpu = True
    counts_steps = False
    cpu_bucket = BUCKET

    def __init__(self, params: Any, defaults: dict[str, Any]):
        self._forget_steps()
        super().__init__(params, defaults)

    def _forget_steps(self) -> None:
        self._trust: list[tuple[list[Tensor], Tensor]] = []
        self._planner, self._planned = Planner(), {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its tensors and its arguments.

        Args:
            param_group: ``{"params": tensors, argument: value, ...}``; what is left out comes from the constructor.

        Raises:
            ValueError: For complex or sparse parameters, or a bad argument; the group is then not added.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_params(group["params"])
            fused = group.get("fused", False)
            check("fused", fused, isinstance(fused, bool), "True or False")
            if fused:
                check_triton(group["params"])
            self.check_group(group)
        except ValueError:
            self.param_groups.pop()
            raise
        self._place_step(group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_steps()
        arguments = inspect.signature(type(self).__init__).parameters.values()
        known = {a.name: a.default for a in arguments if a.default is not inspect.Parameter.empty}
        known |= {name: value for name, value in self.defaults.items() if name != "differentiable"}  # torch adds that
        for group in self.param_groups:
            for name, value in known.items():
                group.setdefault(name, value)
            self._place_step(group)

    def _place_step(self, group: dict[str, Any]) -> None:
        if self.counts_steps:
            device = group["params"][0].device if group["params"] else torch.device("cpu")
            dtype = torch.float32 if device.type == "mps" else torch.float64
            group["step"] = torch.as_tensor(group.get("step", 0), dtype=dtype, device=device)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        raise NotImplementedError

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        raise NotImplementedError

    def begin_step(self) -> None:
        """Do what concerns all groups at once, before the first of them is updated."""

    def end_step(self) -> None:
        """Do what concerns all groups at once, after the last of them was updated."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. Parameters without a gradient are skipped; gradients are not changed.

        Args:
            closure: Re-evaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, else None.

        Raises:
            RuntimeError: For a sparse gradient, or when state would have to be made while a CUDA graph is captured.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._trust, self._planned = [], {}
        self.begin_step()
        for group in self.param_groups:
            self.update_group(group)
        self.end_step()
        return loss

    def trust_ratios(self) -> dict[Tensor, Tensor]:
        """Trust ratios of the last step by parameter, as 0-dim tensors on its device, without waiting for it.

        Layers that are not adapted are left out. Neither the learning rate nor TVLARS's phi is in them.
        """
        return {p: ratio for params, ratios in self._trust for p, ratio in zip(params, ratios.unbind(), strict=True)}

    def keep_ratios(self, params: list[Tensor], ratios: Tensor) -> None:
        """Remember the trust ratios (shape ``[len(params)]``) of this step."""
        self._trust.append((params, ratios))

    def state_tensors(self, params: list[Tensor], key: str) -> list[Tensor]:
        """The state tensors called ``key`` of ``params``, made as zeros where missing."""
        for param in params:
            if key not in self.state[param]:
                if param.is_cuda and torch.cuda.is_current_stream_capturing():
                    raise RuntimeError(f"{type(self).__name__}: take one step before capturing a CUDA graph")
                self.state[param][key] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return [self.state[param][key] for param in params]

    def plans(self, group: dict[str, Any], keys: list[str]) -> tuple[list[Plan], list[Tensor]]:
        """What of a group the fused kernels take in this step, and the parameters which they leave to `buckets`.

        ``keys`` are the names of the rule's state tensors.
        """
        if not group.get("fused") or "fused" not in self.defaults:  # not every subclass has kernels
            return [], group["params"]

        def states(params: list[Tensor]) -> list[list[Tensor]]:
            held = [self.state[p] for p in params] if keys else []
            try:
                return [[of[key] for of in held] for key in keys]
            except KeyError:
                return [self.state_tensors(params, key) for key in keys]

        if id(group) not in self._planned:
            self._planned[id(group)] = self._planner(group, states)
        return self._planned[id(group)]

    def buckets(self, group: dict[str, Any], params: list[Tensor] | None = None) -> Iterator[Bucket]:
        """Split a group's parameters (or some of them) by device, dtype and exclusion, of bounded size."""
        split: dict[Any, Bucket] = {}
        sizes: dict[Any, int] = {}
        for param in group["params"] if params is None else params:
            if param.grad is None:
                continue
            if param.grad.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            adapted = is_adapted(param, group)
            key = (param.device, param.dtype, adapted)
            limit = self.cpu_bucket if param.device.type == "cpu" else BUCKET
            if key in split and sizes[key] + param.numel() > limit:
                yield split.pop(key)
            if key not in split:
                split[key], sizes[key] = Bucket([], [], adapted), 0
            split[key].params.append(param)
            split[key].grads.append(param.grad)
            sizes[key] += param.numel()
        yield from split.values()
