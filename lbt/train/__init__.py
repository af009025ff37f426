"""The training loop, top to bottom: schedule, update, evaluate, record, checkpoint."""

import json
import time
import traceback
from contextlib import closing
from typing import Any

import torch

from lbt import build, records, runtime
from lbt.config import Config
from lbt.data import ImageSet, feed
from lbt.errors import UserError
from lbt.identity import to_json
from lbt.records import places
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.mirror import Mirror
from lbt.session.outcome import Outcome
from lbt.tasks import metrics
from lbt.train import checkpoint
from lbt.train.compiled import CompiledModel, pays
from lbt.train.executor import Executor, Sets, frozen_statistics, is_out_of_memory
from lbt.train.graph import GraphedUpdate
from lbt.train.probes.layer_norms import LayerNorms

CHECKPOINT_SECONDS = 20.0  # an epoch that ends later than this after the last checkpoint writes one
LONGEST_SECONDS = 45.0  # within an epoch one is written after this time
STATISTICS_IMAGES = 10_000  # whose batch-norm statistics go with weights that were not trained on


class Training:
    """The objects of one run and their state.

    Args:
        config: settled configuration.
        images: its data, in host memory.
        name: the run's id.

    Raises:
        UserError: the configuration does not fit the data or the model.
    """

    def __init__(self, config: Config, images: ImageSet, name: str):
        self.config, self.images, self.name = config, images, name
        self.device = runtime.prepare(config)
        self.path = records.find(config.results_dir, name)
        self.path = self.path or records.path_of(config.results_dir, config.experiment, name)
        self.checkpoint_path = places.checkpoint_of(config.results_dir, name)
        self.data = feed(
            images.train_images.to(self.device),
            images.train_labels.to(self.device),
            batch=config.batch,
            last_batch=config.data.last_batch,
            augment=config.data.augment,
            stratified=config.data.stratified,
            seed=config.seed,
        )
        test = images.test_images.to(self.device), images.test_labels.to(self.device)
        self.sets = Sets(self.data.images, self.data.labels, *test, len(images.classes))
        task = build.task(config)
        if self.data.views != task.views:
            raise UserError(
                f"task={config.task['name']} needs {task.views} view(s) of an image, "
                f"data.augment={config.data.augment} gives {self.data.views}"
            )
        self.metrics = metrics.declared_by(task)
        self.model = task.prepare(build.model(config, len(images.classes)))
        self.model.to(self.device, memory_format=torch.channels_last).train()
        self.average = build.average(config, self.model)
        batches = build.batches(config)
        self.batch_of = [batches(epoch) for epoch in range(config.epochs)]
        self.steps_of = steps = [self.data.steps(batch) for batch in self.batch_of]  # updates of each epoch
        self.optimizer = build.optimizer(config, self.model.parameters(), steps=steps)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.schedule = build.schedule(config, steps=steps)
        wanted = pays(self.model, task, self.data, config.epochs) if config.compile == "auto" else config.compile
        compiled, micro = CompiledModel(self.model) if wanted else None, config.micro_batch
        self.executor = Executor(self.model, task, precision=config.precision, micro_batch=micro, compiled=compiled)
        self.norms = None
        if config.layer_norms is not None:
            self.norms = LayerNorms(self.model, every=config.layer_norms, most=max(steps))
        self.step = 0  # updates made
        self.epoch = 0  # epochs completed
        self.sums: dict[str, torch.Tensor] = {}  # loss and the task's other figures, of this epoch's images so far
        self.seen = 0  # images of this epoch so far
        self.wall_seconds = 0.0  # spent on this run in earlier sessions
        self.record: records.RecordWriter | None = None
        self.graph = GraphedUpdate(self) if config.cuda_graph else None

    def execute(self, interrupt: Interrupt, reporter: Reporter) -> Outcome:
        """Trains to the end, to divergence, out of memory, or until interrupted, and records it."""
        error = None
        with closing(Mirror(self.config, self.name)) as mirror, closing(reporter):
            self._begin()
            reporter.start(self.config, self.name, self.images, self.steps_of, self.step)
            try:
                with interrupt:
                    status, extra = self._loop(interrupt, reporter, mirror), {}
            except RuntimeError as caught:
                if not is_out_of_memory(caught):
                    status, extra, error = "failed", {"error": _one_line(caught)}, caught
                else:
                    status, extra = "oom", {}
            except Exception as caught:
                status, extra, error = "failed", {"error": _one_line(caught)}, caught
            if status == "oom":  # outside the handler, so that the failed pass's memory is free
                extra = {"largest_micro_batch": self._largest_micro_batch()}
            summary = {**self._summary(), **extra}
            self.record.end(status, summary)
            if status in records.FINAL:
                self.checkpoint_path.unlink(missing_ok=True)
            outcome = Outcome(self.name, status, self.config, self.path, summary)
            mirror.end(status, summary)
            reporter.end(outcome)
        if error is not None:
            traceback.print_exception(error)
        return outcome

    def _begin(self) -> None:
        """Takes up the checkpoint, if there is one, and opens the record with the lines that belong to it."""
        state = checkpoint.load(self.checkpoint_path, self.device)
        if state is None or state["device"] != self.device.type:  # generators do not go from one kind to another
            first = {"kind": "run", "schema": records.SCHEMA, "id": self.name, "config": to_json(self.config)}
            first["metrics"] = metrics.to_json(self.executor.task)
            made_by = runtime.provenance(self.device) | {
                "data": self.images.origin,
                "data_official": self.images.official,
                "data_fingerprint": self.images.fingerprint,
                "train_images": len(self.images.train_labels),
                "test_images": len(self.images.test_labels),
                "steps_per_epoch": self.data.steps_per_epoch,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            }
            self.record = records.RecordWriter(self.path, [records.to_line(first | {"provenance": made_by})])
        else:
            checkpoint.restore(self, state)
            self.record = records.RecordWriter(self.path, state["lines"])
        self._started = self._saved = time.monotonic()

    def _loop(self, interrupt: Interrupt, reporter: Reporter, mirror: Mirror) -> str:
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            seen_before = self.seen
            self.data.batch = self.executor.batch = self.batch_of[self.epoch]
            for images, labels in self.data.batches():
                self._update(images, labels)
                reporter.step(self.epoch + 1, self.step, self.seen - seen_before, time.monotonic() - started)
                if interrupt.requested():
                    self._save()
                    return "interrupted"
                if time.monotonic() - self._saved > LONGEST_SECONDS:
                    self._save()
            line = self._evaluate(started, self.seen - seen_before)
            self.epoch, self.seen = self.epoch + 1, 0
            for total in self.sums.values():
                total.zero_()
            self.record.append(line)
            mirror.epoch(line)
            reporter.epoch(line)
            if metrics.diverged(line, self.metrics, last=self.epoch == self.config.epochs):
                return "diverged"
            if time.monotonic() - self._saved > CHECKPOINT_SECONDS and self.epoch < self.config.epochs:
                self._save()
        return "done"

    def _update(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes one update; nothing in it waits for the device."""
        if self.graph is None:
            self.set_rates()
            self.apply(images, labels)
        else:
            self.graph(images, labels)
        self.step += 1
        self.seen += len(images)

    def set_rates(self) -> None:
        """Sets the learning rates of the update about to be made."""
        factor = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def apply(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Does an update's work on the device, at the rates that are set."""
        for name, figure in self._gradient(images, labels).items():
            if name not in self.sums:
                self.sums[name] = figure.new_zeros((), dtype=torch.float64)
            self.sums[name].add_(figure)
        if self.norms is not None:
            self.norms.measure(self.step)
        if getattr(self.optimizer, "needs_closure", False):
            with frozen_statistics(self.model):
                self.optimizer.step(lambda: self._gradient(images, labels)["loss"] / len(images))
        else:
            self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _gradient(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Puts the batch's gradient, clipped, where the optimizer finds it, and returns the summed figures."""
        self.optimizer.zero_grad(set_to_none=True)
        figures = self.executor.backward(images, labels, getattr(self.optimizer, "observe_micro_batch", None))
        if self.config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        return figures

    def _evaluate(self, started: float, images: int) -> dict[str, Any]:
        means = (torch.stack(list(self.sums.values())) / self.seen).tolist()  # waits for the device
        trained = time.monotonic()
        epoch = self.epoch + 1
        scores = self._scores(epoch)
        split = "val" if self.config.data.val else "test"
        group = self.optimizer.param_groups[0]
        return {
            "kind": "epoch",
            "epoch": epoch,
            "step": self.step,
            **({"batch": self.data.batch} if self.config.schedule.get("batch") else {}),
            "lr": float(group["lr"]),
            "effective_lr": float(group["lr"] * group.get("lr_factor", 1.0)),
            **{f"train_{name}": mean for name, mean in zip(self.sums, means, strict=True)},
            **{f"{split}_{name}": value for name, value in scores.items()},
            **({"layer_norms": self.norms.read(with_names=self.epoch == 0)} if self.norms is not None else {}),
            "wall_train_seconds": round(trained - started, 4),
            "wall_eval_seconds": round(time.monotonic() - trained, 4),
            "wall_images_per_second": round(images / max(trained - started, 1e-9), 1),
        }

    def _scores(self, epoch: int) -> dict[str, float]:
        """Returns the task's scores; an optimizer may keep one set of weights to train on and another to use."""
        averaged = None if self.average is None else self.average.module
        options = {"epoch": epoch, "epochs": self.config.epochs, "model": averaged}
        if not hasattr(self.optimizer, "eval"):
            return self.executor.evaluate(self.sets, **options)
        self.optimizer.eval()
        try:
            with self.executor.statistics_of(self.data.examples(STATISTICS_IMAGES)):
                return self.executor.evaluate(self.sets, **options)
        finally:
            self.optimizer.train()

    def _summary(self) -> dict[str, Any]:
        """Returns the last epoch's figures and the run's length."""
        last = json.loads(self.record.lines[-1])
        figures = metrics.summary_of(last, self.metrics)
        wall = round(self.seconds(), 2)
        executed = {"cuda_graph": self.graph.state} if self.graph else {}
        if self.executor.compiled is not None:
            executed["compile"] = self.executor.compiled.state
        return {"epochs": self.epoch, "steps": self.step, **figures, **executed, "wall_seconds": wall}

    def seconds(self) -> float:
        """Returns the seconds spent on this run so far, earlier sessions included."""
        return self.wall_seconds + time.monotonic() - self._started

    def _largest_micro_batch(self) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = min(self.config.batch, len(self.data.images))
        return self.executor.largest_micro_batch(self.data.examples(size), self.data.labels[:size])

    def _save(self) -> None:
        checkpoint.save(self.checkpoint_path, checkpoint.state_of(self))
        self._saved = time.monotonic()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
