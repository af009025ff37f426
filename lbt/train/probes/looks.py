"""Probes that look at the weights between two updates: when they do, on which images, and that nothing notices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from lbt.config import Config
from lbt.errors import UserError, flat
from lbt.optim.wrapping import WrappingOptimizer
from lbt.train.random import Random
from lbt.train.statistics import frozen_statistics

if TYPE_CHECKING:
    from lbt.train.update import Update

DIGITS = 6  # significant digits recorded


class Looks:
    """Looks at a copy of the model before the first update, at the end of epochs, and between early updates.

    Looks are at the end of every `probe_every`-th epoch and of the last one and, with `probe.updates`, after every so
    many updates of the first `probe.first_epochs`. What is seen is the loss of images that are always the same,
    augmented once; in float32; batch norm normalises each micro-batch by its own statistics, as in training, because
    this is the loss whose gradient is followed, and what is scored has not been learned yet in the first epochs.
    Dropout and the like are off: the loss would be another one at every evaluation.

    A subclass gives `choose` and `figures`.

    Args:
        config: settled configuration.

    Attributes:
        obstacle: None: a look is no part of an update, so that a CUDA graph may hold that.
        compares: name of a probe that compares micro-batches of `probe.noise_images` with each other; "": it does not.

    Raises:
        UserError: there are fewer than two micro-batches to compare.
    """

    obstacle: ClassVar[str | None] = None
    compares: ClassVar[str] = ""

    def __init__(self, config: Config):
        self.config, self.settings = config, config.probe
        size, images = self.settings.micro_batch, self.settings.noise_images
        if self.compares and images < 2 * size:
            raise UserError(
                f"probe.noise_images={images}: {self.compares} compares micro-batches and needs two, "
                f"{2 * size} images or more at probe.micro_batch={size}"
            )
        self._looks: list[dict[str, Any]] = []  # since the last `read`
        self._ended = False  # whether the last of them was at the end of its epoch
        self._told = False  # whether the record has what is said once
        self._indices = torch.empty(0, dtype=torch.long)
        self._images: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, config: Config, model: nn.Module, most: int) -> Looks:
        """Returns the probe of a configuration."""
        return cls(config)

    def choose(self, labels: Tensor) -> Tensor:
        """Returns the indices, int64 [n], of the images to look at, given all labels on the host."""
        raise NotImplementedError

    def figures(self, update: Update, model: nn.Module, parts: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """Returns what is seen: numbers and lists of them.

        Args:
            update: of the training; its model is not to be touched.
            model: a copy, to do with as one likes.
            parts: micro-batches of float32 images, or lists of views of them, with their labels.
        """
        raise NotImplementedError

    def once(self, model: nn.Module) -> dict[str, Any]:
        """Returns what is recorded at the first reading alone: the images, and the names of layers."""
        return {"subset": self._indices.tolist(), "layers": [name for name, one in trained(model) if one.ndim > 1]}

    def due(self, step: int) -> bool:
        """Says that nothing is measured within an update."""
        return False

    def measure(self, update: Update) -> None:
        """Is never called."""

    def wanted(self, update: Update, *, ended: bool) -> bool:
        """Says whether to look at the weights as they are; `ended`: the update before was its epoch's last."""
        step, epoch = update.progress.step, update.progress.epoch
        if step == 0:
            return True
        if ended and ((epoch + 1) % self.config.probe_every == 0 or epoch + 1 == self.config.length):
            return True
        every = self.settings.updates
        return every is not None and epoch < self.settings.first_epochs and step % every == 0

    def look(self, update: Update, *, ended: bool) -> None:
        """Looks at the weights; what goes wrong in it ends no training and is recorded in the place of figures."""
        random = Random(update.device)
        state = random.state_dict()
        try:
            with still(update.model) as model:
                found = self.figures(update, model, self._parts(update))
        except (RuntimeError, ValueError, MemoryError) as error:  # no memory, a layer without second derivatives
            found = {"error": f"{type(error).__name__}: {flat(error)}"[:200]}
        finally:
            random.load_state_dict(state)
        if not self._told:
            found = {**self.once(update.model), **found}
            self._told = True
        self._looks.append({"step": update.progress.step, **rounded(found)})
        self._ended = ended

    def _parts(self, update: Update) -> list[tuple[Tensor, Tensor]]:
        """Returns the images in micro-batches of equal size, but for one."""
        if self._images is None:
            self._indices = self.choose(update.data.labels.cpu())
            self._images = update.data.chosen(self._indices, self.settings.seed)
        images, labels = self._images
        count = math.ceil(len(labels) / self.settings.micro_batch)
        pairs = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
        return [(update.data.form.input(part), wanted) for part, wanted in pairs]

    def read(self) -> dict[str, Any]:
        """Returns and forgets what was seen since the last call, maybe nothing.

        Returns:
            The figures at the end of the epoch, with `step`, the updates made by then; under `earlier` those of looks
            before it.
        """
        looks, self._looks = self._looks, []
        last = looks.pop() if looks and self._ended else {}
        self._ended = False
        return {**last, **({"earlier": looks} if looks else {})}

    def state_dict(self) -> dict[str, Any]:
        """Returns what was seen since the last `read`."""
        return {"looks": list(self._looks), "ended": self._ended, "told": self._told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._looks, self._ended, self._told = list(state["looks"]), bool(state["ended"]), bool(state["told"])


@contextmanager
def still(model: nn.Module) -> Iterator[nn.Module]:
    """Gives a copy of a model whose loss is a function of weights and images alone, and that has second derivatives.

    Batch norm normalises by the batch's statistics and leaves the running ones; everything else is as in evaluation.
    """
    found = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)  # second derivatives are faster so
    found.zero_grad(set_to_none=True)
    for layer in found.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    with frozen_statistics(found), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield found


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns the parameters that are trained, by name."""
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]


def joined(parts: Sequence[tuple[Any, Tensor]]) -> tuple[Any, Tensor]:
    """Returns micro-batches as one batch."""
    images, labels = zip(*parts, strict=True)
    views = isinstance(images[0], list)
    return ([torch.cat(view) for view in zip(*images, strict=True)] if views else torch.cat(images)), torch.cat(labels)


def loss_of(update: Update, model: nn.Module, images: Any, labels: Tensor) -> Callable[[], Tensor]:
    """Returns what computes the task's loss of a micro-batch."""
    task = update.executor.task
    return lambda: task.loss(task.forward(model, images), labels)["loss"]


