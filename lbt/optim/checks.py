"""Checks of what an optimizer is given; a mistake is one line that names the argument, its value and the rule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def check(name: str, value: Any, ok: bool, rule: str) -> None:
    """Raise ``ValueError("Invalid <name>: <value> (must be <rule>)")`` unless ``ok``."""
    if not ok:
        raise ValueError(f"Invalid {name}: {value!r} (must be {rule})")


def check_number(name: str, value: Any, *, low: float = 0.0, high: float = math.inf, open_low: bool = False) -> None:
    """Check that a number is finite and lies in ``[low, high)``, or ``(low, high)``; a tensor must have one element."""
    rule = f"a finite number {'>' if open_low else '>='} {low:g}" + ("" if high == math.inf else f" and < {high:g}")
    if isinstance(value, Tensor):
        check(name, tuple(value.shape), value.numel() == 1, "a float or a tensor of one element, not of this shape")
        if value.device.type != "cpu":  # reading it would wait for the device
            return
        value = value.item()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    check(name, value, number and (low < value if open_low else low <= value) and value < high, rule)


def check_betas(betas: Any, count: int = 2) -> None:
    """Check ``count`` (2 or 3) decay rates, each in [0, 1)."""
    several = isinstance(betas, tuple | list) and len(betas) == count
    numbers = several and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    check("betas", betas, numbers, f"{({2: 'two', 3: 'three'})[count]} numbers >= 0 and < 1")


def check_params(params: list[Tensor]) -> None:
    """Refuse complex, integer and sparse parameters, and, in torch's words, what is no tensor."""
    for param in params:
        if not isinstance(param, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {torch.typename(param)}")
        if param.layout != torch.strided or not param.is_floating_point():
            what = "sparse" if param.layout != torch.strided else str(param.dtype).removeprefix("torch.")
            raise ValueError(f"Invalid params: a {what} tensor (must be dense, real floating point)")
