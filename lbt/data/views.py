"""Random-resized crops and the two views of Barlow Twins (Zbontar et al. 2021), batched and per sample on the device.

The recipe is that of the official code (facebookresearch/barlowtwins, main.py), at the images' own size instead of 224:
crop and flip, colour jitter in an order drawn per sample (a fixed one would save an eighth of the time), grey,
blur, solarisation. Only in blur and solarisation do the two views differ. The official code rounds to whole grey levels
after each step, this one once, at the end: 1.2 levels apart on average, 99 % of the values at most 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lbt.data import pixels
from lbt.data.augment import AUGMENTATIONS, Rows, all_of

# Pixels worked on at once: on a CPU the temporaries stay in its cache, on a GPU they stay below some 500 MB.
CHUNK_PIXELS = {"cpu": 1 << 17}
CHUNK_PIXELS_ELSEWHERE = 1 << 22

CROP_TRIES = 10  # as torchvision's RandomResizedCrop
CROP_SCALE = (0.08, 1.0)  # share of the image's area
CROP_RATIO = (3 / 4, 4 / 3)  # width / height


@dataclass(frozen=True)
class Recipe:
    """Probabilities and ranges of a view's transforms.

    Args:
        blur: share of samples that are blurred.
        solarize: share of samples whose bright half is inverted.
        flip: share of samples that are mirrored.
        jitter: share of samples whose colours are changed.
        strength: of brightness, contrast and saturation: their factors are uniform in 1 - strength to 1 + strength.
        hue: its shift is uniform in -hue to hue, in turns.
        grey: share of samples without colour.
        sigma: the blur's standard deviation is uniform in this range, in pixels of the image as it is.
    """

    blur: float
    solarize: float
    flip: float = 0.5
    jitter: float = 0.8
    strength: tuple[float, float, float] = (0.4, 0.4, 0.2)
    hue: float = 0.1
    grey: float = 0.2
    sigma: tuple[float, float] = (0.1, 2.0)


FIRST_VIEW = Recipe(blur=1.0, solarize=0.0)
SECOND_VIEW = Recipe(blur=0.1, solarize=0.2)


class Crop(NamedTuple):
    """A box of pixels for each sample and whether to mirror it: float32 [B] four times, bool [B]."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


class Look(NamedTuple):
    """Parameters of a view's transforms after the crop, a row a sample; `pixels` says what they mean."""

    factors: Tensor  # float32 [B, 3]
    hue: Tensor  # float32 [B]
    order: Tensor  # int64 [B, 4]
    grey: Tensor  # bool [B]
    sigma: Tensor  # float32 [B]
    solarize: Tensor  # bool [B]


def draw_crop(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = CROP_SCALE,
    ratio: tuple[float, float] = CROP_RATIO,
    flip: float = 0.5,
) -> Crop:
    """Draws boxes as torchvision's RandomResizedCrop does: the first of ten tries that fits, else a central one.

    Args:
        count: samples.
        height: of the images, pixels.
        width: of the images, pixels.
        generator: its device is where the boxes lie.
        scale: the area is uniform in this range, as a share of the image's.
        ratio: the logarithm of width / height is uniform between those of these two.
        flip: share of samples that are mirrored.
    """
    uniform = torch.rand(2 * CROP_TRIES + 3, count, generator=generator, device=generator.device)
    area = _between(uniform[:CROP_TRIES], *scale) * (height * width)
    aspect = _between(uniform[CROP_TRIES:-3], math.log(ratio[0]), math.log(ratio[1])).exp_()
    tall, wide = (area / aspect).sqrt_().round_(), (area * aspect).sqrt_().round_()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(0, keepdim=True)
    tall, wide, fits = (each.gather(0, first)[0] for each in (tall, wide, fits))
    fallback_height = min(height, round(width / ratio[0]))
    fallback_width = min(width, round(height * ratio[1]))
    tall, wide = torch.where(fits, tall, fallback_height), torch.where(fits, wide, fallback_width)
    top = torch.where(fits, _below(uniform[-3], height - tall + 1), ((height - tall) / 2).floor_())
    left = torch.where(fits, _below(uniform[-2], width - wide + 1), ((width - wide) / 2).floor_())
    return Crop(top, left, tall, wide, uniform[-1] < flip)


def draw_look(count: int, generator: torch.Generator, recipe: Recipe) -> Look:
    """Draws what happens to `count` samples after the crop; what is not chosen has parameters that change nothing."""
    uniform = torch.rand(13, count, generator=generator, device=generator.device)
    jitter = uniform[0] < recipe.jitter
    factors = [_between(row, 1 - by, 1 + by) for row, by in zip(uniform[1:4], recipe.strength, strict=True)]
    factors = torch.where(jitter, torch.stack(factors), 1.0).T
    hue = _between(uniform[4], -recipe.hue, recipe.hue) * jitter
    sigma = _between(uniform[5], *recipe.sigma) * (uniform[6] < recipe.blur)
    order = uniform[7:11].argsort(0).T
    return Look(factors, hue, order, uniform[11] < recipe.grey, sigma, uniform[12] < recipe.solarize)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return uniform * (high - low) + low


