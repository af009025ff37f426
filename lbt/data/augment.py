"""Batched augmentation on the device: every sample draws its own parameters, no host synchronisation, no sample loop.

Random crop after zero padding, horizontal flip and rotation become one index per output pixel and one gather. It is
what torchvision's RandomCrop, RandomHorizontalFlip and RandomRotation (nearest) do to one image after the other.
The TVLARS paper's classification recipe is `crop_flip_rotate` with its defaults, then ImageNet's mean and std.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Pixels worked on at once: on a CPU the temporaries stay in its cache, on a GPU they stay below some 200 MB.
CHUNK_PIXELS = {"cpu": 1 << 18}
CHUNK_PIXELS_ELSEWHERE = 1 << 23


class Rows(NamedTuple):
    """Which images of a batch are augmented here, while others are elsewhere; parameters are drawn for all of them.

    So an image is augmented in the same way whichever device has it. An augmentation that has no argument `rows` is
    given the whole batch.

    Attributes:
        count: images of the batch.
        own: places in the batch of the images at hand: int64 [b] on their device, or a slice.
    """

    count: int
    own: Tensor | slice


def all_of(images: Tensor) -> Rows:
    """Returns the rows of a batch that is here as a whole."""
    return Rows(len(images), slice(None))


def warp(images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor | None, angle: Tensor | None) -> Tensor:
    """Crops, then flips, then rotates each image by its own parameters; nearest pixel, zero outside.

    Sample by sample it equals torchvision's `pad(p)`, `crop(top=p + dy, left=p + dx)`, `hflip`, `rotate(angle)`.

    Args:
        images: uint8 [B, C, H, W].
        dy: int64 [B], rows by which the crop lies below the image's top, between 1 - H and H - 1.
        dx: int64 [B], columns by which the crop lies right of the image's left edge, between 1 - W and W - 1.
        flip: bool [B], which images to mirror after the crop; None for no flip.
        angle: float32 [B], degrees counter-clockwise around the image's centre; None for no rotation (cheaper).

    Returns:
        uint8 [B, C, H, W], contiguous.
    """
    batch, channels, height, width = images.shape
    out = torch.empty((batch, channels, height * width), dtype=images.dtype, device=images.device)
    flip = torch.zeros_like(dx, dtype=torch.bool) if flip is None else flip
    size = _chunk(images)
    for start in range(0, batch, size):
        part = slice(start, start + size)
        place = (dy[part, None, None], dx[part, None, None], flip[part, None, None])
        if angle is None:
            index, inside = _crop_index(height, width, *place)
        else:
            index, inside = _rotated_index(height, width, *place, angle[part, None, None])
        index = index.view(-1, 1, height * width).expand(-1, channels, -1)
        torch.gather(images[part].flatten(2), 2, index, out=out[part])
        out[part].mul_(inside.view(-1, 1, height * width))
    return out.view(batch, channels, height, width)


def _crop_index(height: int, width: int, dy: Tensor, dx: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Returns for crop and flip the source pixel (int64 [b, H, W]) and whether there is one (bool [b, H, W])."""
    row = torch.arange(height, device=dy.device)[:, None] + dy
    column = torch.arange(width, device=dy.device)
    column = torch.where(flip, width - 1 - column, column) + dx
    inside = ((row >= 0) & (row < height)) & ((column >= 0) & (column < width))
    return row.clamp_(0, height - 1).mul_(width) + column.clamp_(0, width - 1), inside


def _rotated_index(
    height: int, width: int, dy: Tensor, dx: Tensor, flip: Tensor, angle: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_crop_index`, with the rotation; float32 holds pixel numbers exactly up to 4096x4096."""
    y = torch.arange(height, device=dy.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=dy.device) - (width - 1) / 2
    radians = angle * (torch.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    row = (sin * x).add(cos * y + (height - 1) / 2).round_()  # of the image before it is rotated
    column = (cos * x).add((width - 1) / 2 - sin * y).round_()
    # What the crop still holds of the original, in rows and columns of the cropped and flipped image.
    left, right = (-dx).clamp(min=0), (width - 1 - dx).clamp(max=width - 1)
    left, right = torch.where(flip, width - 1 - right, left), torch.where(flip, width - 1 - left, right)
    near_row = row.clamp((-dy).clamp(min=0).float(), (height - 1 - dy).clamp(max=height - 1).float())
    near_column = column.clamp(left.float(), right.float())
    inside = (near_row == row) & (near_column == column)
    near_column.mul_(1 - 2 * flip.float()).add_(torch.where(flip, width - 1 + dx, dx).float())
    return near_row.add_(dy).mul_(width).add_(near_column).long(), inside


def crop_flip_rotate(
    images: Tensor,
    generator: torch.Generator,
    padding: int = 4,
    flip: bool = True,
    degrees: float = 15.0,
    rows: Rows | None = None,
) -> Tensor:
    """Draws each image's crop, flip and rotation and applies them by `warp`.

    Args:
        images: uint8 [B, C, H, W].
        generator: on the images' device; the same state gives the same batch.
        padding: zero pixels around the image before an H x W crop is taken anywhere in it; less than H and W.
        flip: whether to mirror half of the images.
        degrees: angles are uniform in -degrees to degrees; 0 leaves the rotation out.
        rows: which images of a larger batch these are; None: they are all of it.

    Returns:
        uint8 [B, C, H, W].

    Raises:
        ValueError: the padding is negative or not less than the image's height and width.
    """
    height, width = images.shape[2:]
    if not 0 <= padding < min(height, width):
        raise ValueError(f"padding must be less than the images' sides: {padding}, for {height}x{width} pixels")
    device, (count, own) = images.device, rows or all_of(images)
    offsets = torch.randint(-padding, padding + 1, (2, count), generator=generator, device=device)[:, own]
    mirrored = torch.rand(count, generator=generator, device=device)[own] < 0.5 if flip else None
    angle = torch.rand(count, generator=generator, device=device)[own] * 2 - 1 if degrees else None
    return warp(images, offsets[0], offsets[1], mirrored, None if angle is None else angle * degrees)


def normalise(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Returns (images / 255 - mean) / std, computed in float32, in `dtype` and channels_last.

    Args:
        images: uint8 [B, C, H, W].
        mean: a number a channel, in units of the full range 0 to 1.
        std: a number a channel, likewise.
        dtype: of the result.
    """
    out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
    size = _chunk(images)
    for start in range(0, len(images), size):
        part = images[start : start + size].float().div_(255)
        for channel, (centre, scale) in enumerate(zip(mean, std, strict=True)):  # as numbers: nothing to copy over
            part[:, channel].sub_(centre).div_(scale)
        out[start : start + size].copy_(part)
    return out


def _chunk(images: Tensor) -> int:
    pixels = CHUNK_PIXELS.get(images.device.type, CHUNK_PIXELS_ELSEWHERE)
    return max(1, pixels // max(1, images.shape[-2] * images.shape[-1]))


def none(images: Tensor, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Returns the images as they are and draws nothing."""
    return images


def views_of(augment: Callable[[Tensor, torch.Generator], Tensor]) -> int:
    """Returns how many images an augmentation makes of one."""
    drawn = augment(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device="cpu"), torch.Generator("cpu"))
    return 1 if drawn.ndim == 4 else drawn.shape[1]


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": none,
    "crop_flip": partial(crop_flip_rotate, degrees=0.0),
    "crop_flip_rotate": crop_flip_rotate,
}
