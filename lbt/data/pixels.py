"""Transforms of pixel values in which every sample has its own parameters; the same code on a CPU and a GPU.

Images are float32 [b, C, H, W] in grey levels, 0 to 255, never rounded in between. Any memory layout will do; the
fastest is one plane a channel, [C, b, H, W] seen through `transpose(0, 1)`, as most steps work on a channel at a time.
Tensor operations only: nothing waits for the device, no shape depends on a value, no sample is a turn of a loop.
A trailing underscore means in place, as in torch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WHITE = 255.0
GREY = (0.299, 0.587, 0.114)  # Pillow's; torchvision's tensor kernels have 0.2989 for red
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # in the order of torchvision's ColorJitter


def bilinear(distance: Tensor) -> Tensor:
    """Returns the weights of linear interpolation at these distances in pixels; overwrites them."""
    return distance.neg_().add_(1).clamp_(min=0)


def bicubic(distance: Tensor) -> Tensor:
    """Returns the weights of cubic convolution, a = -1/2 (Keys 1981) as in Pillow; overwrites the distances."""
    outer = distance.neg_().add_(2).clamp_(min=0)
    inner = (outer - 1).clamp_(min=0)
    weight = (outer - 1).mul_(outer).mul_(outer).mul_(0.5)
    return weight.addcmul_(inner.square(), inner.mul_(-2).add_(1))


def resampling(
    start: Tensor, length: Tensor, size: int, flip: Tensor | None, kernel: Callable[[Tensor], Tensor]
) -> Tensor:
    """Returns matrices that stretch a part of an axis over the whole axis, float32 [b, size out, size in].

    A part is never longer than the axis, so there is nothing to smooth before: the result is the same with and without
    antialiasing. Weights of pixels outside the part go to those inside, as in Pillow.

    Args:
        start: float32 [b], first pixel of the part.
        length: float32 [b], its pixels.
        size: pixels of the axis.
        flip: bool [b], which samples to mirror; None for none.
        kernel: `bilinear` or `bicubic`.
    """
    pixel = torch.arange(size, device=start.device) + 0.5
    start, end = start[:, None], (start + length)[:, None]
    place = pixel if flip is None else torch.where(flip[:, None], size - pixel, pixel)
    place = place * (length[:, None] / size) + start
    weight = kernel((pixel - place[:, :, None]).abs_())
    weight.mul_(((pixel > start) & (pixel < end))[:, None, :])
    return weight.div_(weight.sum(2, keepdim=True))


def blurring(sigma: Tensor, size: int) -> Tensor:
    """Returns matrices that blur along an axis, float32 [b, size, size]; pixels at the ends count for those beyond.

    They are three passes of an extended box filter (Gwosdek et al. 2011) whose variance is sigma^2 exactly. This is
    what Pillow's GaussianBlur applies, and with it the official Barlow Twins code; Pillow's six roundings move a pixel
    by at most 3 levels. torchvision samples the Gaussian's density instead, which misses the variance below 0.5 pixels:
    up to 7 levels away on natural images from 0.7 pixels on, 19 at 0.3.

    Args:
        sigma: float32 [b], standard deviation in pixels; 0 leaves a sample as it is.
        size: pixels of the axis, 2 or more.
    """
    variance = sigma.square() / 3  # of one pass
    whole = (variance.mul(12).add_(1).sqrt_() - 1).mul_(0.5).floor_()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    radius = (whole + part)[:, None, None]
    pixel = torch.arange(size, device=sigma.device, dtype=torch.float32)
    weight = (radius + 1 - (pixel[:, None] - pixel).abs_()).clamp_(min=0)
    weight[:, :, 1:-1].clamp_(max=1)  # an end's weight is the sum over what lies beyond
    weight.div_(2 * radius + 1)
    return weight @ weight @ weight


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns `rows @ image @ columns^T` for every image and channel, cut to 0 to 255 after each axis as Pillow does.

    Args:
        x: float32 [b, C, H, W].
        rows: float32 [b, H, H].
        columns: float32 [b, W, W].
    """
    out = torch.empty_like(x)
    for channel in range(x.shape[1]):
        across = torch.bmm(x[:, channel], columns.mT).clamp_(0, WHITE)
        torch.bmm(rows, across, out=out[:, channel])
    return out.clamp_(0, WHITE)


