"""Gradients of several workers, side by side in one tensor for all layers of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Gradients(NamedTuple):
    """Local gradients of some layers, of one group, device and dtype.

    Attributes:
        key: Of group, device and dtype.
        layers: Those that some worker has a gradient of, not empty.
        rows: ``[r, d]``: the layers side by side, a row for each worker here; free to be written to.
    """

    key: Any
    layers: list[Tensor]
    rows: Tensor

    def only(self, wanted: Sequence[bool]) -> Gradients:
        """Those of some of the layers."""
        if all(wanted):
            return self
        pieces = self.rows.split([layer.numel() for layer in self.layers], dim=1)
        chosen = [piece for piece, ok in zip(pieces, wanted, strict=True) if ok]
        layers = [layer for layer, ok in zip(self.layers, wanted, strict=True) if ok]
        return Gradients(self.key, layers, torch.cat(chosen, dim=1) if chosen else self.rows[:, :0])

    def views(self, vector: Tensor) -> list[Tensor]:
        """A vector ``[d]`` (or more) as tensors like the layers."""
        return views(vector, self.layers)


def views(vector: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """Pieces of ``[..., d]`` as tensors ``[..., *shape]`` like the layers."""
    found, start = [], 0
    for layer in layers:
        piece = vector[..., start : start + layer.numel()]
        found.append(piece.view((*vector.shape[:-1], *layer.shape)))
        start += layer.numel()
    return found


def side_by_side(tensors: Sequence[Tensor], lead: int = 0) -> Tensor:
    """Tensors ``[..., *shape]`` with ``lead`` leading dimensions as one, ``[..., d]``."""
    return torch.cat([tensor.flatten(lead) for tensor in tensors], dim=-1)


def state_dtype(layer: Tensor) -> torch.dtype:
    """The type of a layer's state: its own, float32 for float16."""
    return torch.float32 if layer.dtype == torch.float16 else layer.dtype


class Collected:
    """Rows of the layers of one group, device and dtype, filled worker by worker."""

    def __init__(self, layers: list[Tensor], rows: int):
        self.layers = layers
        size = sum(layer.numel() for layer in layers)
        self.rows = torch.zeros(rows, size, dtype=state_dtype(layers[0]), device=layers[0].device)
        self.views = [views(row, layers) for row in self.rows]
        self.clear()

    def clear(self) -> None:
        """Forget what has been taken."""
        self.used: set[int] = set()
        self.seen: set[Tensor] = set()

    def take(self, row: int) -> None:
        """Put the layers' gradients into a row, or add them to what is there."""
        given = [(view, layer) for view, layer in zip(self.views[row], self.layers, strict=True)]
        present = [(view, layer.grad) for view, layer in given if layer.grad is not None]
        for _, grad in present:
            if grad.layout != torch.strided:
                raise RuntimeError("rules for several workers do not support sparse gradients")
        into, grads = [view for view, _ in present], [grad for _, grad in present]
        if row in self.used:
            for view, grad in present:
                view.add_(grad)
        else:
            if len(present) < len(given):
                self.rows[row].zero_()
            if into:
                torch._foreach_copy_(into, grads)
        self.used.add(row)
        self.seen.update(layer for _, layer in given if layer.grad is not None)
