"""One update of a training: gradient, clipping, probes, step and average, at the schedule's rates."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from lbt import build, weights
from lbt.config import Config
from lbt.data.resident import ResidentData
from lbt.devices.group import ALONE, Group
from lbt.errors import UserError
from lbt.optim.workers import is_local
from lbt.train.compiled import CompiledModel, pays
from lbt.train.executor import Executor, Sets
from lbt.train.layout import lay_out
from lbt.train.probes import Probe, chosen
from lbt.train.progress import Progress
from lbt.train.regions import Regions
from lbt.train.statistics import frozen_statistics

STATISTICS_IMAGES = 10_000  # whose batch-norm statistics go with weights that were not trained on


class Update:
    """Makes a training's updates; nothing in one waits for the device.

    Args:
        executor: the model, its task, and how a batch goes through them.
        optimizer: at its peak learning rates.
        schedule: the factor on them as a function of the updates made.
        progress: which update it is, and where its figures are summed.
        grad_clip: upper bound of the gradient's global 2-norm; None: none.
        average: the moving average of the weights, which is scored in their place; None: none is kept.
        probes: by name.
        data: the training set, for probes that look at it.
        regions: is told of the parts.
    """

    def __init__(
        self,
        executor: Executor,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        progress: Progress,
        *,
        grad_clip: float | None = None,
        average: AveragedModel | None = None,
        probes: Mapping[str, Probe] | None = None,
        data: ResidentData | None = None,
        regions: Regions | None = None,
    ):
        self.executor, self.optimizer, self.schedule, self.progress = executor, optimizer, schedule, progress
        self.grad_clip, self.average, self.probes = grad_clip, average, probes or {}
        self.data, self._regions = data, regions or Regions()
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    @classmethod
    def of(
        cls,
        config: Config,
        task: Any,
        data: ResidentData,
        classes: int,
        steps: Sequence[int],
        progress: Progress,
        regions: Regions,
        group: Group = ALONE,
    ) -> "Update":
        """Returns the updates of a configuration.

        Args:
            config: settled configuration; torch's generator is at its seed.
            task: see `lbt.tasks`.
            data: the training set, on the device.
            classes: their number.
            steps: updates of each epoch.
            progress: of the training.
            regions: is told of the parts.
            group: the devices that share each batch.

        Raises:
            UserError: the configuration does not fit the model.
        """
        model = build.prepared(task, build.model(config, classes, data.form.size(data.images)))
        weights.take(config, model)
        lay_out(model, data.labels.device, config.small_maps).train()
        average = build.average(config, model)
        optimizer = build.optimizer(config, model, steps=steps, devices=group.size)
        if config.layer_norms and is_local(optimizer):
            raise UserError(
                "layer_norms: an optimizer with workers is given no gradient of the whole batch; leave it out"
            )
        if average is not None and hasattr(optimizer, "show_worker") and (config.workers or 1) > 1:
            raise UserError(f"ema={config.ema}: each of the optimizer's workers has weights of its own; leave it out")
        wanted = pays(model, task, data, config.length) if config.compile == "auto" else config.compile
        compiled, micro = CompiledModel(model) if wanted else None, config.micro_batch
        how = {
            "precision": config.precision,
            "micro_batch": micro,
            "compiled": compiled,
            "regions": regions,
            "group": group,
            "workers": (config.workers or 1) if is_local(optimizer) else 0,
            "form": data.form,
        }
        executor = Executor(model, task, **how)
        if hasattr(optimizer, "share_with"):
            optimizer.share_with(group.process_group)
        return cls(
            executor,
            optimizer,
            build.schedule(config, steps=steps),
            progress,
            grad_clip=config.grad_clip,
            average=average,
            probes=chosen(config, model, max(steps)),
            data=data,
            regions=regions,
        )

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.executor.model

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Makes one update with images uint8 [B, C, H, W], or [B, views, C, H, W], and labels int64 [B].

        Of several devices each has the images of its `rows`, and all labels.
        """
        self.set_rates()
        self.apply(images, labels)

    def set_rates(self) -> None:
        """Sets the learning rates of the update about to be made."""
        factor = self.schedule(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def apply(self, images: Tensor, labels: Tensor) -> None:
        """Does an update's work on the device, at the rates that are set."""
        self.progress.add(self.gradient(images, labels))
        for probe in self.probes.values():
            if probe.due(self.progress.step):
                probe.measure(self)
        if getattr(self.optimizer, "needs_closure", False):
            with frozen_statistics(self.model), self._regions.region("optimizer"):
                self.optimizer.step(lambda: self.gradient(images, labels)["loss"] / len(labels))
        else:
            with self._regions.region("optimizer"):
                self.optimizer.step()
        self.progress.sent += getattr(self.optimizer, "bytes_sent", 0)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def gradient(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Puts the batch's gradient, clipped, where the optimizer finds it, and returns the summed figures."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.executor.workers:
            return self._collect_gradients(images, labels)
        figures = self.executor.backward(images, labels, getattr(self.optimizer, "observe_micro_batch", None))
        if self.grad_clip is not None:
            clip(self.model.parameters(), self.grad_clip)
        return figures

    def _collect_gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Has the optimizer take each worker's gradient, clipped, and returns the summed figures."""

        def collect(worker: int) -> None:
            if self.grad_clip is not None:
                clip(self.model.parameters(), self.grad_clip)
            self.optimizer.collect(worker)
            self.optimizer.zero_grad(set_to_none=True)

        begin = getattr(self.optimizer, "begin_update", None)
        if begin is not None:
            begin()
        show = getattr(self.optimizer, "show_worker", None)
        return self.executor.backward_by_worker(images, labels, collect, show, list(self.progress.sums))

    def rates(self) -> tuple[float, float]:
        """Returns the first group's learning rate at the last update, and that rate times the optimizer's factor."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]), float(group["lr"] * group.get("lr_factor", 1.0))

    def scores(self, sets: Sets, data: ResidentData, *, epoch: int, epochs: int) -> dict[str, float]:
        """Returns the task's scores after an epoch; an optimizer may keep one set of weights to train on, one to use.

        Args:
            sets: what is scored.
            data: the training set.
            epoch: epochs trained.
            epochs: length of the training.
        """
        with self.scored(data) as model:
            return self.executor.evaluate(sets, epoch=epoch, epochs=epochs, model=model)

    @contextmanager
    def scored(self, data: ResidentData) -> Iterator[nn.Module]:
        """Gives the model with the weights and statistics that are scored; afterwards all is as it was.

        Args:
            data: the training set.
        """
        model = self.model if self.average is None else self.average.module
        if not hasattr(self.optimizer, "eval"):
            yield model
            return
        self.optimizer.eval()
        try:
            with self.executor.statistics_of(data.examples(STATISTICS_IMAGES)):
                yield model
        finally:
            self.optimizer.train()

    @property
    def looks(self) -> bool:
        """Whether a probe looks at the weights between two updates."""
        return any(hasattr(one, "look") for one in self.probes.values())

    def look(self, *, ended: bool) -> float:
        """Has the probes look at the weights that do so between two updates, where it is time to.

        Args:
            ended: the update before was its epoch's last.

        Returns:
            The seconds that it took; 0: nobody looked, and nothing waited for the device.
        """
        probes = [one for one in self.probes.values() if hasattr(one, "look") and one.wanted(self, ended=ended)]
        if not probes:
            return 0.0
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.monotonic()
        for probe in probes:
            probe.look(self, ended=ended)
        return time.monotonic() - begun

    def readings(self) -> dict[str, dict[str, Any]]:
        """Returns what the probes have measured since the last call, if they have; waits for the device."""
        return {name: found for name, probe in self.probes.items() if (found := probe.read())}

    def consolidate(self) -> None:
        """Has this process' next `state_dict` hold what other devices have; all of them call it."""
        if is_local(self.optimizer):
            self.optimizer.consolidate_state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the weights, the optimizer, the average and the probes."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return {**state, "probes": {name: probe.state_dict() for name, probe in self.probes.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave; a probe that was not there then begins now."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for name, probe in self.probes.items():
            if name in state["probes"]:
                probe.load_state_dict(state["probes"][name])


@torch.no_grad()
def clip(parameters: Iterable[Tensor], bound: float) -> None:
    """Scales the gradient down to a global 2-norm of at most `bound`, as `torch.nn.utils.clip_grad_norm_` does.

    Where the squares of finite gradients overflow, that one multiplies them by 0: training stands still without a word.
    Here the norm is taken in float64 as well and counts where the other one is infinite. A gradient that is not finite
    itself stays so and ends the run.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    if not held:
        return
    gradients = [parameter.grad for parameter in held]
    norm = torch.nn.utils.get_total_norm(gradients)
    exact = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float64)).norm()
    largest = torch.finfo(norm.dtype).max
    overflowed = norm.isinf() & exact.isfinite()
    torch.nn.utils.clip_grads_with_norm_(held, bound, torch.where(overflowed, exact.clamp(max=largest).float(), norm))
