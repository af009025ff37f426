"""Means of vectors over workers by their signs, with error feedback (Tang et al. 2021, arXiv 2102.02888).

``C[x] = s * sign(x)``, ``sign(0) = +1``, ``s = ||x|| / sqrt(d)``. Worker i sends ``C[y]`` of ``y = x_i + e_i`` and
keeps ``e_i = y - C[y]``. The vector is cut in n chunks; worker j is the server of chunk j: ``z = mean_i C[y_i] + E``,
it sends ``C[z]`` to all and keeps ``E = z - C[z]``. Signs travel packed, eight to a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lbt.optim.exchange import Exchange

SUMMED = 2**18  # elements whose squares a CPU sums at once
BLOCK = 2**16  # a multiple of 8: elements that stay in a CPU's cache from one operation on them to the next
# Multiplied by this, eight bytes of 0 or 1 leave their bits in the highest byte (no two of the products meet).
GATHER = sum(1 << (7 * place) for place in range(1, 9))


def pack(negative: Tensor) -> Tensor:
    """Eight booleans ``[8 m]`` to a byte, ``[m]``: the first is the lowest bit."""
    if negative.device.type == "cpu":
        return torch.from_numpy(np.packbits(negative.numpy(), bitorder="little"))
    return ((negative.view(torch.int64) * GATHER) >> 56).to(torch.uint8)


@lru_cache(maxsize=8)
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    bits = torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device) & 1
    return (1 - 2 * bits).to(dtype)


def signs(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """What `pack` packed, ``[..., m]``, as signs, ``[..., 8 m]``: -1 where it was true, else +1."""
    return torch.nn.functional.embedding(packed.int(), _table(dtype, packed.device)).flatten(-2)


def spread_over(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """A vector of ``values[k]``, ``lengths[k]`` times each."""
    times = torch.tensor(lengths, device=values.device)
    return values.repeat_interleave(times, output_size=sum(lengths))


def compress(e: Tensor, x: Tensor, lengths: Sequence[int], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What is sent of ``y = x + e``, ``C[y]``; `e` becomes what is not: ``y - C[y]``.

    Args:
        e: ``[D]``, D a multiple of 8.
        x: ``[d]``.
        lengths: Of the pieces that have a scale of their own, d in all; of what follows them nothing is sent.
        mask: ``[d]``, 0 where an element is not sent (a sign cannot say 0), 1 elsewhere; None: all are.

    Returns:
        The packed signs, uint8 ``[D/8]``, and the scales, one for each piece.
    """
    if mask is None:
        counts = torch.tensor(lengths, device=e.device).clamp(min=1).to(e.dtype)
    else:
        counts = torch.stack([piece.sum() for piece in mask.split(list(lengths))]).clamp(min=1)
    on_cpu = e.device.type == "cpu" and e.dtype in (torch.float32, torch.float64)
    return (_by_blocks if on_cpu else _by_vectors)(e, x, lengths, counts, mask)


