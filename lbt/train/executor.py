"""How one update and one evaluation are executed; nothing here waits for the device."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lbt.data.forms import PICTURES, Form
from lbt.devices.group import ALONE, Group, Part
from lbt.devices.norm import running_statistics, spread, statistics_in_turn
from lbt.train.compiled import CompiledModel
from lbt.train.memory import is_out_of_memory
from lbt.train.random import Random
from lbt.train.regions import Regions
from lbt.train.sets import Sets
from lbt.train.statistics import frozen_statistics, statistics_of

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class _Pass(nn.Module):
    """A task's forward pass as a module of the model's parameters."""

    def __init__(self, model: nn.Module, task: Any):
        super().__init__()
        self.model, self._task = model, task

    def forward(self, use: Callable[..., Any], inputs: Any) -> Tensor:
        """Returns the task's outputs, computed by the model or its compiled code."""
        return self._task.forward(use, inputs)


class Executor:
    """Runs a model's updates and evaluations in a precision.

    Args:
        model: on its device, channels_last. task: see `lbt.tasks`. precision: "bf16" (autocast; weights and optimizer
        state stay fp32) or "fp32". micro_batch: images per forward and backward pass; None: the whole batch. compiled:
        the model as compiled code, for training passes of full size; None: not compiled. regions: is told of the parts.
        group: the devices that share a batch; the model's norm layers become those of all of them. workers: parts of a
        batch, on all devices, each with a gradient and batch norm of its own; 0: there are none, and
            gradients are averaged over the devices.
        form: what the samples are, which this class calls images.

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
        group: Group = ALONE,
        workers: int = 0,
        form: Form = PICTURES,
    ):
        self.model, self.task, self.micro_batch, self.compiled = model, task, micro_batch, compiled
        self.batch: int | None = None
        self.group, self.workers, self.form = group, workers, form
        exchanges = group.size > 1 and not workers
        self._unit = spread(model, group) if exchanges else 1
        self._exchanged = group.exchange(_Pass(model, task)) if exchanges else None
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

    def parts(self, count: int) -> list[Part]:
        """Returns which images of a batch of `count` this device computes, micro-batch by micro-batch."""
        if self.workers:
            return [part for parts in self.parts_of_workers(count) for part in parts]
        return self.group.parts(count, self.micro_batch, self._unit)

    def parts_of_workers(self, count: int) -> list[list[Part]]:
        """Returns the same for each worker of this device, micro-batch by micro-batch; one may have no images."""
        share, n = self.group.share(self.workers), self.workers
        found = []
        for worker in range(share.start, share.stop):
            first, stop = worker * count // n, (worker + 1) * count // n
            size = self.micro_batch or max(1, stop - first)
            starts = range(first, stop, size)
            found.append([Part(one, min(one + size, stop), first, stop - first, everywhere=False) for one in starts])
        return found

    def rows(self, count: int) -> Tensor:
        """Returns the places of these images in the batch, int64 [b]."""
        places = [torch.arange(part.start, part.stop, device=self._device) for part in self.parts(count)]
        return torch.cat(places) if places else torch.arange(0, device=self._device)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the model computes in the run's precision."""
        return torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32)

    def input(self, images: Tensor) -> Tensor | list[Tensor]:
        """Returns normalised images of uint8 [b, C, H, W], or a list of views of uint8 [b, views, C, H, W]."""
        with self._regions.region("augmentation"):
            return self.form.input(images, self._dtype)

    def forward(self, images: Tensor, *, compiled: bool = True) -> Tensor:
        """Returns the task's outputs for uint8 images, by compiled code where there is some and it is wanted."""
        learns = self.model.training and torch.is_grad_enabled()
        full = compiled and self.compiled is not None and learns and len(images) == self._full()
        use = self.compiled if full else self.model
        call = self._exchanged if self._exchanged is not None and learns else self.task.forward
        with self._regions.region("forward"), self.autocast():
            return call(use, self.input(images))

    def _full(self) -> int | None:
        """Returns this device's images of a full (micro-)batch."""
        size = self.batch if self.workers else self.micro_batch or self.batch
        return size and self.parts(size)[0].size

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

        Of several devices each computes its part of every micro-batch. Gradients are exchanged with the last one's, or,
        for an optimizer that looks at each, with every one's.

        Args:
            images: uint8 [B, C, H, W], or [B, views, C, H, W]; of several devices, those of this one's `rows`.
            labels: int64 [B], of the whole batch.
            observe: called after each micro-batch's backward pass with its share of the batch.

        Returns:
            The task's figures, each a scalar: the mean over the whole batch times B.
        """
        parts = self.parts(len(labels))
        with self._regions.region("backward"), running_statistics(self.model, self.group):
            if self.task.spans_batch and (len(parts) > 1 or not parts[0].everywhere):
                return self._backward_through_outputs(images, labels, parts, observe)
            return self._backward_part_by_part(images, labels, parts, observe)

    def backward_by_worker(
        self,
        images: Tensor,
        labels: Tensor,
        collect: Callable[[int], None],
        show: Callable[[int], None] | None = None,
        named: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Puts the gradient of one worker after the other of this device into the parameters.

        A worker's gradient is that of the mean loss over its images times their share of the batch times the number of
        workers, so that the mean over workers is the whole batch's; one without images has none. Batch norm normalises
        each pass by itself, and its running statistics move with one pass after the other, over all devices.

        Args:
            images: uint8 [B, C, H, W], or [B, views, C, H, W]; of several devices, those of this one's `rows`.
            labels: int64 [B], of the whole batch.
            collect: is called after a worker's backward pass with its number on this device.
            show: is called before its forward pass.
            named: the task's figures, for a device that has no images.

        Returns:
            The task's figures, each a scalar: the mean over the whole batch times B.
        """
        parts, sums = self.parts_of_workers(len(labels)), {}
        pieces = iter(images.split([part.size for own in parts for part in own]))
        with self._regions.region("backward"), statistics_in_turn(self.model, self.group):
            for worker, own in enumerate(parts):
                if not own:
                    continue
                if show is not None:
                    show(worker)
                for part in own:
                    figures = self._loss(self.forward(next(pieces)), labels[part.start : part.stop])
                    loss = figures["loss"] * (part.size * self.workers / len(labels))
                    if loss.requires_grad:  # else no layer takes part in this update
                        loss.backward()
                    for name, figure in figures.items():
                        figure = figure.detach() * (part.size * self.group.size)
                        sums[name] = sums[name] + figure if name in sums else figure
                collect(worker)
        return self.group.means(sums or dict.fromkeys(named, torch.zeros((), device=self._device)))

    @contextmanager
    def _computing(self, part: Part, *, exchange: bool) -> Iterator[None]:
        """Computes a part of a batch together with the other devices."""
        quiet = nullcontext() if exchange or self._exchanged is None else self.group.without_exchange(self._exchanged)
        with quiet, self.group.computing(part):
            yield

    def _backward_part_by_part(
        self, images: Tensor, labels: Tensor, parts: Sequence[Part], observe: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for part, own in zip(parts, images.split([part.size for part in parts]), strict=True):
            share = part.whole / len(labels)
            with self._computing(part, exchange=part is parts[-1] or observe is not None):
                figures = self._loss(self.forward(own), labels[part.start : part.stop])
                (figures["loss"] * (part.weight * share)).backward()
            if observe is not None:
                observe(share)
            for name, figure in figures.items():
                figure = figure.detach() * (part.weight * part.whole)
                sums[name] = sums[name] + figure if name in sums else figure
        return self.group.means(sums)

    def _backward_through_outputs(
        self, images: Tensor, labels: Tensor, parts: Sequence[Part], observe: Callable[[float], None] | None
    ) -> dict[str, Tensor]:
        """Takes the loss of all outputs, and its gradient back through the model part by part."""
        pieces = images.split([part.size for part in parts])
        outputs, states = [], []
        if len(parts) == 1:
            with self._computing(parts[0], exchange=True):
                outputs.append(self.forward(images))
        else:
            with torch.no_grad(), frozen_statistics(self.model):  # the second pass counts
                for part, own in zip(parts, pieces, strict=True):
                    states.append(self._random_state())
                    with self.group.computing(part):
                        outputs.append(self.forward(own))
            self._draws = self._draws or (states[0] is not None and self._random.changed(states[0]))
        figures, gradients = self._through_loss(torch.cat(outputs).detach(), labels, parts)
        for place, (part, own, gradient) in enumerate(zip(parts, pieces, gradients, strict=True)):
            with self._computing(part, exchange=part is parts[-1] or observe is not None):
                again = outputs[0] if len(parts) == 1 else self._again(own, states[place])
                again.backward(gradient if part.everywhere else gradient * self.group.size)
            if observe is not None:
                observe(part.whole / len(labels))
        return {name: figure.detach() * len(labels) for name, figure in figures.items()}

    def _through_loss(
        self, own: Tensor, labels: Tensor, parts: Sequence[Part]
    ) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """Returns the figures of all devices' outputs, and the gradient for each part of this device's `own`."""
        if hasattr(self.task, "loss_together") and not any(part.everywhere for part in parts):
            own.requires_grad_()
            with self._regions.region("forward"), self.autocast():
                figures = self.task.loss_together(own, len(labels), self.group.total)
            figures["loss"].backward()
            return figures, own.grad.split([part.size for part in parts])
        whole = self.group.joined(own, parts).requires_grad_()
        figures = self._loss(whole, labels)
        figures["loss"].backward()
        return figures, [whole.grad[part.start : part.stop] for part in parts]

    def _again(self, images: Tensor, state: dict[str, Tensor] | None) -> Tensor:
        """Computes a part once more, of the same random numbers where the model draws some."""
        if self._draws:
            self._random.load_state_dict(state)
        return self.forward(images, compiled=not self._draws)  # compiled code would draw other numbers

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
            scores = self.task.evaluate(model, replace(sets, input=self.input, group=self.group), epoch, epochs)
        model.train()
        return scores

    def statistics_of(self, images: Tensor) -> AbstractContextManager[None]:
        """Has batch norm's running statistics be those of `images` under the present weights, then gives them back.

        Args:
            images: augmented as in training, uint8 [N, C, H, W] or [N, views, C, H, W].
        """
        return statistics_of(self.model, self.forward, images)

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
