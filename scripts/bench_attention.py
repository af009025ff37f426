"""What attending in float32 gains on a CPU where everything else is bfloat16: forward and backward, by length.

Two heads of 64 entries, 16,384 tokens, in turn; medians and their ratio. `lbt.models.bert.SHORT` is the longest that
gains.

    OMP_NUM_THREADS=1 python scripts/bench_attention.py
"""

import argparse
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from lbt.train.memory import keep_freed

TOKENS, HEADS, WIDTH = 16_384, 2, 64


def pass_seconds(inputs: list[Tensor], real: Tensor, dtype: torch.dtype) -> float:
    """Returns the seconds of a forward and backward pass of bfloat16 tensors, computed in a type."""
    begun = time.perf_counter()
    mixed = F.scaled_dot_product_attention(*(tensor.to(dtype) for tensor in inputs), attn_mask=real)
    mixed.to(torch.bfloat16).backward(inputs[0].detach())
    return time.perf_counter() - begun


def main() -> None:
    """Prints milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    keep_freed()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ms in bfloat16 and in float32")
    types = torch.bfloat16, torch.float32
    for length in options.lengths:
        count = TOKENS // length
        inputs = [
            torch.randn(count, length, HEADS, WIDTH).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)
        ]
        real = torch.ones(count, 1, 1, length, dtype=torch.bool)
        times: tuple[list[float], list[float]] = ([], [])
        for dtype in types:
            pass_seconds(inputs, real, dtype)
        for round_ in range(options.rounds):
            for index in (0, 1) if round_ % 2 else (1, 0):
                times[index].append(pass_seconds(inputs, real, types[index]))
        low, full = (1e3 * median(spent) for spent in times)
        print(f"{length:4} tokens  {low:7.1f} {full:7.1f}   {low / full:.2f} times as fast")


if __name__ == "__main__":
    main()
