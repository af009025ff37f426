"""How one update and one evaluation are executed; nothing here waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbt.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise

EVALUATION_BATCH = 2000  # images per forward pass; the scores do not depend on it

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Executor:
    """Runs a model's updates and evaluations in a precision.

    Args:
        model: on its device, channels_last.
        task: gives `loss`, `scores` and `metrics`.
        precision: "bf16" (autocast; weights and optimizer state stay fp32) or "fp32".
        micro_batch: images per forward and backward pass; None: the whole batch.
    """

    def __init__(self, model: nn.Module, task, *, precision: str, micro_batch: int | None):
        self.model, self.task, self.micro_batch = model, task, micro_batch
        self._dtype = _DTYPES[precision]
        self._device = next(model.parameters()).device.type

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32)

    def _input(self, images: Tensor) -> Tensor:
        return normalise(images, IMAGENET_MEAN, IMAGENET_STD, self._dtype)

    def backward(self, images: Tensor, labels: Tensor, observe: Callable[[float], None] | None = None) -> Tensor:
        """Adds the gradient of the batch's mean loss to the parameters and returns the summed loss, a scalar.

        Micro-batches are weighted by their size, so the gradient is the whole batch's where no layer looks across
        images; batch norm does, and normalises each micro-batch by itself.

        Args:
            images: uint8 [B, C, H, W].
            labels: int64 [B].
            observe: called after each micro-batch's backward pass with its share of the batch.
        """
        total = torch.zeros((), device=images.device)
        size = self.micro_batch or len(images)
        for part, wanted in zip(images.split(size), labels.split(size), strict=True):
            with self._autocast():
                loss = self.task.loss(self.model, self._input(part), wanted)
            (loss * (len(part) / len(images))).backward()
            if observe is not None:
                observe(len(part) / len(images))
            total += loss.detach() * len(part)
        return total

    @torch.no_grad()
    def evaluate(self, images: Tensor, labels: Tensor, model: nn.Module | None = None) -> dict[str, float]:
        """Returns the task's metrics on a whole set; waits for the device once, at the end.

        Args:
            images: uint8 [N, C, H, W].
            labels: int64 [N].
            model: what to evaluate, for instance averaged weights; None: the model that is trained.
        """
        model = self.model if model is None else model
        model.eval()
        sums: dict[str, Tensor] = {}
        for part, wanted in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
            with self._autocast():
                scores = self.task.scores(model, self._input(part), wanted)
            sums = {name: sums[name] + score if sums else score for name, score in scores.items()}
        model.train()
        return self.task.metrics(sums, len(images))

    def largest_micro_batch(self, images: Tensor, labels: Tensor) -> int:
        """Returns the largest halving of the (micro-)batch whose forward and backward pass fit into memory; 0: none."""
        size = (self.micro_batch or len(images)) // 2
        while size:
            self.model.zero_grad(set_to_none=True)
            try:
                with self._autocast():
                    self.task.loss(self.model, self._input(images[:size]), labels[:size]).backward()
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                size //= 2
        self.model.zero_grad(set_to_none=True)
        return size


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps batch norm's running statistics as they are during further passes over one batch."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether `error` is torch's running out of memory, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
