"""How a network is laid out on a device: its memory format and, on a CPU, its convolutions over small maps.

A 3x3 kernel with padding meets a map of one pixel with its centre alone, and one of 2x2 pixels with four of its nine
weights; oneDNN is slow at such sizes. A ResNet with ImageNet's stem has them in images of 32x32 pixels, where they
take more than half of an update's time. As products of what each window holds with the weights that it meets the whole
update is 1.6 to 1.9 times as fast (`scripts/BENCHMARKS.md`). The same sums in another order: equal up to rounding.
Larger maps with many channels are faster by Winograd's minimal filtering (`lbt.train.winograd`).
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.train import winograd

OUTPUTS = 4  # pixels, of the largest map that is a product for each of its windows; with 16 of them oneDNN is as fast
CHANNELS = 128  # of the narrowest convolution that is faster by minimal filtering
SIDE = 32  # pixels, of the largest map's; the transforms of minimal filtering grow with it
TILES = 64  # of a batch, below which its products are too small to gain


def lay_out(model: nn.Module, device: torch.device, small_maps: str) -> nn.Module:
    """Moves a model to a device, channels_last, and returns it; weights and their names stay as they are.

    Args:
        model: changed in place.
        device: where it is to lie.
        small_maps: on a CPU, "products" has plain 2-D convolutions be `SmallMapConv2d`, "winograd" `WinogradConv2d`;
            "convolutions" leaves them.
    """
    model.to(device, memory_format=torch.channels_last)
    if small_maps != "convolutions" and device.type == "cpu":
        for layer in model.modules():
            if type(layer) is nn.Conv2d and _is_plain(layer):
                layer.__class__ = WinogradConv2d if small_maps == "winograd" else SmallMapConv2d
    return model


def _is_plain(layer: nn.Conv2d) -> bool:
    zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    pointwise = layer.kernel_size == layer.stride == (1, 1)  # a matrix product as it is
    return zeros and layer.groups == 1 and layer.dilation == (1, 1) and not pointwise


class SmallMapConv2d(nn.Conv2d):
    """A convolution, ungrouped and undilated, that computes outputs of up to `OUTPUTS` pixels as matrix products.

    Shapes: maps [N, C, H, W] to [N, D, h, w], channels_last where they are products; larger ones are `nn.Conv2d`'s.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Returns the convolution of maps [N, C, H, W]."""
        sides = [
            _windows(*sizes) for sizes in zip(maps.shape[-2:], self.kernel_size, self.stride, self.padding, strict=True)
        ]
        height, width = map(len, sides)
        if maps.ndim != 4 or not 0 < height * width <= OUTPUTS:
            return super().forward(maps)
        maps, weight = maps.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)  # copies nothing in channels_last
        parts, kernels = [], []
        for (rows, above), (columns, left) in product(*sides):
            parts.append((rows, columns))
            kernels.append(weight[:, above, left].flatten(1))
        if all(part == parts[0] for part in parts):  # every window sees the same pixels: one product
            bias = None if self.bias is None else self.bias.repeat(len(parts))
            outputs = F.linear(maps[:, *parts[0]].flatten(1), torch.cat(kernels), bias)
        else:
            pairs = zip(parts, kernels, strict=True)
            outputs = torch.stack([F.linear(maps[:, *part].flatten(1), kernel, self.bias) for part, kernel in pairs], 1)
        return outputs.view(-1, height, width, self.out_channels).permute(0, 3, 1, 2)


class WinogradConv2d(SmallMapConv2d):
    """One that computes its other outputs by Winograd's minimal filtering where that is exact enough and faster."""

    def forward(self, maps: Tensor) -> Tensor:
        """Returns the convolution of maps [N, C, H, W]."""
        if not self._is_faster(maps):
            return super().forward(maps)
        outputs = winograd.conv3x3(maps, self.weight)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def _is_faster(self, maps: Tensor) -> bool:
        if (self.kernel_size, self.stride, self.padding) != ((3, 3), (1, 1), (1, 1)) or maps.ndim != 4:
            return False
        if min(self.in_channels, self.out_channels) < CHANNELS:
            return False
        if any(side % winograd.TILE or side > SIDE for side in maps.shape[-2:]):
            return False
        is_exact = maps.dtype.itemsize >= 4 and not torch.is_autocast_enabled("cpu")
        return is_exact and maps[:, 0].numel() >= TILES * winograd.TILE**2


def _windows(length: int, kernel: int, stride: int, padding: int) -> list[tuple[slice, slice]]:
    """Returns, along one side, the part of the map that each output sees and the part of the kernel that meets it."""
    windows = []
    for start in range(-padding, length + padding - kernel + 1, stride):
        first = min(max(start, 0), length)
        last = max(min(start + kernel, length), first)
        windows.append((slice(first, last), slice(first - start, last - start)))
    return windows
