"""What computing convolutions as matrix products gains on a CPU: whole passes, and each layer that differs.

Forward and backward of a network with torch's convolutions and with `lbt.train.layout`'s, channels_last, in turn, a
training batch's images; medians and their ratio.

    python scripts/bench_layout.py                              # ResNet18 at 32x32, batch 512
    OMP_NUM_THREADS=1 python scripts/bench_layout.py --model resnet34 --size 64 --batch 128 --precision bf16
"""

import argparse
import copy
import time
from statistics import median

import torch
from torch import nn

from lbt.models import MODELS
from lbt.train.layout import SmallMapConv2d, lay_out
from lbt.train.memory import keep_freed


def pass_seconds(module: nn.Module, inputs: torch.Tensor, precision: str) -> float:
    """Returns the seconds of a forward and backward pass."""
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = module(inputs)
    outputs.float().square().mean().backward()
    return time.perf_counter() - begun


def compared(
    pair: tuple[nn.Module, nn.Module], inputs: torch.Tensor, precision: str, rounds: int
) -> tuple[float, float]:
    """Returns the medians of both, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for module in pair:
        pass_seconds(module, inputs, precision)
    for count in range(rounds):
        for index in (0, 1) if count % 2 else (1, 0):
            times[index].append(pass_seconds(pair[index], inputs, precision))
    return median(times[0]), median(times[1])


def main() -> None:
    """Prints images/s and milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side; default: %(default)s")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--small-maps", choices=("winograd", "products"), default="winograd")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed()

    plain = MODELS[options.model](10).to(memory_format=torch.channels_last)
    laid_out = lay_out(copy.deepcopy(plain), torch.device("cpu"), options.small_maps)
    seen: dict[str, torch.Tensor] = {}
    for name, layer in laid_out.named_modules():
        if isinstance(layer, SmallMapConv2d):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].detach()))
    images = torch.randn(options.batch, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    laid_out(images)
    for layer in laid_out.modules():
        layer._forward_pre_hooks.clear()

    how = (
        f"{options.size}x{options.size}, batch {options.batch}, {options.precision}, {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {options.model}, {how}")
    before, after = compared((plain, laid_out), images, options.precision, options.rounds)
    rates = f"{options.batch / before:,.0f} and {options.batch / after:,.0f} images/s"
    print(f"whole network     {rates}: {before / after:.2f} times as fast")
    for name, inputs in seen.items():
        pair = plain.get_submodule(name), laid_out.get_submodule(name)
        if pair[0](inputs[:1])[0, 0].numel() <= 4 or options.small_maps == "winograd":
            inputs.requires_grad_()
            one, other = compared(pair, inputs, options.precision, options.rounds)
            print(f"{name:24}{1e3 * one:7.1f} and {1e3 * other:6.1f} ms: {one / other:.1f}")


if __name__ == "__main__":
    main()
