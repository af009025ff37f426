"""Parameters of which a process holds a part: layers seen whole where torch says how (DTensor), else refused.

FSDP2 (``fully_shard``) and tensor parallelism give an optimizer DTensors, which know the whole layer. FSDP1 gives it
one-dimensional pieces that know nothing of it, and ZeroRedundancyOptimizer shows an optimizer some of the layers.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lbt.optim.tensors import PLAIN

FLAT = "_fsdp_flattened"  # torch.distributed.fsdp marks with it what is a piece of its flat parameter


class Spread(NamedTuple):
    """How a layer is spread over processes: a device mesh and, for each of its dimensions, a placement."""

    mesh: Any
    placements: tuple[Any, ...]

    def norms(self, found: Tensor) -> Tensor:
        """Norms of whole layers from those of this process' parts, shape ``[n]``, float64."""
        squares = found.to(torch.float64).square()
        for dim, placement in enumerate(self.placements):
            if not placement.is_replicate():
                torch.distributed.all_reduce(squares, group=self.mesh.get_group(dim))
        return squares.sqrt()

    def whole(self, part: Tensor, layer: Tensor) -> Tensor:
        """The whole of which ``part`` is this process' part, laid out as ``layer``."""
        made = _module().DTensor.from_local(
            part, self.mesh, self.placements, run_check=False, shape=layer.shape, stride=layer.stride()
        )
        return made.full_tensor()

    def part(self, whole: Tensor) -> Tensor:
        """This process' part of a tensor that each process has whole; nothing is sent."""
        tensor = _module()
        same = tensor.DTensor.from_local(whole, self.mesh, [tensor.Replicate()] * self.mesh.ndim, run_check=False)
        return same.redistribute(placements=self.placements).to_local()


def _module() -> Any:
    return sys.modules.get("torch.distributed.tensor")  # while nobody has imported it, there are no DTensors


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    if type(tensor) in PLAIN:
        return False
    module = _module()
    return module is not None and isinstance(tensor, module.DTensor)


def spread_of(tensor: Tensor) -> Spread | None:
    """How a DTensor is spread over processes, None for other tensors."""
    return Spread(tensor.device_mesh, tuple(tensor.placements)) if is_spread(tensor) else None


def local(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """This process' part of a DTensor, which shares its memory (spread as ``like``, if given); others as they are."""
    if not is_spread(tensor):
        return tensor
    if like is not None and tensor.placements != like.placements:
        tensor = tensor.redistribute(placements=like.placements)
    return tensor.to_local()


def process_count() -> int:
    """Processes of torch's default group, 1 without one."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def refuse_flat(param: Tensor, who: str) -> None:
    """Raise ValueError for a parameter that FSDP1 has flattened."""
    if getattr(param, FLAT, False):
        raise ValueError(
            f"{who} needs whole layers, and FullyShardedDataParallel (FSDP1) shows pieces of them (use fully_shard, "
            "FSDP2, or DistributedDataParallel)"
        )


def refuse_zero(who: str, why: str) -> None:
    """Raise ValueError when called while a ZeroRedundancyOptimizer makes its part of an optimizer."""
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe(1) if module is not None else None
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), module.ZeroRedundancyOptimizer):
            raise ValueError(f"{who} under ZeroRedundancyOptimizer: {why} (use fully_shard, FSDP2, or plain DDP)")
        frame = frame.f_back
