"""Work on matrices that every process has, shared out: each does its part, and all of them have the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def owners(costs: list[int], count: int) -> list[int]:
    """Which of ``count`` processes does each piece of work: runs of pieces, of nearly the same cost each."""
    found, before, total = [], 0, sum(costs)
    for cost in costs:
        found.append((2 * before + cost) * count // (2 * total))  # where its middle lies
        before += cost
    return found


def refuse_others(params: list[Tensor], process_group: Any) -> None:
    """Raise ValueError, in all processes of a group, where they have not the same layers."""
    own = [tuple(param.shape) for param in params]
    shapes: list[Any] = [None] * torch.distributed.get_world_size(process_group)
    torch.distributed.all_gather_object(shapes, own, group=process_group)
    if any(other != shapes[0] for other in shapes):
        raise ValueError(
            "share_with: these processes have different layers (each needs the whole model, as under "
            "DistributedDataParallel; without share_with each computes by itself)"
        )


def shared(function: Callable[[Tensor], Tensor], batches: list[Tensor], process_group: Any) -> list[Tensor]:
    """``function`` of each batch of square matrices, all of one dtype and device, in one exchange.

    Args:
        function: Of matrices ``[n, m, m]``, each by itself, in a time of ``n * m**3``; gives as many numbers.
        batches: Each ``[n, m, m]``, the same in all processes.
        process_group: Of torch's; None: this process does everything.
    """
    if process_group is None or not batches:
        return [function(batch) for batch in batches]
    rank, count = torch.distributed.get_rank(process_group), torch.distributed.get_world_size(process_group)
    owner = owners([batch.shape[-1] ** 3 for batch in batches for _ in batch], count)
    parts, first = [], 0  # of each batch that of each process
    for batch in batches:
        own = owner[first : first + len(batch)]
        parts.append(batch.split([own.count(process) for process in range(count)]))
        first += len(batch)
    lengths = [sum(part[process].numel() for part in parts) for process in range(count)]
    sent = batches[0].new_zeros(max(lengths))
    made = [function(part[rank]).flatten() for part in parts if len(part[rank])]
    if made:
        torch.cat(made, out=sent[: lengths[rank]])
    received = list(sent.new_empty(count, len(sent)).unbind())
    torch.distributed.all_gather(received, sent, group=process_group)
    pieces = [
        row[:length].split([part[process].numel() for part in parts])
        for process, (row, length) in enumerate(zip(received, lengths, strict=True))
    ]
    return [torch.cat(of).view_as(batch) for of, batch in zip(zip(*pieces, strict=True), batches, strict=True)]
