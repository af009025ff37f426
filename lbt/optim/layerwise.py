"""The skeleton of a layer-wise optimizer: groups, checks, step counter, state, trust ratios, loading."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.optim.checks import check, check_params
from lbt.optim.sharded import Spread, is_spread, local, refuse_flat, spread_of
from lbt.optim.tensors import norms
from lbt.optim.triton.plan import Plan, Planner, check_triton, is_adapted

BUCKET = 2**24  # elements: bounds the temporaries of one foreach update to 64 MiB a list in float32


class Bucket(NamedTuple):
    """Layers of one parameter group which share device, dtype, treatment and the way they are spread.

    Attributes:
        layers: The parameters; keys of the optimizer's state.
        params, grads: What is computed with: values and gradients, this process' parts of them, or float32 copies.
        adapted: Whether the layers get decay and a trust ratio.
        spread: How they are spread over processes, or None.
    """

    layers: list[Tensor]
    params: list[Tensor]
    grads: list[Tensor]
    adapted: bool
    spread: Spread | None = None

    def norms(self, tensors: list[Tensor]) -> Tensor:
        """Norms of whole layers, shape ``[n]``, from tensors like ``params``."""
        return self.whole_norms(norms(tensors))

    def whole_norms(self, found: Tensor) -> Tensor:
        """Norms of whole layers from those of tensors like ``params``."""
        return found if self.spread is None else self.spread.norms(found)

    def whole(self, index: int, tensor: Tensor) -> Tensor:
        """``tensor``, which is like ``params[index]``, for the whole layer."""
        return tensor if self.spread is None else self.spread.whole(tensor, self.layers[index])

    def part(self, whole: Tensor) -> Tensor:
        """What of a tensor for a whole layer belongs to this process."""
        return whole if self.spread is None else self.spread.part(whole)

    def only(self, places: list[int], grads: list[Tensor] | None = None) -> Bucket:
        """Some of the layers, with other gradients if these are given."""
        grads = self.grads if grads is None else grads
        chosen = ([some[i] for i in places] for some in (self.layers, self.params, grads))
        return Bucket(*chosen, self.adapted, self.spread)


def arguments_are_defaults(init: Callable[..., None]) -> Callable[..., None]:
    """Make of an ``__init__`` one whose arguments, all but ``params``, are the defaults of the parameter groups.

    The class attribute ``fixed`` adds settings which the class does not let its users choose.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: LayerwiseOptimizer, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        init(*given.args, **given.kwargs)
        settings = {name: value for name, value in given.arguments.items() if name not in ("self", "params")}
        LayerwiseOptimizer.__init__(self, given.arguments["params"], settings | self.fixed)

    return wrapped


