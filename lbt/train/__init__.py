"""The training loop, top to bottom: update, evaluate, record, checkpoint."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from operator import mul
from typing import Any

import torch

from lbt import build, metrics, plugins, records, runtime, weights
from lbt.config import Config
from lbt.data import ImageSet, feed
from lbt.devices.group import ALONE, Group
from lbt.errors import UserError, said
from lbt.records import places
from lbt.session import mirrors
from lbt.session.console import Reporter
from lbt.session.interrupt import Interrupt
from lbt.session.outcome import Outcome
from lbt.train import beginning, checkpoint, reuse
from lbt.train.executor import Sets
from lbt.train.graph import GraphedUpdate
from lbt.train.memory import is_out_of_memory, keep_freed
from lbt.train.precision import compute_in_float32
from lbt.train.progress import Progress
from lbt.train.random import Random
from lbt.train.regions import Regions
from lbt.train.threads import Threads
from lbt.train.trunk import Trunk
from lbt.train.update import Update

CHECKPOINT_SECONDS = 20.0  # an epoch that ends later than this after the last checkpoint writes one
LONGEST_SECONDS = 45.0  # within an epoch one is written after this time


class Training:
    """One run: its data, its updates, how far they have come, and the record of it.

    Args:
        config: settled configuration.
        images: its data, in host memory.
        name: the run's id.
        regions: is told of the parts; None: nobody is.
        group: the devices it runs on.

    Raises:
        UserError: the configuration does not fit the data or the model.
    """

    def __init__(
        self, config: Config, images: ImageSet, name: str, regions: Regions | None = None, group: Group = ALONE
    ):
        self.config, self.images, self.name, self.regions = config, images, name, regions or Regions()
        self.group = group
        self.device = runtime.prepare(config)
        if self.device.type == "cpu":
            keep_freed()
        self.path = beginning.path_of(config, name)
        self.checkpoint_path = places.checkpoint_of(config.results_dir, name)
        train_images, train_labels, *self._test = beginning.placed(config, images, self.device, group.size)
        self.data = feed(
            train_images,
            train_labels,
            batch=config.batch,
            last_batch=config.data.last_batch,
            augment=config.data.augment,
            stratified=config.data.stratified,
            seed=config.seed,
            rows=(lambda count: self.update.executor.rows(count)) if group.size > 1 else None,
            form=images.form,
            around=partial(self.regions.around, "augmentation"),
        )
        task = build.task(config)
        self.metrics = metrics.declared_by(task)
        batches = build.batches(config)
        self.batch_of = [batches(epoch) for epoch in range(config.length)]
        self.steps_of = [self.data.steps(batch) for batch in self.batch_of]  # updates of each epoch
        self.progress = Progress()
        self.update = Update.of(
            config, task, self.data, len(images.classes), self.steps_of, self.progress, self.regions, group
        )
        shape = images.form.shape(self.data.examples(1))
        self.float32_layers = compute_in_float32(self.update.model, task, shape, config.precision, images.form)
        self.graph: GraphedUpdate | None = None
        if config.cuda_graph:
            self.graph = GraphedUpdate(self.update, self.data, reuse.kind(config, images.fingerprint, self.update))
        images_trained_on = sum(map(mul, self.batch_of, self.steps_of))
        self.threads = Threads(config, self.update, self.data, self.progress, images_trained_on)
        self.trunk = Trunk(config, images) if config.branch else None
        self.record: records.RecordWriter | records.UnwrittenRecord | None = None
        self._shared = 0  # epochs of the trunk that another branch has trained
        self.changed: list[str] = []  # plug-ins that are not what they were when the run began
        self.resumed: list[str] = []  # what else is not, or that the checkpoint was no good

    @property
    def model(self) -> torch.nn.Module:
        """The model that is trained."""
        return self.update.model

    @property
    def sets(self) -> Sets:
        """What the model is scored on."""
        train, count = (self.data.images, self.data.labels), len(self.images.classes)
        return Sets(*train, *self._test, count, augment=self.data.augment)

    def execute(self, interrupt: Interrupt, reporter: Reporter) -> Outcome:
        """Trains to the end, to divergence, out of memory, or until interrupted, and records it."""
        error = None
        with closing(mirrors.opened(self.config, self.name)) as mirror, closing(reporter):
            self.begin()
            reporter.start(self.config, self.name, self.images, self.steps_of, self.progress.step)
            for text in self._told():
                reporter.say(text)
            extra: dict[str, Any] = {}
            try:
                with interrupt:
                    status = self.go_on(self.config.length, interrupt, reporter, mirror)
            except Exception as caught:
                if self.group.size > 1:
                    raise  # no other process knows of it: they end, and the run goes on from its checkpoint
                if is_out_of_memory(caught):
                    status = "oom"
                else:
                    status, extra, error = "failed", {"error": _one_line(caught)}, caught
            if status == "oom":  # outside the handler, so that the failed pass's memory is free
                extra = {"largest_micro_batch": self._largest_micro_batch()}
            summary = {**self._summary(), **extra}
            if status == "done" and self.config.keep:  # before the record's end: a run killed in between goes on
                self._keep(reporter)
            self.record.end(status, summary)
            if status in records.FINAL and self.group.rank == 0:
                self.checkpoint_path.unlink(missing_ok=True)
            outcome = Outcome(self.name, status, self.config, self.path, summary)
            mirror.end(status, summary)
            reporter.end(outcome)
        if error is not None and not isinstance(error, UserError | OSError):  # the console has said what can be mended
            traceback.print_exception(error)
        return outcome

    def _told(self) -> Iterator[str]:
        """Yields what the console says of a run that has begun, a line each."""
        if self.float32_layers:
            yield f"float32 where a CPU's bf16 is wrong: {', '.join(self.float32_layers)}"
        if self.config.init_from:
            yield weights.told(self.config, self.model)
        if self.trunk:
            shared = f"; {self._shared} of these epochs have been trained before" if self._shared else ""
            yield f"branches off from run {self.trunk.name} after epoch {self.trunk.at}{shared}"
        yield from self.resumed
        yield from (f"goes on, though since its beginning {text}" for text in self.changed)
        yield from self.threads.said
        if self.group.size > 1:
            yield f"on {self.group.size} devices, each with {torch.get_num_threads()} thread(s) of the host"

    def begin(self) -> None:
        """Takes up the checkpoint, if there is one, and opens the record with the lines that belong to it."""
        lines = checkpoint.restore(self.checkpoint_path, self.device, self._parts(), self.group)
        if lines is None:
            if self.group.rank == 0 and self.checkpoint_path.exists():
                self.resumed.append(f"{self.checkpoint_path}: cannot be read; the run starts again")
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            made_of = {"steps_per_epoch": self.data.steps_per_epoch, "parameters": parameters}
            if self.config.precision == "bf16" and self.device.type == "cpu":  # a record without it is suspect
                made_of["float32_layers"] = self.float32_layers
            earlier = self._begin_with_trunk(made_of) if self.trunk else []
            if not earlier:
                made_of |= self.threads.begin()
                self.progress.start()
            if self.group.size > 1:
                made_of["devices"] = self.group.size
            lines = [beginning.line(self.config, self.name, self.images, self.device, **made_of), *earlier]
        elif f'"id": "{self.name}"' not in lines[0]:
            raise UserError(f"{self.checkpoint_path}: is another run's; without it this one starts again")
        else:
            brought = json.loads(lines[0])["provenance"].get("plugins", [])
            self.changed = plugins.changed(brought, self.config)
            lines[0], told = beginning.resumed(lines[0], self.config, self.device, self.progress.step)
            self.resumed += [f"goes on, though since its beginning {text}" for text in told]
            self.threads.go_on(lines)
        writes = self.group.rank == 0
        self.record = records.RecordWriter(self.path, lines) if writes else records.UnwrittenRecord(lines)
        self._saved = time.monotonic()

    def _begin_with_trunk(self, made_of: dict[str, Any]) -> list[str]:
        """Takes up what another branch has trained of the trunk, if there is that; returns its epochs' lines.

        Args:
            made_of: is given what the branch departs from, for the provenance.
        """
        step = sum(self.steps_of[: self.trunk.at])
        made_of["branched_from"] = {"run": self.trunk.name, "epoch": self.trunk.at, "step": step}
        found = self.trunk.restore(self.device, self._parts(), self.group)
        if found is None:
            return []
        lines, made_by = found
        made_of["branched_from"]["shared"] = made_by
        self._shared = self.progress.epoch
        self.threads.go_on(lines)
        return lines[1:]

    def go_on(self, epochs: int, interrupt: Interrupt, reporter: Reporter, mirror: mirrors.Mirror) -> str:
        """Trains, once begun, until so many epochs are complete; returns the status that the run then has."""
        progress, regions = self.progress, self.regions
        while progress.epoch < epochs:
            started, seen_before, looked = time.monotonic(), progress.seen, 0.0
            self.data.batch = self.update.executor.batch = self.batch_of[progress.epoch]
            if progress.step == 0:
                looked = self._look()
            self.threads.mark()
            for images, labels in regions.each("data", self.data.batches()):
                self._update(images, labels)
                looked += self._look()
                trained = time.monotonic() - started - looked
                reporter.step(progress.epoch + 1, progress.step, progress.seen - seen_before, trained)
                if self.group.asked(interrupt):
                    self._save(reporter)
                    return "interrupted"
                changed = self.threads.after(len(images))
                if changed:
                    reporter.say(changed)
                if changed or self._due(LONGEST_SECONDS):
                    self._save(reporter)
            with regions.region("evaluation"):
                line = self._evaluate(started, progress.seen - seen_before, looked)
            progress.next_epoch()
            with regions.region("recording"):
                self.record.append(line)
            mirror.epoch(line)
            reporter.epoch(line)
            ends = partial(metrics.diverged, line, self.metrics, last=progress.epoch == epochs)
            if self.group.first(ends):
                return "diverged"
            if self.trunk and progress.epoch == self.trunk.at:
                self.update.consolidate()
                if self.group.rank == 0:
                    self.trunk.keep(self.device, self.record.lines, self._parts())
            if self._due(CHECKPOINT_SECONDS) and progress.epoch < epochs:
                self._save(reporter)
        return "done"

    def _update(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Makes one update; nothing in it waits for the device."""
        (self.graph or self.update)(images, labels)
        self.progress.count(len(labels))

    def _look(self) -> float:
        """Has probes look at the weights between two updates; returns the seconds, which are none of the training."""
        if not self.update.looks:
            return 0.0
        ended = self.progress.step == sum(self.steps_of[: self.progress.epoch + 1])
        with self.regions.region("evaluation"):
            spent = self.update.look(ended=ended)
        self.threads.leave_out(spent)
        return spent

    def _gradient(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Puts the batch's gradient where the optimizer finds it, and returns the summed figures."""
        return self.update.gradient(images, labels)

    def _evaluate(self, started: float, images: int, looked: float = 0.0) -> dict[str, Any]:
        """Returns the epoch's line, `images` of it having been seen since `started`, in `looked` seconds of it none."""
        means = self.progress.means()  # waits for the device
        trained = time.monotonic()
        training = trained - started - looked
        epoch = self.progress.epoch + 1
        scores = self.update.scores(self.sets, self.data, epoch=epoch, epochs=self.config.length)
        split = "val" if self.config.data.val else "test"
        lr, effective = self.update.rates()
        return {
            "kind": "epoch",
            "epoch": epoch,
            "step": self.progress.step,
            **({"batch": self.data.batch} if self.config.branch or self.config.schedule.get("batch") else {}),
            "lr": lr,
            "effective_lr": effective,
            **{f"train_{name}": mean for name, mean in means.items()},
            **{f"{split}_{name}": value for name, value in scores.items()},
            **({"bytes_sent": self.progress.sent} if self.update.executor.workers else {}),
            **self.update.readings(),
            "wall_train_seconds": round(training, 4),
            "wall_eval_seconds": round(time.monotonic() - trained, 4),
            "wall_images_per_second": round(images / max(training, 1e-9), 1),
            **({"wall_probe_seconds": round(looked, 4)} if looked else {}),
            **self.threads.now(),
        }

    def _summary(self) -> dict[str, Any]:
        """Returns the last epoch's figures and the run's length."""
        last = json.loads(self.record.lines[-1])
        figures = metrics.summary_of(last, self.metrics)
        wall = round(self.progress.seconds(), 2)
        executed = {"cuda_graph": self.graph.state} if self.graph else {}
        if self.update.executor.compiled is not None:
            executed["compile"] = self.update.executor.compiled.state
        if self.changed:
            executed["plugins_changed"] = self.changed
        if self.update.executor.workers:  # by a worker, in all epochs
            executed["total_bytes_sent"] = sum(json.loads(line).get("bytes_sent", 0) for line in self.record.lines)
        length = {"epochs": self.progress.epoch, "steps": self.progress.step}
        return {**length, **figures, **executed, **self.threads.history(), "wall_seconds": wall}

    def _keep(self, reporter: Reporter) -> None:
        """Writes the weights that were scored; the run is done, whatever hinders that."""
        path = places.weights_of(self.config.results_dir, self.name)
        try:
            with self.update.scored(self.data) as model:  # what is scored, all devices make together
                if self.group.rank == 0:
                    weights.keep(path, model, json.loads(self.record.lines[0]), self.images.classes)
            reporter.say(f"weights {path}")
        except Exception as error:  # a full disk, no memory
            reporter.say(f"keep=weights: the weights were not kept: {path}: {said(error)}")

    def _largest_micro_batch(self) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = min(self.config.batch, len(self.data.images))
        try:
            return self.update.executor.largest_micro_batch(self.data.examples(size), self.data.labels[:size])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return 0  # there is no memory for the images

    def _parts(self) -> dict[str, checkpoint.Stateful]:
        random = Random(self.device)
        return {"update": self.update, "progress": self.progress, "data": self.data, "random": random}

    def _due(self, seconds: float) -> bool:
        """Says whether the last checkpoint is so old; all devices agree, where they have to write it together."""
        over = time.monotonic() - self._saved > seconds
        return self.group.first(lambda: over) if self.update.executor.workers else over

    def _save(self, reporter: Reporter) -> None:
        """Writes the checkpoint; a full disk costs that alone, and the training goes on."""
        with self.regions.region("recording"):
            self.update.consolidate()
            if self.group.rank == 0:  # all of them have the same state
                try:
                    checkpoint.save(self.checkpoint_path, self.device, self.record.lines, self._parts())
                except OSError as error:
                    reporter.say(f"no checkpoint: {self.checkpoint_path}: {said(error)}")
        self._saved = time.monotonic()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