def _blocks(lengths: Sequence[int], most: int) -> list[tuple[int, int, int]]:
    """Pieces cut at multiples of so many elements: (piece, start, stop)."""
    found = []
    for piece, (start, length) in enumerate(zip(_starts(lengths), lengths, strict=True)):
        while length:
            stop = min(start + length, (start // most + 1) * most)
            found.append((piece, start, stop))
            start, length = stop, start + length - stop
    return found


def _by_blocks(
    e: Tensor, x: Tensor, lengths: Sequence[int], counts: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """On a CPU: what is in the cache is used for all that is computed of it.

    A scale takes a sign by its bits: the kernels of `copysign` take longer than all the rest.
    """
    array, added, as_bits = e.numpy(), x.numpy(), np.dtype(f"i{e.element_size()}")
    squares = np.zeros(len(lengths))
    for piece, start, stop in _blocks(lengths, SUMMED):
        block = array[start:stop]
        block += added[start:stop]
        if mask is not None:
            block *= mask[start:stop].numpy()
        squares[piece] += float(np.dot(block, block))
    scales = (torch.from_numpy(squares) / counts).sqrt().to(e.dtype)
    bits, of_piece, sign_bit = array.view(as_bits), scales.numpy().view(as_bits), np.iinfo(as_bits).min
    sent, negative = np.empty(BLOCK, dtype=array.dtype), np.empty(BLOCK, dtype=bool)
    packed, done = np.zeros(len(array) // 8, dtype=np.uint8), 0
    for piece, start, stop in _blocks(lengths, BLOCK):
        if start >= done:  # of all pieces in the block, before any of them is changed
            done = min((start // BLOCK + 1) * BLOCK, len(array))
            whole = np.signbit(array[start:done], out=negative[: done - start])
            packed[start // 8 : done // 8] = np.packbits(whole, bitorder="little")
        signed = sent[: stop - start]
        found = np.bitwise_and(bits[start:stop], sign_bit, out=signed.view(as_bits))
        np.bitwise_or(found, of_piece[piece], out=found)
        if mask is not None:
            signed *= mask[start:stop].numpy()
        array[start:stop] -= signed
    return torch.from_numpy(packed), scales


def _by_vectors(
    e: Tensor, x: Tensor, lengths: Sequence[int], counts: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """On a GPU: few launches, none of which waits."""
    held, dtype = e[: len(x)].add_(x), torch.promote_types(e.dtype, torch.float32)
    if mask is not None:
        held.mul_(mask)
    norms = torch.stack(torch._foreach_norm(held.split(list(lengths)), 2, dtype=dtype))
    scales = (norms / counts.to(dtype).sqrt()).to(e.dtype)
    packed = pack(torch.signbit(e))
    sent = torch.copysign(spread_over(scales, lengths), held)
    held.sub_(sent if mask is None else sent.mul_(mask))
    return packed, scales


class Signs:
    """Takes means over workers by signs, for vectors laid out in one way.

    Args:
        lengths: Of the pieces of a vector that have a scale of their own when workers send; their sum is d.
        exchange: Between the workers.

    Attributes:
        size, length: d, and the elements of n chunks, a multiple of 8 each.
        own: The chunks whose servers are here, as a slice of the vector.
    """

    def __init__(self, lengths: Sequence[int], exchange: Exchange):
        self.lengths, self.size, workers = list(lengths), sum(lengths), exchange.count
        chunk = max(8, -(-self.size // (8 * workers)) * 8)
        self.chunk, self.length = chunk, chunk * workers
        self.own = slice(chunk * exchange.first, chunk * (exchange.first + exchange.here))
        starts = _starts(self.lengths)
        cuts = sorted({*starts, self.size, *range(0, self.size, chunk)})
        parts = list(pairwise(cuts))  # of the pieces, each in one chunk
        self.parts = [[stop - start for start, stop in parts if start // chunk == j] for j in range(workers)]
        self._clipped = [
            max(0, min(start + length, self.own.stop) - max(start, self.own.start))
            for start, length in zip(starts, self.lengths, strict=True)
        ]

    def only_own(self, error: Tensor) -> None:
        """Leave of a server error ``[length]`` what the servers here keep."""
        error[: self.own.start].zero_()
        error[self.own.stop :].zero_()

    def mean(
        self, vectors: Tensor, errors: Tensor, server_error: Tensor, exchange: Exchange, mask: Tensor | None = None
    ) -> Tensor:
        """The mean over workers as all of them receive it, ``[d]``.

        Args:
            vectors: ``[here, d]``.
            errors: ``[here, length]``: what was not sent so far; changed.
            server_error: ``[length]``: the same of the servers here, in `own`; changed.
            exchange: Between the workers.
            mask: ``[d]``, as `compress` has it.
        """
        sent = [compress(error, vector, self.lengths, mask) for error, vector in zip(errors, vectors, strict=True)]
        packed = torch.stack([bits for bits, _ in sent]).unflatten(1, (exchange.count, -1))
        packed, scales = exchange.to_servers(packed), exchange.all_of(torch.stack([scale for _, scale in sent]))
        own = server_error[self.own]
        valid = sum(self._clipped)
        total = own.new_zeros(valid)
        for bits, scale in zip(packed, scales, strict=True):
            signed = signs(bits.flatten(), own.dtype)
            total.addcmul_(signed[:valid], spread_over(scale, self._clipped))
        inside = None if mask is None else mask[self.own.start : self.own.start + valid]
        first = exchange.first
        lengths = [length for part in self.parts[first : first + exchange.here] for length in part]
        bits, scale = compress(own, total.div_(exchange.count), lengths, inside)
        bits = exchange.all_of(bits.unflatten(0, (exchange.here, -1)))
        scale = self._scales_of_all(scale, exchange)
        found = signs(bits.flatten(), own.dtype)[: self.size]
        found.mul_(spread_over(scale, [length for part in self.parts for length in part]))
        return found if mask is None else found.mul_(mask)

    def _scales_of_all(self, scales: Tensor, exchange: Exchange) -> Tensor:
        """The scales of all servers; each sends as many as the one with the most parts has."""
        counts = [len(part) for part in self.parts]
        rows = scales.new_zeros(exchange.here, max(counts))
        own = counts[exchange.first : exchange.first + exchange.here]
        for row, some in zip(rows, scales.split(own), strict=True):
            row[: len(some)] = some
        rows = exchange.all_of(rows)
        return torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])


def _starts(lengths: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    return starts
