"""Batch norm over what several devices compute together, and ghost batch norm's running statistics.

Layers are changed in place and keep their parameters, buffers and names: a checkpoint is that of a single device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbt.devices.group import Group
from lbt.errors import UserError
from lbt.models import GhostBatchNorm2d


def spread(model: nn.Module, group: Group) -> int:
    """Has a model's norm layers see all devices' images; returns the images that have to stay on one device together.

    Args:
        model: on its device.
        group: whose `part` says what is normalised together.

    Raises:
        UserError: a batch norm has a computation of its own, in which other devices' images have no place.
    """
    unit, on_cpu = 1, next(model.parameters()).device.type == "cpu"
    for name, layer in model.named_modules():
        if isinstance(layer, GhostBatchNorm2d):
            layer.__class__, layer.group = SpreadGhostNorm, group
            unit = math.lcm(unit, layer.ghost_size)
        elif isinstance(layer, _BatchNorm):
            if type(layer).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
                kind = type(layer).__name__
                raise UserError(f"devices={group.size}: {name} is a {kind}, which sees one device's images; devices=1")
            layer.__class__, layer.group = (SpreadNorm if on_cpu else SpreadSyncNorm), group
            layer.process_group = None  # all of them
    return unit


class SpreadSyncNorm(nn.SyncBatchNorm):
    """Torch's batch norm over the images that all devices compute together, on GPUs.

    Attributes:
        group: its `part` is what is being computed; None: batch norm over this device's images.
    """

    group: Group

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [b, C, ...], in training over all devices."""
        part = self.group.part
        return _BatchNorm.forward(self, x) if part is None or part.everywhere else super().forward(x)


class SpreadNorm(_BatchNorm):
    """The same on CPUs, which torch's refuses.

    Attributes:
        group: its `part` is what is being computed; None: batch norm over this device's images.
    """

    group: Group

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {x.ndim}D input)")

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [b, C, ...], in training over all devices."""
        part = self.group.part
        if not self.training or part is None or part.everywhere:
            return super().forward(x)
        self._check_input_dim(x)
        weight = torch.ones_like(self.running_mean) if self.weight is None else self.weight
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        out, mean, var, count = _NormOverAll.apply(x, weight, bias, self.eps, self.group)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(var * (count / (count - 1)).to(var.dtype), rate)
        return out


class _NormOverAll(torch.autograd.Function):
    """Batch norm of [b, C, ...] over all processes' images, with the whole gradient: one exchange each way.

    Mean and variance are put together from those of the parts, of which each is exact (Chan et al. 1979). The gradient
    is that for fixed statistics, less its parts along a constant and along the normalised images, over all processes.
    Torch's own kernels do what goes over the images but for the last of that, so that it costs what a single process's
    batch norm does.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group) -> tuple[Tensor, ...]:
        channels, values = x.shape[1], x.numel() // x.shape[1]
        zeros = weight.new_zeros(2, channels)
        own = torch.stack(torch.batch_norm_update_stats(x, zeros[0], zeros[1], 1.0)).double()
        found = group.told(torch.cat([own.flatten(), own.new_tensor([values])]))
        means, variances, counts = found.split((channels, channels, 1), dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        mean, var = mean.to(weight.dtype), var.to(weight.dtype)
        out = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count, ctx.group = eps, float(count), group
        ctx.mark_non_differentiable(mean, var, count)
        return out, mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = ctx.group.told(torch.cat([grad_weight, grad_bias]).double()).sum(0)
        along_x, along_one = (sums / ctx.count).to(weight.dtype).chunk(2)
        inverse = (var + ctx.eps).rsqrt()
        scale = weight * inverse
        slope = scale * inverse * along_x
        level = scale * along_one - mean * slope
        scale, slope, level = (each.view([1, -1, *[1] * (x.ndim - 2)]) for each in (scale, slope, level))
        # The gradient may be laid out otherwise than the images, whose layout that of the layer before is.
        grad_x = torch.addcmul(-level, x, -slope, out=torch.empty_like(x)).addcmul_(grad, scale)
        return grad_x, grad_weight, grad_bias, None, None


class SpreadGhostNorm(GhostBatchNorm2d):
    """Ghost batch norm of a device's chunks; its running statistics count those of the other devices as passed by.

    Attributes:
        group: its `part` is what is being computed; None: this device computes everything.
    """

    group: Group

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each chunk by its own statistics in training."""
        part = self.group.part
        if not self.training or part is None or not self.track_running_stats:
            return super().forward(x)
        if part.everywhere:
            return self._on_every_device(x)
        self._pass_by(-(-(part.start - part.first) // self.ghost_size))
        out = super().forward(x)
        self._pass_by(-(-(part.first + part.whole - part.stop) // self.ghost_size))
        return out

    def _on_every_device(self, x: Tensor) -> Tensor:
        if self.group.rank == 0:
            return super().forward(x)
        self.track_running_stats = False  # they are counted once
        out = super().forward(x)
        self.track_running_stats = True
        self._pass_by(-(-len(x) // self.ghost_size))
        return out

    @torch.no_grad()
    def _pass_by(self, chunks: int) -> None:
        """Moves the running statistics by so many chunks whose own part another device adds."""
        for running in (self.running_mean, self.running_var):
            running.mul_((1.0 - self.momentum) ** chunks)
        self.num_batches_tracked.add_(chunks)


@contextmanager
def running_statistics(model: nn.Module, group: Group) -> Iterator[None]:
    """Has ghost batch norm's running statistics be those of all devices' chunks, after an update's passes over them.

    Meanwhile each device holds a summand: of the statistics before only the first device does. One exchange.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, SpreadGhostNorm)]
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    if not buffers:
        yield
        return
    if group.rank != 0:
        torch._foreach_zero_(buffers)
    yield
    whole = group.total(torch.cat(buffers))
    for buffer, found in zip(buffers, whole.split([len(buffer) for buffer in buffers]), strict=True):
        buffer.copy_(found)


@contextmanager
def statistics_in_turn(model: nn.Module, group: Group) -> Iterator[None]:
    """Has running statistics be as if the devices' passes had come one after the other, device by device.

    Each device's passes begin with the statistics before; a pass leaves ``1 - momentum`` of what was there. One
    exchange.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if group.size == 1 or not layers:
        yield
        return
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    before = torch.cat(buffers).double()
    passed = [layer.num_batches_tracked.clone() for layer in layers]
    yield
    counts = torch.stack([layer.num_batches_tracked - count for layer, count in zip(layers, passed, strict=True)])
    moved = group.gathered(torch.cat([torch.cat(buffers).double(), counts.double()]).unsqueeze(0), group.size)
    left = torch.tensor([1.0 - layer.momentum for layer in layers], dtype=torch.float64, device=before.device)
    widths = torch.tensor([2 * len(layer.running_mean) for layer in layers], device=before.device)
    found = before.clone()
    for row in moved:
        kept = (left ** row[len(before) :]).repeat_interleave(widths)
        found = kept * (found - before) + row[: len(before)]
    for buffer, value in zip(buffers, found.split([len(buffer) for buffer in buffers]), strict=True):
        buffer.copy_(value)
    for layer, count, all_passes in zip(layers, passed, moved[:, len(before) :].sum(0), strict=True):
        layer.num_batches_tracked.copy_(count + all_passes.long())
