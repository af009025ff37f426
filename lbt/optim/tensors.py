"""Trust-ratio maths on lists of tensors.

Everything here works on whole lists (``torch._foreach_*``) and on vectors with one element a layer, so that nothing
has to be read back from the device. Only code which is reached for CPU tensors alone turns a tensor into a float.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU_KERNEL_DTYPES = (torch.float32, torch.float64)  # torch 2.11's fused SGD on CPU skips elements of bfloat16 tensors
PLAIN = (Tensor, torch.nn.Parameter)  # other classes may not lie in memory as they show themselves
SAFE = (1e-17, 1e17)  # norms whose squares are sums far from float32's limits, however many elements there are


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The tensor's dtype, at least float32: that of its trust ratio and of the arithmetic."""
    return torch.promote_types(tensor.dtype, torch.float32)


def norms(tensors: list[Tensor]) -> Tensor:
    """2-norms of ``n`` tensors of one device and dtype, shape ``[n]``, of a type in which squares neither over- nor
    underflow.

    That is float64, which on a CPU takes five times as long as float32: there it is used where float32 is in danger.
    """
    dtype, where = wide_dtype(tensors[0]), tensors[0].device.type
    if where == "mps":  # has no float64
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))
    if where != "cpu" or torch.compiler.is_compiling():
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64))
    found = torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))
    if dtype == torch.float32:
        unsafe = [i for i, norm in enumerate(found.tolist()) if not SAFE[0] < norm < SAFE[1]]
        if unsafe:
            found = found.double()
            found[unsafe] = torch.stack(torch._foreach_norm([tensors[i] for i in unsafe], 2, dtype=torch.float64))
    return found


def sum_norms(tensors: list[Tensor], others: list[Tensor], alpha: float) -> Tensor:
    """Norms of ``tensors[i] + alpha * others[i]``, shape ``[n]``; on CPU with one temporary for all of them."""
    if tensors[0].device.type != "cpu" or torch.compiler.is_compiling():
        return norms(torch._foreach_add(tensors, others, alpha=alpha))
    scratch = tensors[0].new_empty(max(tensor.numel() for tensor in tensors))
    found = []
    for a, b in zip(tensors, others, strict=True):
        out = scratch[: a.numel()].as_strided(a.shape, a.stride()) if same_layout(a) else torch.empty_like(a)
        found.append(norms([torch.add(a, b, alpha=alpha, out=out)]))
    return torch.cat([norm.to(torch.float64) for norm in found]) if _differ(found) else torch.cat(found)


def _differ(found: list[Tensor]) -> bool:
    return len({norm.dtype for norm in found}) > 1


def scaled_by_layer(tensors: list[Tensor], factors: Tensor) -> None:
    """Multiply each of ``n`` tensors, in place, by its element of ``factors`` (shape ``[n]``)."""
    torch._foreach_mul_(tensors, list(factors.to(wide_dtype(tensors[0])).unbind()))


def scalar(value: float | Tensor) -> float | Tensor:
    """A number as it is, a tensor of one element as a 0-dim one."""
    return value.reshape(()) if isinstance(value, Tensor) and value.ndim else value


def scalar_for(like: Tensor, value: float | Tensor) -> float | Tensor:
    """A tensor of one element (a rate, a correction) in the form in which foreach takes it for tensors like ``like``.

    One on the CPU becomes a float for tensors elsewhere: reading it waits for no device.
    """
    if not isinstance(value, Tensor):
        return value
    if value.device != like.device and value.device.type == "cpu":
        return value.item()
    return scalar(value).to(like.device, wide_dtype(like))


def safe_ratio(top: Tensor, bottom: Tensor, valid: Tensor) -> Tensor:
    """``top / bottom`` where ``valid``, else 1: a layer whose weights or gradients are zero is not adapted."""
    return torch.where(valid, top / bottom, torch.ones_like(top))


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's elements lie in memory without gaps, contiguous or in the format channels_last."""
    return tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def same_layout(*tensors: Tensor) -> bool:
    """Whether plain tensors lie densely in memory in the same order, as torch's fused CPU kernels silently assume."""
    first, strides = tensors[0], tensors[0].stride()
    alike = type(first) in PLAIN and all(t.stride() == strides and type(t) in PLAIN for t in tensors[1:])
    return alike and is_dense(first)
