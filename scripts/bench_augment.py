"""Pairs of Barlow Twins views per second: ours, torchvision image by image, and kornia where it is installed.

One process, the contenders interleaved round by round, medians; the ratio is the median of the rounds' ratios.

lbt:         `two_views` of a uint8 batch on the device.
lbt probe:   `resized_crop_flip`, one crop an image instead of two views: crops per second.
torchvision: the official recipe on Pillow images, one after another in one process. Its rate is multiplied by the
             threads given to the others, as if as many loader processes scaled perfectly and batches came for free.
kornia:      its transforms on the same batch; its jitter has one order a batch, its blur is a Gaussian of 13 taps.

    python scripts/bench_augment.py                       # 32x32 and 64x64, batch 2048, 1 and all threads
    python scripts/bench_augment.py --device cuda
"""

import argparse
import random
import statistics
import time

import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from lbt.data import resized_crop_flip, two_views

SIGMA = (0.1, 2.0)


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(*SIGMA)))


def torchvision_view(size: int, blurred: float, solarized: float) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.Lambda(blur)], p=blurred),
            transforms.RandomSolarize(128, p=solarized),
            transforms.PILToTensor(),
        ]
    )


def kornia_pairs(size: int):
    """Returns a function of a uint8 batch, or None where kornia is not installed."""
    try:
        import kornia.augmentation as kornia
    except ImportError:
        return None

    def view(blurred: float, solarized: float) -> torch.nn.Module:
        steps = [
            kornia.RandomResizedCrop((size, size), resample="bicubic", align_corners=False, cropping_mode="resample"),
            kornia.RandomHorizontalFlip(p=0.5),
            kornia.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            kornia.RandomGrayscale(p=0.2),
            kornia.RandomGaussianBlur((13, 13), SIGMA, p=blurred),
        ]
        steps += [kornia.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=solarized)] if solarized else []
        return kornia.AugmentationSequential(*steps, data_keys=["input"])

    views = (view(1.0, 0.0), view(0.1, 0.2))

    @torch.no_grad()
    def pairs(images: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255
        return torch.stack([(each(x) * 255).round_().byte() for each in views], 1)

    return pairs


def contenders(images: torch.Tensor, few: int, threads: int) -> dict:
    """Returns name -> (function to time, pairs that one call stands for)."""
    generator = torch.Generator(images.device).manual_seed(0)
    ours = {
        "lbt": (lambda: two_views(images, generator), len(images)),
        "lbt probe": (lambda: resized_crop_flip(images, generator), len(images)),
    }
    arrays = images[:few].permute(0, 2, 3, 1).cpu().numpy()
    size = images.shape[2]
    first, second = torchvision_view(size, 1.0, 0.0), torchvision_view(size, 0.1, 0.2)

    def one_by_one() -> torch.Tensor:
        loaded = (Image.fromarray(array) for array in arrays)
        return torch.stack([torch.stack((first(image), second(image))) for image in loaded])

    ours["torchvision"] = (one_by_one, few * threads)
    pairs = kornia_pairs(size)
    if pairs is not None:
        ours["kornia"] = (lambda: pairs(images), len(images))
    return ours


def timed(function, device: torch.device) -> float:
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(size: int, threads: int, options: argparse.Namespace) -> None:
    """Prints a line a contender."""
    torch.set_num_threads(threads)
    device = torch.device(options.device)
    coarse = torch.rand(options.batch, 3, size // 4, size // 4, device=device)  # smooth, as photographs are
    images = (torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 255).byte()
    functions = contenders(images, options.few, threads)
    for function, _ in functions.values():
        timed(function, device)
    rates = {name: [] for name in functions}
    for number in range(options.rounds):
        for name in list(functions) if number % 2 == 0 else list(functions)[::-1]:
            function, pairs = functions[name]
            rates[name].append(pairs / timed(function, device))
    for name, seen in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["lbt"], seen, strict=True))
        print(f"{size:4} {threads:7} {name:12} {statistics.median(seen):11,.0f} {ratio:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--few", type=int, default=256, help="images of torchvision's timing (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if kornia_pairs(32) is None:
        print("kornia is not installed: left out")
    print(f"torch {torch.__version__}, {options.device}, batch {options.batch}")
    print(f"{'size':>4} {'threads':>7} {'':12} {'pairs/s':>11} {'lbt/this':>8}")
    for size in options.sizes:
        for threads in options.threads:
            compare(size, threads, options)


if __name__ == "__main__":
    main()
