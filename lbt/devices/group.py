"""What a training asks of the devices it runs on; here the answers of a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn

from lbt.errors import UserError


class LostProcessError(UserError):
    """Another process of the run is gone."""


class Part(NamedTuple):
    """What one device computes of a micro-batch, in rows of the whole batch.

    Attributes:
        start: its first row.
        stop: the row after its last one.
        first: the micro-batch's first row.
        whole: images of the micro-batch on all devices.
        weight: what the part's mean counts in a mean over devices: its share of the micro-batch times the number of
            devices; 1 where the parts are equal.
        everywhere: every device computes all of the micro-batch.
    """

    start: int
    stop: int
    first: int
    whole: int
    weight: float = 1.0
    everywhere: bool = True

    @property
    def size(self) -> int:
        """Images of the part."""
        return self.stop - self.start


class Group:
    """The devices of a run and this process's place among them. This one: a single device, which has nobody to ask.

    Attributes:
        rank: this process, from 0; 0 writes record, checkpoint and console.
        size: number of devices.
        process_group: torch's; None: there is none.
        part: what is being computed, while parts of a batch are normalised together; None: each device by itself.
    """

    rank, size = 0, 1
    process_group: Any = None
    part: Part | None = None

    def __deepcopy__(self, memo: dict) -> Group:
        """Returns itself: a copied network is on the same devices."""
        return self

    def parts(self, count: int, micro: int | None = None, unit: int = 1) -> list[Part]:
        """Returns what this device computes of a batch, micro-batch by micro-batch.

        Args:
            count: images of the whole batch.
            micro: images of a micro-batch on all devices; None: the whole batch.
            unit: images that stay together, from each micro-batch's beginning.
        """
        micro = micro or count
        return [self._part(first, min(micro, count - first), unit) for first in range(0, count, micro)]

    def _part(self, first: int, whole: int, unit: int) -> Part:
        return Part(first, first + whole, first, whole)

    @contextmanager
    def computing(self, part: Part | None) -> Iterator[None]:
        """Has norm layers normalise this part together with the other devices'; None: each device by itself."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def exchange(self, module: nn.Module) -> nn.Module:
        """Returns the module as one whose backward pass averages the gradients over the devices."""
        return module

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Returns the context in which gradients of a module from `exchange` are left as they are."""
        return nullcontext()

    def total(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all devices."""
        return tensor

    def means(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns each scalar's mean over all devices."""
        return figures

    def joined(self, rows: Tensor, parts: Sequence[Part]) -> Tensor:
        """Returns all devices' rows, in the whole batch's order: of `rows`, those of the device's `parts`."""
        return rows

    def share(self, count: int) -> slice:
        """Returns which of `count` things are this device's."""
        return slice(0, count)

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """Returns `count` rows, of which each device has its `share`."""
        return rows

    def told(self, row: Tensor) -> Tensor:
        """Returns the rows of numbers that the devices tell each other in the midst of a pass, [devices, n], by rank.

        Args:
            row: this device's, [n], on the CPU.
        """
        return row.unsqueeze(0)

    def first(self, function: Callable[[], Any]) -> Any:
        """Returns what the function returns, or raises what it raises, in the process of rank 0; others wait for it."""
        return function()

    def agreed(self, function: Callable[[], Any]) -> Any:
        """Returns what the function returns in this process.

        Raises:
            UserError: in another one it raised an error; all processes raise the first one's.
        """
        return function()

    def asked(self, interrupt: Any) -> bool:
        """Says, to all processes alike, whether any of them is to stop (`lbt.session.interrupt.Interrupt`)."""
        return interrupt.requested()

    def wait(self) -> None:
        """Waits until all processes are here."""


ALONE = Group()
