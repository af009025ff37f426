"""What rules for several workers share: that each worker gives its own gradient, and their state.

A worker computes the gradient of its part of a batch. Several can be held by one process ("virtual workers"); those of
all processes of a group are the rule's workers, numbered process by process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lbt.optim.checks import check
from lbt.optim.exchange import Exchange
from lbt.optim.gradients import Collected, Gradients, state_dtype, views
from lbt.optim.sharded import is_spread, refuse_flat, refuse_zero


class LocalGradients:
    """Part of an optimizer that is given each worker's own gradient, and exchanges by itself what its rule needs.

    After the backward pass of a worker's part ``collect(worker)`` takes ``p.grad``. A worker that has nothing to tell
    is left out: its gradient is zero. ``step()`` without ``collect`` takes ``p.grad`` as that of this process' only
    worker. A layer without a gradient on all workers is left alone; over several processes, which would have to ask
    each other, one that does not require a gradient is.

    Attributes:
        local_gradients: Tells a training loop not to average gradients.
        process_group: Of the workers; None: torch's default group, if there is one when it is used.
        bytes_sent: By a worker in the last update, counted from the buffers.
        per_worker: Names of state tensors whose first dimension counts workers.
        per_server: Names of state tensors of which each process holds a part, and zeros elsewhere.
    """

    local_gradients = True
    process_group: Any = None
    bytes_sent = 0
    per_worker: tuple[str, ...] = ()
    per_server: tuple[str, ...] = ()

    # --- collecting

    @property
    def here(self) -> int:
        """Workers on this process."""
        return self.defaults["workers"] or 1

    def exchange(self) -> Exchange:
        """What this process' workers tell the others by."""
        return Exchange(self.process_group, self.here)

    def row_of(self, worker: int) -> int:
        """The row that a worker of this process adds its gradient to."""
        return worker

    def row_count(self) -> int:
        """Rows there are."""
        return self.here

    def check_workers(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad number of workers, and for layers that are not whole on each process."""
        workers = group["workers"]
        whole = workers is None or (isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1)
        check("workers", workers, whole, "a whole number >= 1, or None")
        refuse_zero(type(self).__name__, "each process sees the gradients of its layers alone")
        for param in group["params"]:
            if is_spread(param):
                raise ValueError(
                    f"{type(self).__name__} takes no DTensors (use parameters that each process has whole)"
                )

    @torch.no_grad()
    def collect(self, worker: int = 0) -> None:
        """Take ``p.grad``, the mean over a worker's part of the batch; what is there of this update is added to.

        Args:
            worker: Of this process, from 0.
        """
        if not 0 <= worker < self.here:
            raise ValueError(f"Invalid worker: {worker!r} (must be one of the {self.here} of this process)")
        self.forget_sums()
        for collected in self._buffers().values():
            collected.take(self.row_of(worker))

    def forget_sums(self) -> None:
        """Called before something is collected."""

    def _buffers(self) -> dict[Any, Collected]:
        held = self.__dict__.setdefault("_rows", {})
        layers: dict[Any, list[Tensor]] = {}
        for index, group in enumerate(self.param_groups):
            for param in group["params"]:
                if param.numel():
                    layers.setdefault((index, param.device, state_dtype(param)), []).append(param)
                elif param.grad is not None and param.grad.layout != torch.strided:
                    raise RuntimeError("rules for several workers do not support sparse gradients")
        for key, some in layers.items():
            known = held.get(key)
            if known is None or len(known.layers) != len(some) or any(map(_differ, known.layers, some)):
                held[key] = Collected(some, self.row_count())
        for key in held.keys() - layers.keys():
            del held[key]
        return held

    def begin_collected(self) -> None:
        """See that something is collected; `step` calls it first."""
        held = self._buffers()
        if any(collected.used for collected in held.values()):
            return
        given = any(p.grad is not None for group in self.param_groups for p in group["params"])
        if given and self.here > 1:
            raise RuntimeError(f"{self.here} workers: call collect(worker) after the backward pass of each one's part")
        if given:
            self.collect(0)

    def end_collected(self, exchange: Exchange) -> None:
        """Forget what was collected and keep what was sent; `step` calls it last."""
        self.bytes_sent = round(exchange.sent)
        for collected in self._buffers().values():
            collected.clear()

    def collected(self, index: int, exchange: Exchange) -> Iterator[Gradients]:
        """What was collected of a group."""
        for key, held in self._buffers().items():
            if key[0] != index:
                continue
            for param in held.layers:
                refuse_flat(param, type(self).__name__)
            for row in set(range(len(held.rows))) - held.used:
                held.rows[row].zero_()
            alone = exchange.processes == 1
            wanted = [layer in held.seen or (not alone and layer.requires_grad) for layer in held.layers]
            if any(wanted):
                yield Gradients(key, held.layers, held.rows).only(wanted)

    # --- state

    def joined_state(
        self,
        found: Gradients,
        name: str,
        rows: int | None = None,
        length: int | None = None,
        laid_out: Callable[[Tensor], Any] | None = None,
    ) -> Tensor:
        """The layers' state ``name`` side by side, ``[d]`` or ``[rows, d]``, made as zeros where missing.

        What the layers hold are views of it, so that a whole vector is computed with and each layer is saved.

        Args:
            found: Whose layers.
            name: Of the state.
            rows: Leading dimension; None: there is none.
            length: Of the vector, at least ``d``; what is beyond it is zero.
            laid_out: Is given the vector when it has been made of other layers than before, or of a loaded state.
        """
        kept = self.__dict__.setdefault("_joined", {})
        held = kept.get((found.key, name))
        if held is not None and len(held[1]) == len(found.layers):
            vector, known = held
            if all(self.state[layer].get(name) is view for layer, view in zip(found.layers, known, strict=True)):
                return vector
        lead = () if rows is None else (rows,)
        size = sum(layer.numel() for layer in found.layers)
        vector = found.rows.new_zeros(*lead, size if length is None else length)
        pieces = views(vector[..., :size], found.layers)
        for layer, piece in zip(found.layers, pieces, strict=True):
            if name in self.state[layer]:
                piece.copy_(self.state[layer][name])
            self.state[layer][name] = piece
        if laid_out is not None:
            laid_out(vector)
        kept[found.key, name] = vector, pieces
        return vector

    def forget_joined(self) -> None:
        """Forget how the state lies side by side; it is looked at anew."""
        self.__dict__.pop("_joined", None)
        self.__dict__.pop("_rows", None)

    def consolidate_state_dict(self) -> None:
        """Fetch the state of all workers, so that this process' next `state_dict` has it; all processes call it."""
        exchange = self.exchange()
        self._whole: dict[Tensor, dict[str, Tensor]] = {}
        for group in self.param_groups:
            for param in group["params"]:
                held = self.state.get(param, {})
                whole = {name: exchange.gathered(value) for name, value in self.worker_state(param, held).items()}
                parts = [name for name in self.per_server if name in held]
                self._whole[param] = whole | {name: exchange.summed(held[name].clone()) for name in parts}
        if exchange.first:  # the first process saves
            self._whole = {}

    def worker_state(self, param: Tensor, held: dict[str, Any]) -> dict[str, Tensor]:
        """What the workers of this process have each for itself, ``[here, ...]``."""
        return {name: held[name] for name in self.per_worker if name in held}

    def whole_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A `state_dict` that says of how many workers it is, with all that has been consolidated."""
        whole = self.__dict__.pop("_whole", {})
        numbers = {}
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            numbers |= dict(zip(group["params"], saved["params"], strict=True))
            saved["workers"] = self.exchange().count
        for param, fetched in whole.items():
            if fetched:
                state_dict["state"][numbers[param]] = state_dict["state"].get(numbers[param], {}) | fetched
        return state_dict

    def own_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Of a `state_dict` what the workers of this process need.

        Raises:
            ValueError: It is that of another number of workers.
        """
        exchange = self.exchange()
        for group in state_dict["param_groups"]:
            workers = group.get("workers") or exchange.count
            check("state_dict", f"of {workers} workers", workers == exchange.count, f"of {exchange.count}")
        own = slice(exchange.first, exchange.first + exchange.here)
        state = {}
        for number, held in state_dict["state"].items():
            state[number] = dict(held)
            for name in self.per_worker:
                if name in held and len(held[name]) == exchange.count > exchange.here:
                    state[number][name] = held[name][own]
                    if exchange.first:  # the first process shares them out (`joined_state`)
                        zeros = {name: torch.zeros_like(held[name]) for name in self.per_server if name in held}
                        state[number] |= zeros
        groups = [{**group, "workers": self.defaults["workers"]} for group in state_dict["param_groups"]]
        return {**state_dict, "state": state, "param_groups": groups}


def _differ(one: Tensor, other: Tensor) -> bool:
    return one is not other


def is_local(optimizer: Optimizer) -> bool:
    """Whether an optimizer is given each worker's own gradient."""
    return getattr(optimizer, "local_gradients", False)
