"""Where the tensors of a parameter group lie, kept between steps and checked at each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import reduce
from importlib.util import find_spec
from operator import attrgetter, itemgetter, or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

TRUST = 6  # constants of the trust ratio, which precede those of the rule
CHUNK = 4096  # elements handled by one program; a power of two
DTYPES = (torch.float32, torch.float64, torch.bfloat16)  # float16 has its state in float32: foreach
LOOKED_AT = (Tensor.data_ptr, Tensor.stride, attrgetter("dtype"))


def available(device: torch.device) -> bool:
    """Whether the kernels run on tensors there: on a GPU, and on the CPU in Triton's interpreter (for tests)."""
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    return device.type == "cuda"


def check_triton(params: list[Tensor]) -> None:
    """Raise ValueError where parameters are on a GPU and triton is not installed."""
    if any(p.is_cuda for p in params) and find_spec("triton") is None:
        raise ValueError("Invalid fused: True (must be False for parameters on a GPU without the package triton)")


def capturing(device: torch.device) -> bool:
    """Whether work for ``device`` is being recorded into a CUDA graph instead of done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def stream_of(device: torch.device) -> int:
    """The stream that work for ``device`` goes to."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def send(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a vector on the device, without waiting for it.

    The copy reads pinned memory, which torch's allocator does not hand out again before the copy is done. A graph would
    read that memory at each replay, so that there the numbers become arguments of kernels.
    """
    if capturing(device):
        made = torch.zeros(len(numbers), dtype=dtype, device=device)
        torch._foreach_add_(list(made.unbind()), list(numbers))
        return made
    here = torch.tensor(numbers, dtype=dtype, device="cpu")
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


class Mirror:
    """Numbers on the device, sent again when they have changed. What was sent is never written to."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype, self.device = dtype, device
        self.numbers: Sequence[float] = ()
        self.sent: Tensor | None = None
        self.captured: list[Tensor] = []  # graphs read these as long as they live

    def __call__(self, numbers: Sequence[float]) -> Tensor:
        """The vector with these numbers."""
        if self.sent is not None and numbers == self.numbers:
            if capturing(self.device):
                self.captured.append(self.sent)
            return self.sent
        fresh = send(numbers, self.dtype, self.device)
        if not capturing(self.device):  # else it has the numbers only once the graph was replayed
            self.sent, self.numbers = fresh, numbers
        return fresh


class Plan:
    """Tensors of one device and dtype, those with a trust ratio first, and their division into chunks.

    Attributes:
        params: The parameters.
        adapted: How many of them have a trust ratio.
        chunks, adapted_chunks: Number of chunks of all of them and of these.
        table, aligned: Addresses ``[rows, n]`` of parameters, gradients and states in this step; whether all are
            multiples of 16 bytes.
    """

    def __init__(self, params: list[Tensor], adapted: int, chunk: int):
        self.params, self.adapted, self.chunk = params, adapted, chunk
        self.device, self.dtype = params[0].device, params[0].dtype
        self.acc = torch.promote_types(self.dtype, torch.float32)
        numel = torch.tensor([p.numel() for p in params], device="cpu")
        counts = (numel + chunk - 1) // chunk
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.chunks, self.adapted_chunks = int(first[-1]), int(first[adapted])
        owner = torch.repeat_interleave(torch.arange(len(params), device="cpu"), counts)
        sizes = [len(owner), len(first), len(numel)]
        sent = send(torch.cat([owner, first, numel]).tolist(), torch.int64, self.device)
        self.owner, self.first, self.numel = sent.split(sizes)
        self._addresses = Mirror(torch.int64, self.device)
        self.table: Tensor | None = None
        self.hyper = Mirror(torch.float64, self.device)

    def locate(self, addresses: Sequence[int]) -> None:
        """Take note of this step's addresses, row after row."""
        table = self._addresses(addresses)
        if table is not self.table:
            self.table, self.aligned = table, reduce(or_, addresses, 0) % 16 == 0

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Scratch memory, in the accumulation's precision unless another one is asked for."""
        return torch.empty(shape, dtype=dtype or self.acc, device=self.device)

    def here(self) -> Any:
        """The context in which kernels are started on the plan's device."""
        away = self.device.type == "cuda" and self.device.index != torch.cuda.current_device()
        return torch.cuda.device(self.device) if away else nullcontext()