def _below(uniform: Tensor, bound: Tensor) -> Tensor:
    """Returns whole numbers from 0 to bound - 1; float32's product may round up to the bound."""
    return torch.minimum((uniform * bound).floor_(), bound - 1)


def resized_crop(x: Tensor, crop: Crop, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns each sample's box at the image's size, mirrored where `crop.flip` says so; x: float32 [b, C, H, W]."""
    rows = pixels.resampling(crop.top, crop.height, x.shape[2], None, kernel)
    columns = pixels.resampling(crop.left, crop.width, x.shape[3], crop.flip, kernel)
    return pixels.separable(x, rows, columns)


def look(x: Tensor, chosen: Look, recipe: Recipe) -> Tensor:
    """Returns the samples with their colours changed, blurred and solarised; x: float32 [b, 3, H, W], overwritten."""
    pixels.jitter_(x, chosen.factors, chosen.hue, chosen.order)
    pixels.greyscale_(x, chosen.grey)
    if recipe.blur > 0:
        rows = pixels.blurring(chosen.sigma, x.shape[2])
        columns = rows if x.shape[3] == x.shape[2] else pixels.blurring(chosen.sigma, x.shape[3])
        x = pixels.separable(x, rows, columns)
    if recipe.solarize > 0:
        pixels.solarize_(x, chosen.solarize)
    return x


def two_views(images: Tensor, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Draws two views of every image: bicubic crop, flip, jitter, grey, then blur and solarisation of their own.

    Args:
        images: uint8 [B, 3, H, W].
        generator: on the images' device; the same state gives the same batch, however it is cut into chunks.
        rows: which images of a larger batch these are; None: they are all of it.

    Returns:
        uint8 [B, 2, 3, H, W]: a sample's first view by FIRST_VIEW, its second by SECOND_VIEW.

    Raises:
        ValueError: the images are not in colour.
    """
    channels, height, width = images.shape[1:]
    count, own = rows or all_of(images)
    if channels != 3:
        raise ValueError(f"two views change colours: the images must have 3 channels, not {channels}")
    recipes = (FIRST_VIEW, SECOND_VIEW)
    drawn = [
        (draw_crop(count, height, width, generator, flip=recipe.flip), draw_look(count, generator, recipe))
        for recipe in recipes
    ]

    def render(x: Tensor, part: slice, view: int) -> Tensor:
        crop, chosen = (type(each)(*(row[own][part] for row in each)) for each in drawn[view])
        return look(resized_crop(x, crop, pixels.bicubic), chosen, recipes[view])

    return _in_chunks(images, len(recipes), render)


def resized_crop_flip(images: Tensor, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Draws a bilinear random-resized crop and flip of every image, with which linear probes are trained.

    Args:
        images: uint8 [B, C, H, W].
        generator: on the images' device; the same state gives the same batch, however it is cut into chunks.
        rows: which images of a larger batch these are; None: they are all of it.

    Returns:
        uint8 [B, C, H, W].
    """
    count, own = rows or all_of(images)
    crop = draw_crop(count, *images.shape[2:], generator)

    def render(x: Tensor, part: slice, view: int) -> Tensor:
        return resized_crop(x, Crop(*(row[own][part] for row in crop)), pixels.bilinear)

    return _in_chunks(images, 1, render)[:, 0]


def _in_chunks(images: Tensor, views: int, render: Callable[[Tensor, slice, int], Tensor]) -> Tensor:
    """Returns uint8 [B, views, C, H, W]: what `render(float32 [b, C, H, W], their slice, view)` gives, rounded."""
    count, *shape = images.shape
    out = torch.empty((count, views, *shape), dtype=torch.uint8, device=images.device)
    limit = CHUNK_PIXELS.get(images.device.type, CHUNK_PIXELS_ELSEWHERE)
    size = max(1, limit // (shape[1] * shape[2]))
    with torch.autocast(images.device.type, enabled=False):  # whoever calls: pixels are computed in float32
        for start in range(0, count, size):
            part = slice(start, start + size)
            source = images[part].transpose(0, 1)
            planes = torch.empty(source.shape, device=images.device).copy_(source).transpose(0, 1)  # one a channel
            for view in range(views):
                out[part, view] = render(planes, part, view).round_()
    return out


AUGMENTATIONS["barlow_twins"] = two_views
AUGMENTATIONS["resized_crop_flip"] = resized_crop_flip
