"""How one update and one evaluation are executed; nothing here waits for the device."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbt.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise
from lbt.train.compiled import CompiledModel
from lbt.train.random import Random
from lbt.train.regions import Regions

EVALUATION_BATCH = 2000  # images per forward pass of an evaluation; the scores do not depend on it

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Sets:
    """The images a task is scored on, on the device, and how they reach the model.

    Attributes:
        train_images: uint8 [N, C, H, W], without augmentation.
        train_labels: int64 [N].
        test_images: uint8 [M, C, H, W]; the validation set where one is held out.
        test_labels: int64 [M].
        classes: number of classes.
        input: uint8 images to the model's input, normalised and in the run's precision.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    input: Callable[[Tensor], Tensor] = normalise

    def batches(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised images and what belongs to them, some thousand at a time."""
        for part, wanted in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
            yield self.input(part), wanted


class Executor:
    """Runs a model's updates and evaluations in a precision.

    Args:
        model: on its device, channels_last.
        task: see `lbt.tasks`.
        precision: "bf16" (autocast; weights and optimizer state stay fp32) or "fp32".
        micro_batch: images per forward and backward pass; None: the whole batch.
        compiled: the model as compiled code, for training passes of full size; None: not compiled.
        regions: is told of the parts.

    Attributes:
        batch: images of a full batch; an epoch's last, smaller one is not worth compiling for.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Any,
        *,
        precision: str,
        micro_batch: int | None,
        compiled: CompiledModel | None = None,
        regions: Regions | None = None,
    ):
        self.model, self.task, self.micro_batch, self.compiled = model, task, micro_batch, compiled
        self.batch: int | None = None
        self._regions = regions or Regions()
        self._dtype = _DTYPES[precision]
        self._device = next(model.parameters()).device.type
        self._random = Random(next(model.parameters()).device)
        self._draws = False  # whether the model is known to draw random numbers in training, as dropout does

    def copied(self) -> "Executor":
        """Returns one with a copy of the model and no micro-batches, whose passes leave nothing behind."""
        other = copy.copy(self)
        other.model, other._regions = copy.deepcopy(self.model), Regions()
        other.micro_batch = other.compiled = None
        return other

    def autocast(self) -> torch.autocast:
        """Returns the context in which the model computes in the run's precision."""
        return torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32)

    def input(self, images: Tensor) -> Tensor | list[Tensor]:
        """Returns normalised images of uint8 [b, C, H, W], or a list of views of uint8 [b, views, C, H, W]."""
        if images.ndim == 5:
            return [self.input(view) for view in images.unbind(1)]
        with self._regions.region("augmentation"):
            return normalise(images, IMAGENET_MEAN, IMAGENET_STD, self._dtype)

    def forward(self, images: Tensor, *, compiled: bool = True) -> Tensor:
        """Returns the task's outputs for uint8 images, by compiled code where there is some and it is wanted."""
        full = compiled and self.compiled is not None and len(images) == (self.micro_batch or self.batch)
        use = self.compiled if full and self.model.training and torch.is_grad_enabled() else self.model
        with self._regions.region("forward"), self.autocast():
            return self.task.forward(use, self.input(images))

    def _loss(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with self._regions.region("forward"), self.autocast():
            return self.task.loss(outputs, labels)

    def backward(
        self, images: Tensor, labels: Tensor, observe: Callable[[float], None] | None = None
    ) -> dict[str, Tensor]:
        """Adds the gradient of the batch's mean loss to the parameters.

        Micro-batches are weighted by their size, so the gradient is the whole batch's where no layer looks across
        images; batch norm does, and normalises each micro-batch by itself. Where the loss itself spans the batch
        (`task.spans_batch`), the outputs of all micro-batches are collected first, without a graph; then each is
        computed once more, of the same random numbers where the model draws some, and takes its part of the loss's
        gradient (Gao et al. 2021, arXiv 2101.06983).

        Args:
            images: uint8 [B, C, H, W], or [B, views, C, H, W].
            labels: int64 [B].
            observe: called after each micro-batch's backward pass with its share of the batch.

        Returns:
            The task's figures, each a scalar: the mean over the batch times B.
        """
        size = self.micro_batch or len(images)
        with self._regions.region("backward"):
            if self.task.spans_batch and size < len(images):
                return self._backward_in_two_passes(images, labels, size, observe)
            return self._backward_part_by_part(images, labels, size, observe)

    def _backward_part_by_part(
        self, images: Tensor, labels: Tensor, size: int, observe: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for part, wanted in zip(images.split(size), labels.split(size), strict=True):
            figures = self._loss(self.forward(part), wanted)
            (figures["loss"] * (len(part) / len(images))).backward()
            if observe is not None:
                observe(len(part) / len(images))
            for name, figure in figures.items():
                figure = figure.detach() * len(part)
                sums[name] = sums[name] + figure if name in sums else figure
        return sums

    def _backward_in_two_passes(
        self, images: Tensor, labels: Tensor, size: int, observe: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        states, parts = [], images.split(size)
        with torch.no_grad(), frozen_statistics(self.model):  # the second pass counts
            outputs = []
            for part in parts:
                states.append(self._random_state())
                outputs.append(self.forward(part))
            outputs = torch.cat(outputs)
        self._draws = self._draws or (states[0] is not None and self._random.changed(states[0]))
        figures = self._loss(outputs.requires_grad_(), labels)
        figures["loss"].backward()
        for part, gradient, state in zip(parts, outputs.grad.split(size), states, strict=True):
            if self._draws:
                self._random.load_state_dict(state)
            self.forward(part, compiled=not self._draws).backward(gradient)  # compiled code would draw other numbers
            if observe is not None:
                observe(len(part) / len(images))
        return {name: figure.detach() * len(images) for name, figure in figures.items()}

    def _random_state(self) -> dict[str, Tensor] | None:
        """Returns the state of torch's generators, None while a CUDA graph is captured, which cannot go back to one.

        Raises:
            RuntimeError: a graph is captured of a model that draws random numbers.
        """
        if self._device != "cuda" or not torch.cuda.is_current_stream_capturing():
            return self._random.state_dict()
        if self._draws:
            raise RuntimeError("the model draws the same random numbers in two passes")
        return None

    @torch.no_grad()
    def evaluate(self, sets: Sets, *, epoch: int, epochs: int, model: nn.Module | None = None) -> dict[str, float]:
        """Returns the task's scores after an epoch.

        Args:
            sets: the images.
            epoch: epochs trained.
            epochs: length of the training.
            model: what to evaluate, for instance averaged weights; None: the model that is trained.
        """
        model = self.model if model is None else model
        model.eval()
        with self.autocast():
            scores = self.task.evaluate(model, replace(sets, input=self.input), epoch, epochs)
        model.train()
        return scores

    @contextmanager
    def statistics_of(self, images: Tensor) -> Iterator[None]:
        """Has batch norm's running statistics be those of `images` under the present weights, then gives them back.

        Args:
            images: augmented as in training, uint8 [N, C, H, W] or [N, views, C, H, W].
        """
        layers = [
            layer for layer in self.model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats
        ]
        kept = [({name: buffer.clone() for name, buffer in layer.named_buffers()}, layer.momentum) for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
        try:
            with torch.no_grad():
                for part in images.split(EVALUATION_BATCH):
                    if len(part) > 1 or len(images) == 1:  # a lone last one has no variance where maps are 1x1
                        self.forward(part)
            yield
        finally:
            for layer, (buffers, momentum) in zip(layers, kept, strict=True):
                layer.load_state_dict(buffers, strict=False)
                layer.momentum = momentum

    def largest_micro_batch(self, images: Tensor, labels: Tensor) -> int:
        """Returns the largest halving of the (micro-)batch whose forward and backward pass fit into memory; 0: none."""
        size = (self.micro_batch or len(images)) // 2
        while size:
            self.model.zero_grad(set_to_none=True)
            try:
                self._loss(self.forward(images[:size]), labels[:size])["loss"].backward()
                break
            except ValueError:  # a batch too small to be normalised
                size = 0
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
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "CUDA error: out of memory" in said)
