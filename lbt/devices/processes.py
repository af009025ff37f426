"""The processes of a run on several devices: torch's process group, gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lbt.devices import started, world_size
from lbt.devices.group import ALONE, Group, LostProcessError, Part
from lbt.devices.neighbours import Neighbours
from lbt.errors import UserError, flat

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Yields the group of the processes that torch's launcher started, `ALONE` where it started none.

    Processes of one machine share its cores, unless `OMP_NUM_THREADS` says how many threads each has. They stay one
    group until they end.

    Args:
        device: "cpu" or "cuda", of which each process of a machine takes one.

    Raises:
        LostProcessError: another process is gone.
    """
    if not started():
        yield ALONE
        return
    if not dist.is_initialized():
        _join(device)
    group = Processes(device)
    try:
        yield group
        group.close()
    except BaseException as error:
        atexit.unregister(_leave)  # which could wait for the others for ever
        if is_lost(error):
            raise LostProcessError(
                f"another process of this run is gone; the same command goes on ({flat(error)})"
            ) from error
        raise


def _join(device: str) -> None:
    here = _processes_here()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // here))
    if here == world_size() and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name may lead nowhere
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())  # a task may see one alone
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    warnings.filterwarnings("ignore", "`torch.distributed.all_", FutureWarning)  # the new names are torch 2.14's
    dist.init_process_group(BACKENDS[device])
    atexit.register(_leave)


def _processes_here() -> int:
    """Returns the run's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Says whether an error means that another process of the run is gone."""
    if isinstance(error, LostProcessError | dist.DistError):
        return not isinstance(error, torch.OutOfMemoryError)
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        word in said for word in ("gloo", "Connection closed by peer", "NCCL error", "ncclRemoteError")
    )


class Processes(Group):
    """Several processes, each with a device. All of them call the methods in the same order.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str):
        self.rank, self.size, self.process_group = dist.get_rank(), dist.get_world_size(), dist.group.WORLD
        self._lags = device != "cpu"  # a host is ahead of its GPU, and need not wait for the other hosts
        self.aside = dist.new_group(backend="gloo")  # what hosts tell each other does not wait for the devices
        self._asked: tuple[Any, Tensor] | None = None
        here = _processes_here() == self.size and device == "cpu"
        self._neighbours = Neighbours.meet(self.rank, self.size, self._from_first) if here else None

    def _part(self, first: int, whole: int, unit: int) -> Part:
        units = -(-whole // unit)
        if units < self.size:
            return super()._part(first, whole, unit)
        start, stop = (min(rank * units // self.size * unit, whole) for rank in (self.rank, self.rank + 1))
        return Part(first + start, first + stop, first, whole, (stop - start) * self.size / whole, everywhere=False)

    def exchange(self, module: nn.Module) -> nn.Module:
        """Returns the module in a DistributedDataParallel.

        Its buckets are not laid out anew after the first update, so that a resumed run sums in the same order; torch
        does so for models of which a part may be unused.
        """
        how = {"broadcast_buffers": False, "find_unused_parameters": True, "gradient_as_bucket_view": True}
        return DistributedDataParallel(module, **how)

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Returns DistributedDataParallel's `no_sync`."""
        return module.no_sync()

    def total(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all devices."""
        return _summed(tensor.clone())

    def means(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns each scalar's mean over all devices, in float64."""
        found = _summed(torch.stack([figure.double() for figure in figures.values()])) / self.size
        return dict(zip(figures, found.unbind(), strict=True))

    def joined(self, rows: Tensor, parts: Sequence[Part]) -> Tensor:
        """Returns all devices' rows, in the whole batch's order: of `rows`, those of the device's `parts`."""
        whole = rows.new_zeros(sum(part.whole for part in parts), *rows.shape[1:])
        for part, own in zip(parts, rows.split([part.size for part in parts]), strict=True):
            if not part.everywhere or self.rank == 0:
                whole[part.start : part.stop] = own
        return _summed(whole)

    def share(self, count: int) -> slice:
        """Returns which of `count` things are this device's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """Returns `count` rows, of which each device has its `share`."""
        whole = rows.new_zeros(count, *rows.shape[1:])
        whole[self.share(count)] = rows
        return _summed(whole)

    def told(self, row: Tensor) -> Tensor:
        """Returns the rows of numbers that the devices tell each other in the midst of a pass, [devices, n], by rank.

        Raises:
            LostProcessError: another process is gone.
        """
        if self._neighbours is not None:
            return self._neighbours.told(row)
        rows = row.new_empty(self.size, len(row))
        dist.all_gather(list(rows), row, group=self.aside)
        return rows

    def first(self, function: Callable[[], Any]) -> Any:
        """Returns what the function returns, or raises what it raises, in the process of rank 0; others wait for it."""
        result, error = self._from_first(_attempt(function) if self.rank == 0 else None)
        if error is not None:
            raise error
        return result

    def _from_first(self, told: Any) -> Any:
        """Returns what the process of rank 0 calls this with."""
        box = [told]
        dist.broadcast_object_list(box, src=0, group=self.aside)
        return box[0]

    def agreed(self, function: Callable[[], Any]) -> Any:
        """Returns what the function returns in this process.

        Raises:
            UserError: in another one it raised an error; all processes raise the first one's.
        """
        result, error = _attempt(function)
        errors: list[Any] = [None] * self.size
        dist.all_gather_object(errors, error, group=self.aside)
        for error in errors:
            if error is not None:
                raise error
        return result

    def asked(self, interrupt: Any) -> bool:
        """Says, to all processes alike, whether any of them is to stop; on GPUs one update later."""
        number = torch.tensor([(interrupt.signal or signal.SIGTERM) if interrupt.requested() else 0])
        now = dist.all_reduce(number, dist.ReduceOp.MAX, group=self.aside, async_op=True), number
        before, self._asked = (self._asked, now) if self._lags else (now, None)
        if before is None:
            return False
        before[0].wait()
        found = int(before[1])
        if found and interrupt.signal is None:
            interrupt.signal = found
        return found > 0

    def wait(self) -> None:
        """Waits until all processes are here."""
        dist.barrier(group=self.aside)

    def close(self) -> None:
        """Waits until all processes are here and have nothing to tell."""
        if self._asked is not None:
            self._asked[0].wait()
        self.wait()


def _summed(tensor: Tensor) -> Tensor:
    """Puts the sum over all devices in the tensor's place."""
    dist.all_reduce(tensor)
    return tensor


def _attempt(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Returns a function's result, and the error it raised as one that can be sent."""
    try:
        return function(), None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, UserError(f"{type(error).__name__}: {flat(error)}")
        return None, error
