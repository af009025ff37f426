"""One epoch of training through lbt and through the loop the released code uses: same model, batch, images and machine.

lbt: images decoded once and resident on the device, batched augmentation, channels_last, `precision=auto`.
usual: torchvision transforms on PIL images in a DataLoader, fp32, an optimizer that walks through the parameters, and
`loss.item()` every step. Both do the same work an image: random crop, flip, rotation by up to 15 degrees, ImageNet's
mean and std, ResNet18 with the ImageNet stem, the released TVLARS rule. Epochs of the two alternate.

    python scripts/bench_peers.py --images 4096          # a minute on a CPU; data from $LBT_DATA
    python scripts/bench_peers.py --batch 4096           # a whole epoch
    python scripts/bench_peers.py --data synthetic       # no files needed
"""

import argparse
import os
import statistics
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from bench_optimizers import ReleasedStyle
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lbt import build, runtime, sweep
from lbt.config import resolve
from lbt.data import IMAGENET_MEAN, IMAGENET_STD
from lbt.train import Training


class Pictures(Dataset):
    """What torchvision.datasets.CIFAR10 is: pixels in memory, a PIL image and its transforms an access."""

    def __init__(self, images, labels):
        self.pixels, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        size = self.pixels.shape[1]
        steps = [T.RandomCrop(size, padding=4), T.RandomHorizontalFlip(), T.RandomRotation(15), T.ToTensor()]
        self.transform = T.Compose([*steps, T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def usual(config, images, workers):
    """Returns a function that trains one epoch the usual way."""
    device = torch.device(config.device)
    pictures = Pictures(images.train_images, images.train_labels)
    options = {"num_workers": workers, "pin_memory": device.type == "cuda", "persistent_workers": workers > 0}
    loader = DataLoader(pictures, config.batch, shuffle=True, **options)
    model = build.model(config, len(images.classes)).to(device).train()
    optimizer = ReleasedStyle(model.parameters(), lr=config.peak_lr)

    def epoch():
        total = 0.0
        for pixels, labels in loader:
            pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    return epoch


def ours(config, images):
    """Returns a function that trains one epoch through lbt."""
    training = Training(config, images, "benchmark")

    def epoch():
        for pixels, labels in training.data.batches():
            training._update(pixels, labels)
        return training.progress.sums["loss"].item()

    return epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--images", type=int, help="train on the first N images only (default: all)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of the usual DataLoader")
    parser.add_argument("--rounds", type=int, default=3, help="timed epochs of each, after one that is not timed")
    options = parser.parse_args()

    overrides = [f"data={options.data}", f"model={options.model}", f"batch={options.batch}", "optimizer=tvlars"]
    config = runtime.settle(resolve(sweep.compose([*overrides, "protocol=released", "data.augment=crop_flip_rotate"])))
    images = build.images(config)
    if options.images:
        kept = images.train_images[: options.images], images.train_labels[: options.images]
        images = replace(images, train_images=kept[0], train_labels=kept[1])
    contenders = {"lbt": ours(config, images), "usual": usual(config, images, options.workers)}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {config.device}, lbt in {config.precision}")
    print(f"{images.origin}: {len(images.train_labels):,} images, {options.model}, batch {options.batch}")

    seconds = {name: [] for name in contenders}
    for number in range(options.rounds + 1):
        for name, epoch in contenders.items():
            started = time.perf_counter()
            epoch()  # its end reads the loss: the device has finished
            if number:
                seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:6} {median:8.2f} s an epoch {len(images.train_labels) / median:12,.0f} images/s")
    ratios = [slow / fast for slow, fast in zip(seconds["usual"], seconds["lbt"], strict=True)]
    print(f"lbt is {statistics.median(ratios):.2f} times as fast (median of {options.rounds} rounds)")


if __name__ == "__main__":
    main()