def momentum_of(update: Update) -> float | None:
    """Returns mu of heavy ball or Nesterov's momentum, ``b = mu b + g``; None where the rule is of another kind.

    It is of this kind where it is torch's SGD or says so by an attribute `heavy_ball`, and every wrapper around it
    leaves it so.
    """
    rule = update.optimizer
    while isinstance(rule, WrappingOptimizer) and getattr(rule, "heavy_ball", True):
        rule = rule.inner
    if not getattr(rule, "heavy_ball", isinstance(rule, SGD)):
        return None
    momentum = update.optimizer.param_groups[0].get("momentum")
    return None if momentum is None else float(momentum)


def relative_rates(update: Update) -> list[float] | None:
    """Returns the rate of each trained weight in the last update as a multiple of `Update.rates`' effective one.

    It is the weight's trust ratio, where the optimizer tells it, times its group's rate over the first group's. None:
    there is one rate for all, or no update yet.
    """
    groups = update.optimizer.param_groups
    ratios = update.optimizer.trust_ratios() if hasattr(update.optimizer, "trust_ratios") else {}
    if update.progress.step == 0 or not (ratios or len(groups) > 1):
        return None
    peak, of = float(groups[0]["initial_lr"]), {}
    for group in groups:
        rate = float(group["initial_lr"]) / peak * float(group.get("agvm_factor", 1.0))
        # TVLARS as released has phi in the ratios alone: other weights keep the raw rate.
        raw = 1 / float(group["lr_factor"]) if group.get("phi_scope") == "adapted" else 1.0
        of |= {one: rate * (float(ratios[one]) if one in ratios else raw) for one in group["params"]}
    return [of[one] for _, one in trained(update.model)]


def rounded(value: Any) -> Any:
    """Returns figures with as many digits as are recorded."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