class _Known(NamedTuple):
    seen: list[Any]
    plans: list[tuple[Plan, Callable[..., tuple[int, ...]]]]  # with what picks its tensors' addresses out of all
    rest: list[Tensor]
    held: list[Any]  # keeps alive what `seen` knows by its id


class Planner:
    """The plans of an optimizer's parameter groups."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._captured: list[_Known] = []  # graphs read their tables as long as they live

    def __call__(
        self, group: dict[str, Any], states: Callable[[list[Tensor]], list[list[Tensor]]]
    ) -> tuple[list[Plan], list[Tensor]]:
        """Plans for this step, and the parameters with gradients which the kernels cannot take.

        Args:
            group: The parameter group.
            states: Gives the state tensors of parameters, a list for each kind.

        Raises:
            RuntimeError: When tables would have to be made while a CUDA graph is captured.
        """
        params = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        if not params or set(map(attrgetter("layout"), grads)) != {torch.strided}:
            return [], params
        rows = [params, grads, *states(params)]
        tensors = [t for row in rows for t in row]
        pointers, strides, dtypes = (list(map(look, tensors)) for look in LOOKED_AT)
        n = len(params)
        known, recording = self._known.get(id(group)), capturing(params[0].device)
        # tables are used on one stream, so that the allocator knows when they are free; a graph keeps its own anyway
        stream = known.seen[0] if known is not None and recording else stream_of(params[0].device)
        fixed = pointers[:n] + pointers[2 * n :]  # tensors of another size or device also lie elsewhere
        seen = [stream, list(map(id, params)), strides, dtypes, fixed, group.get("exclude_1d")]
        if known is None or known.seen != seen:
            if recording:
                raise RuntimeError(
                    "fused: take one step before capturing a CUDA graph, with the same gradients present"
                )
            known = self._known[id(group)] = _Known(seen, *_divide(rows, group), [group, params])
        elif recording:
            self._captured.append(known)
        for plan, pick in known.plans:
            plan.locate(pick(pointers))
        return [plan for plan, _ in known.plans], known.rest


def _divide(rows: list[list[Tensor]], group: dict[str, Any]) -> tuple[list[Any], list[Tensor]]:
    """Plans by device and dtype, each with what picks its tensors' addresses, and the parameters left over."""
    split: dict[Any, list[int]] = {}
    rest, n = [], len(rows[0])
    for i, together in enumerate(zip(*rows, strict=True)):
        if _same_memory(together):
            split.setdefault((together[0].device, together[0].dtype), []).append(i)
        else:
            rest.append(together[0])
    plans = []
    for places in split.values():
        adapted = [i for i in places if is_adapted(rows[0][i], group)]
        places = adapted + [i for i in places if not is_adapted(rows[0][i], group)]
        pick = itemgetter(*(row * n + i for row in range(len(rows)) for i in places))
        plans.append((Plan([rows[0][i] for i in places], len(adapted), CHUNK), pick))
    return plans, rest


def is_adapted(param: Tensor, group: dict[str, Any]) -> bool:
    """Whether a parameter gets decay and a trust ratio."""
    return not (group.get("exclude_1d", False) and param.ndim <= 1)


def _same_memory(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the kernels can walk these tensors side by side as flat memory."""
    first = tensors[0]
    plain = all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
    if not plain or first.dtype not in DTYPES or not available(first.device):
        return False
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    dense = first.is_contiguous() or (first.ndim in formats and first.is_contiguous(memory_format=formats[first.ndim]))

    def layout(t: Tensor) -> tuple[Any, ...]:  # the stride of a dimension of size 1 means nothing
        return t.device, t.dtype, t.shape, tuple(s for n, s in zip(t.shape, t.stride(), strict=True) if n != 1)

    return dense and all(layout(t) == layout(first) for t in tensors[1:])