class LayerwiseOptimizer(Optimizer):
    """What our own rules share. A subclass gives ``check_group(group)`` and ``update_group(group)``.

    Groups may override every argument.

    Attributes:
        cpu_kernels: Use torch's fused CPU kernels where they apply. The results are equal but for rounding.
        counts_steps: Keep ``group["step"]``, a 0-dim tensor on the device of the group's parameters.
        cpu_bucket: `BUCKET` on the CPU; a small one keeps tensors in the cache from one pass over them to the next.
        fixed: Settings of all groups which are no arguments.
    """

    cpu_kernels = True
    counts_steps = False
    cpu_bucket = BUCKET
    fixed: dict[str, Any] = {}  # noqa: RUF012

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
            ValueError: For complex or sparse parameters, pieces of layers, or a bad argument; the group is then not
                added.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_params(group["params"])
            for param in group["params"]:
                refuse_flat(param, type(self).__name__)
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` gave; state that is wider than its parameter stays so."""
        super().load_state_dict(state_dict)
        restore_wide_state(self, state_dict)

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
            ValueError: For parameters which FSDP1 has flattened since the optimizer was made.
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

    def keep_ratios(self, layers: list[Tensor], ratios: Tensor) -> None:
        """Remember the trust ratios (shape ``[len(layers)]``) of this step."""
        self._trust.append((layers, ratios))

    def runs_on_cpu_kernels(self, bucket: Bucket) -> bool:
        """Whether a bucket may be shown to torch's fused CPU kernels; each layer's layout is looked at there."""
        on_cpu = bucket.params[0].device.type == "cpu"
        return on_cpu and self.cpu_kernels and not torch.compiler.is_compiling()

    def state_tensors(self, layers: list[Tensor], key: str) -> list[Tensor]:
        """The state tensors called ``key`` of ``layers``, or this process' parts of them, made as zeros where missing.

        They have the layer's dtype; float32 for float16, which squares of gradients leave in both directions.
        """
        held = []
        for layer in layers:
            state = self.state[layer]
            value, dtype = state.get(key), torch.float32 if layer.dtype == torch.float16 else layer.dtype
            if value is None:
                if layer.is_cuda and torch.cuda.is_current_stream_capturing():
                    raise RuntimeError(f"{type(self).__name__}: take one step before capturing a CUDA graph")
                value = state[key] = torch.zeros_like(layer, dtype=dtype, memory_format=torch.preserve_format)
            elif value.dtype != dtype:  # the model was cast, or the state is an older one
                value = state[key] = value.to(dtype)
            held.append(local(value))
        return held

    def plans(self, group: dict[str, Any], keys: list[str]) -> tuple[list[Plan], list[Tensor]]:
        """What of a group our Triton kernels take in this step, and the parameters which they leave to `buckets`.

        ``keys`` are the names of the rule's state tensors.
        """
        if not group.get("fused") or "fused" not in self.defaults:  # not every subclass has kernels
            return [], group["params"]
        if torch.compiler.is_compiling() or any(map(is_spread, group["params"])):
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
        """Split a group's parameters (or some of them) by device, dtype, exclusion and spread, of bounded size.

        Float16 is computed with in float32: such a bucket has copies, which are written back when the next is asked
        for.
        """
        split: dict[Any, Bucket] = {}
        sizes: dict[Any, int] = {}
        for param in group["params"] if params is None else params:
            grad = param.grad
            if grad is None:
                continue
            refuse_flat(param, type(self).__name__)
            if grad.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            adapted = is_adapted(param, group)
            spread = spread_of(param)
            key = (param.device, param.dtype, adapted, spread)
            limit = self.cpu_bucket if param.device.type == "cpu" else BUCKET
            if key in split and sizes[key] + param.numel() > limit:
                yield from _in_wide_type(split.pop(key))
            if key not in split:
                split[key], sizes[key] = Bucket([], [], [], adapted, spread), 0
            split[key].layers.append(param)
            split[key].params.append(local(param))
            split[key].grads.append(local(grad, param))
            sizes[key] += param.numel()
        for bucket in split.values():
            yield from _in_wide_type(bucket)


def _in_wide_type(bucket: Bucket) -> Iterator[Bucket]:
    if bucket.params[0].dtype != torch.float16:
        yield bucket
        return
    copies = [[tensor.float() for tensor in some] for some in (bucket.params, bucket.grads)]
    yield bucket._replace(params=copies[0], grads=copies[1])
    torch._foreach_copy_(bucket.params, copies[0])


def restore_wide_state(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Give state of a wider type than its parameter's, which torch narrows when it loads, the saved values again."""
    saved = [i for group in state_dict["param_groups"] for i in group["params"]]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, param in zip(saved, params, strict=True):
        for key, value in state_dict["state"].get(i, {}).items():
            narrowed = optimizer.state[param].get(key)
            both = isinstance(value, Tensor) and isinstance(narrowed, Tensor) and param.dtype == torch.float16
            if both and torch.promote_types(value.dtype, narrowed.dtype) != narrowed.dtype:
                optimizer.state[param][key] = value.detach().clone().to(narrowed.device)
