"""What workers send each other, and how many bytes that is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Exchange:
    """What workers tell each other, and how many bytes one of them sends for it.

    Args:
        group: Process group, None for torch's default one, if there is one.
        here: Workers on this process.

    Attributes:
        here, count: Workers on this process, and in all.
        first: The first worker here.
        processes: Of the group.
        sent: Bytes that a worker has sent, counted from the buffers: of a ring all-reduce of ``b`` bytes
            ``2 (n - 1)/n * b``, of what is sent to each of the others once ``(n - 1)/n`` of all that arrives.
    """

    def __init__(self, group: Any, here: int):
        distributed = torch.distributed
        joined = distributed.is_available() and distributed.is_initialized()
        self._group, self.here = group, here
        self.processes = distributed.get_world_size(group) if joined else 1
        self.first = here * distributed.get_rank(group) if joined else 0
        self.count, self.sent = here * self.processes, 0.0

    def _count(self, nbytes: int) -> None:
        self.sent += (self.count - 1) / self.count * nbytes

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in the tensor's place."""
        self._count(2 * tensor.nbytes)
        if self.processes > 1:
            torch.distributed.all_reduce(tensor, group=self._group)
        return tensor

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over all workers, ``[d]``, of this process' summands ``[r, d]``."""
        return self.total(rows.sum(0)).div_(self.count)

    def to_servers(self, rows: Tensor) -> Tensor:
        """Each worker's row ``[here, n, b]``, an element for each worker; what those here get, ``[n, here, b]``."""
        self._count(rows[0].nbytes)
        if self.processes == 1:
            return rows
        to = rows.unflatten(1, (self.processes, self.here)).transpose(0, 1).contiguous()
        found = torch.empty_like(to)
        torch.distributed.all_to_all_single(found, to, group=self._group)
        return found.flatten(0, 1)

    def all_of(self, rows: Tensor) -> Tensor:
        """The rows of all workers, ``[n, ...]``, of those of the workers here, ``[here, ...]``."""
        self._count(rows[0].nbytes * self.count)
        return self.gathered(rows)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in the tensor's place, not counted: for what is no part of an update."""
        if self.processes > 1:
            torch.distributed.all_reduce(tensor, group=self._group)
        return tensor

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all workers, not counted."""
        if self.processes == 1:
            return rows
        found = rows.new_empty(self.count, *rows.shape[1:])
        torch.distributed.all_gather_into_tensor(found, rows.contiguous(), group=self._group)
        return found
