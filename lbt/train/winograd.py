"""3x3 convolutions as matrix products: Winograd's minimal filtering F(4x4, 3x3), Lavin & Gray 2016 (arXiv:1509.09308).

A tile of 4x4 outputs comes of 6x6 inputs by 36 products of their transforms in place of 144 multiplications; the
transforms are small linear maps along each side. Everything is a matrix product of torch, so derivatives of every order
come by themselves. Exact in real numbers; rounding in float32 is 4 to 5 times a direct convolution's (1e-5 of the
largest output), in bfloat16 it would be too large.
"""

from functools import lru_cache

import torch
from torch import Tensor

TILE = 4  # outputs along a side
_INPUTS = (  # B^T of the paper: from 6 inputs
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (  # G: from 3 weights
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUTS = (  # A^T: to 4 outputs
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def conv3x3(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns the convolution with stride 1 and a padding of one pixel.

    Args:
        maps: [N, C, H, W], H and W multiples of `TILE`.
        weight: [D, C, 3, 3].

    Returns:
        Maps [N, D, H, W], channels_last.
    """
    count, channels, height, width = maps.shape
    rows, columns, out = height // TILE, width // TILE, len(weight)
    kernel = torch.tensor(_KERNEL, dtype=maps.dtype)
    kernels = torch.kron(kernel, kernel) @ weight.permute(2, 3, 1, 0).reshape(9, channels * out)

    tiles = _to_tiles(height, maps.dtype) @ maps.permute(2, 3, 0, 1).reshape(height, width * count * channels)
    tiles = _to_tiles(width, maps.dtype) @ tiles.view(6 * rows, width, count * channels)
    products = tiles.view(6, rows, 6, columns * count, channels) @ kernels.view(6, 1, 6, channels, out)
    outputs = _from_tiles(width, maps.dtype) @ products.view(6 * rows, 6 * columns, count * out)
    outputs = _from_tiles(height, maps.dtype) @ outputs.view(6 * rows, width * count * out)
    return outputs.view(height, width, count, out).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


@lru_cache
@torch.inference_mode(False)  # or what is made in that mode could not be trained with later
def _to_tiles(length: int, dtype: torch.dtype) -> Tensor:
    """Returns the matrix from a side's pixels to the 6 transformed inputs of each of its T tiles: [6 T, length]."""
    tiles = length // TILE
    matrix = torch.zeros(6, tiles, length + 2, dtype=dtype)
    for tile in range(tiles):
        matrix[:, tile, TILE * tile : TILE * tile + 6] = torch.tensor(_INPUTS, dtype=dtype)
    return matrix[:, :, 1:-1].reshape(6 * tiles, length)  # padding is zero


@lru_cache
@torch.inference_mode(False)
def _from_tiles(length: int, dtype: torch.dtype) -> Tensor:
    """Returns the matrix from the 6 products of each of a side's T tiles to its pixels: [length, 6 T]."""
    tiles = length // TILE
    matrix = torch.zeros(tiles, TILE, 6, tiles, dtype=dtype)
    for tile in range(tiles):
        matrix[tile, :, :, tile] = torch.tensor(_OUTPUTS, dtype=dtype)
    return matrix.reshape(length, 6 * tiles)