def luminance(x: Tensor) -> Tensor:
    """Returns the grey image, float32 [b, H, W]."""
    red, green, blue = x.unbind(1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def blend_(x: Tensor, factor: Tensor, operation: Tensor) -> Tensor:
    """Changes brightness, contrast or saturation: factor * image + (1 - factor) * reference, cut to 0 to 255.

    Args:
        x: float32 [b, 3, H, W].
        factor: float32 [b]; 1 leaves a sample as it is.
        operation: int64 [b], BRIGHTNESS (the reference is black), CONTRAST (the mean of the grey image) or SATURATION
            (the grey image).
    """
    grey = luminance(x)
    mean, rest = grey.mean((1, 2)), 1 - factor
    grey.mul_((rest * (operation == SATURATION))[:, None, None])
    grey.add_((rest * mean * (operation == CONTRAST))[:, None, None])
    return torch.addcmul(grey[:, None], x, factor[:, None, None, None], out=x).clamp_(0, WHITE)


def rotate_hue_(x: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue and keeps the largest and the smallest of a pixel's three values (HSV's V and S).

    Args:
        x: float32 [b, 3, H, W].
        shift: float32 [b], in turns, -0.5 to 0.5.
    """
    red, green, blue = x.unbind(1)
    top = torch.maximum(torch.maximum(red, green), blue)
    bottom = torch.minimum(torch.minimum(red, green), blue)
    spread = top - bottom
    # The angle from red, in sixths of a turn, is 1 + (green + blue - red - bottom) / spread on either side of it.
    hue = (green + blue).sub_(red).sub_(bottom).div_(spread.clamp(min=1e-6)).add_(1)
    hue.copysign_(green - blue).add_(6 * shift[:, None, None])
    hue.sub_((hue * (1 / 6)).floor_(), alpha=6)  # 0 to 6
    for channel, (base, centre, sign) in enumerate(((bottom, 3, 1), (top, 2, -1), (top, 4, -1))):
        share = (hue - centre).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(base, share, spread, value=sign, out=x[:, channel])
    return x


def jitter_(x: Tensor, factors: Tensor, hue: Tensor, order: Tensor) -> Tensor:
    """Changes brightness, contrast, saturation and hue, each sample in its own order; torchvision's ColorJitter.

    The three blends are one formula with different numbers, so one turn serves samples at different blends. The hue
    costs more and is turned once: three turns before it and three after, in which a sample takes the blends that its
    order has there and idles otherwise.

    Args:
        x: float32 [b, 3, H, W].
        factors: float32 [b, 3], of brightness, contrast and saturation.
        hue: float32 [b], in turns.
        order: int64 [b, 4], a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE for each sample.
    """
    padded = torch.cat((factors, torch.ones_like(factors[:, :1])), 1)
    before = (order == HUE).cumsum(1) == 0  # [b, 4]: does this turn come before the hue's
    one = torch.ones_like(hue)
    in_turn = padded.gather(1, order)
    for turn in range(3):
        blend_(x, torch.where(before[:, turn], in_turn[:, turn], one), order[:, turn])
    rotate_hue_(x, hue)
    for turn in range(1, 4):
        blend_(x, torch.where(before[:, turn], one, in_turn[:, turn]), order[:, turn])
    return x


def greyscale_(x: Tensor, chosen: Tensor) -> Tensor:
    """Makes the chosen samples grey.

    Args:
        x: float32 [b, 3, H, W].
        chosen: bool [b].
    """
    chosen = chosen[:, None, None]
    grey = luminance(x).mul_(chosen)
    return torch.addcmul(grey[:, None], x, (~chosen)[:, None].float(), out=x)


def solarize_(x: Tensor, chosen: Tensor) -> Tensor:
    """Inverts what will be rounded to 128 or more in the chosen samples.

    Args:
        x: float32 [b, C, H, W].
        chosen: bool [b].
    """
    total = (2 - chosen.float()) * WHITE  # of a pixel and its inverse; twice as much is out of the pixels' reach
    return torch.minimum(x, total[:, None, None, None] - x, out=x)
