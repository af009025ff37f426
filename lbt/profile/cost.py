"""What a computation costs and what a machine could do: FLOPs and bytes counted, ceilings measured."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_WRITES_NOTHING = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided")


class Counter(TorchDispatchMode):
    """Counts, operation by operation, the FLOPs of products and convolutions and the bytes read and written.

    A multiplication and an addition are two FLOPs. Bytes are counted as if nothing stayed in a cache; views have none.

    Attributes:
        operations: (FLOPs, bytes) of each one so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        """Executes an operation and adds what it costs."""
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        formula = flop_registry.get(function._overloadpacket)
        flops = formula(*arguments, **keywords, out_val=result) if formula else 0
        moved = 0
        if function._schema.name not in _WRITES_NOTHING and not _is_view(function):
            moved = sum(map(_size, _tensors((arguments, keywords)))) + sum(map(_size, _tensors(result)))
        self.operations.append((flops, moved))
        return result


@dataclass(frozen=True)
class Cost:
    """What a computation costs when each of its operations is a kernel of its own, as in eager execution.

    Attributes:
        operations: FLOPs and bytes of each one.
    """

    operations: tuple[tuple[int, int], ...]

    @property
    def flops(self) -> int:
        """FLOPs of all operations."""
        return sum(flops for flops, _ in self.operations)

    @property
    def bytes(self) -> int:
        """Bytes read and written by all operations."""
        return sum(moved for _, moved in self.operations)

    def floor(self, peaks: tuple[float, float]) -> tuple[float, float]:
        """Returns the least seconds of the operations bound by arithmetic and of those bound by memory.

        Args:
            peaks: FLOP/s and bytes/s the device reaches.
        """
        times = [(flops / peaks[0], moved / peaks[1]) for flops, moved in self.operations]
        return sum(one for one, other in times if one > other), sum(other for one, other in times if one <= other)


def _is_view(function: Any) -> bool:
    infos = [returned.alias_info for returned in function._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _size(tensor: Tensor) -> int:
    """Bytes behind a tensor; an expanded one has fewer than its elements suggest."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def count(function: Callable[[], Any]) -> Cost:
    """Executes a function and returns its cost."""
    with Counter() as counter:
        function()
    return Cost(tuple(counter.operations))


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Returns the time a function takes, until the device is done."""
    synchronise(device)
    started = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - started


def ceilings(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> tuple[float, float]:
    """Measures what the device reaches in a large matrix product and in a large copy.

    Args:
        device: which one.
        dtype: of the matrices.
        repeats: measurements, of which the fastest counts.

    Returns:
        FLOP/s and bytes/s, read and written bytes together.
    """
    side, length = (8192, 2**30) if device.type == "cuda" else (1024, 2**27)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def fastest(function: Callable[[], Any]) -> float:
        function()
        return min(seconds(function, device) for _ in range(repeats))

    return 2 * side**3 / fastest(lambda: left @ right), 2 * length / fastest(lambda: target.copy_(source))
