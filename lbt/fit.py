"""Whether a configuration fits its data and model: found out before anything is written or a sweep begins.

The model is built without memory or arithmetic (torch's meta device) and given batches of the sizes that the training
will have, so that what a layer refuses is refused here: no rule of any architecture is repeated.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lbt import build, runtime, weights
from lbt.config import Config, network_of
from lbt.data import Form, ImageSet, augmentation
from lbt.errors import UserError, flat

_TELLING_NOTHING = {"seed", "experiment", "results_dir", "study", "lr_rank"}  # of whether a run fits its data


class _Pass(NamedTuple):
    """A forward pass of a training: its images, the setting they come of, and whether they are a whole batch."""

    size: int
    setting: str
    whole: bool = True


def fits(config: Config, images: ImageSet) -> None:
    """Checks a settled configuration against its data and model.

    Raises:
        UserError: a batch, micro-batch or image that the model, the task or the augmentation cannot take, or weights to
            begin from that are another model's; one line.
    """
    form = images.form
    passes = set(_passes(config, len(images.train_labels), form.noun))
    task = build.task(config)
    check_form(config, task, form)
    views = form.views(augmentation(form, config.data.augment))
    if views != task.views:
        raise UserError(
            f"task={config.task['name']} needs {task.views} view(s) of an image, "
            f"data.augment={config.data.augment} gives {views}"
        )
    shape = list(form.shape(_augmented(config.data.augment, "data.augment", images)))
    described = [config.model, config.task, len(images.classes), form.size(images.train_images), shape]
    dtype = str(form.blank(1, shape).dtype).removeprefix("torch.")
    network = _Network(json.dumps([*described, dtype], sort_keys=True))
    for size, setting, whole in sorted(passes, reverse=True):
        if why := network.refusal(size):
            if all(network.refusal(size + more) for more in (1, 2, 3)):  # the images', not their number's fault
                raise UserError(
                    f"model={network_of(config.model)}: does not take {form.noun} of {form.in_words(shape)}: {why}"
                )
            raise UserError(f"{setting}: {_count(size, form.noun)}, which this model cannot take in training: {why}")
        if size == 1 and whole and task.spans_batch:
            raise UserError(
                f"{setting}: {_count(size, form.noun)}, and {config.task['name']} compares the images of a batch"
            )
    _check_probe(config, images, network)
    _check_lengths(config, len(images.train_labels))
    if config.init_from:
        weights.told(config, _built(network.described))
        weights.check_vocabulary(config, form.told(images.train_images).get("vocabulary"))


def check_form(config: Config, task: Any, form: Form) -> None:
    """Checks that model and task are for such samples.

    Raises:
        UserError: they are for others.
    """
    for setting, name, reads in (
        ("model", network_of(config.model), build.model_reads(config.model)),
        ("task", config.task["name"], getattr(task, "reads", form.reads)),
    ):
        if reads != form.reads:
            others = f"; of these are {', '.join(build.models_for(form.reads))}" if setting == "model" else ""
            raise UserError(f"{setting}={name}: is for {reads}, data={config.data.name} has {form.reads}{others}")


def check_all(configs: Sequence[Config], *, elsewhere: bool = False) -> None:
    """Checks every run of a sweep, those on the same data one after the other, so that these are read once.

    Args:
        configs: as composed.
        elsewhere: the runs may be executed on other machines: a device or data that this one lacks is no mistake.

    Raises:
        UserError: a run cannot be executed as it is.
    """
    seen = set()
    for config in sorted(configs, key=lambda config: repr(config.data)):
        telling = {key: value for key, value in vars(config).items() if key not in _TELLING_NOTHING}
        if repr(telling) in seen:
            continue
        seen.add(repr(telling))
        try:
            config = runtime.settle(config)
            build.validate(config)
            images = build.images(config)
        except UserError:
            if elsewhere:
                continue
            raise
        fits(config, images)


def _passes(config: Config, count: int, noun: str) -> Iterator[_Pass]:
    """Yields the forward passes of a training on so many images.

    Raises:
        UserError: a batch is larger than the training set.
    """
    batch_of = build.batches(config)
    for batch in {batch_of(epoch) for epoch in range(config.length)}:
        named = f"batch={batch}"
        if config.branch is not None and batch != config.batch:
            named = f"batch={config.batch}, branch.factor={config.branch.factor}"
        if batch > count:
            raise UserError(f"{named}: larger than the training set of {count} {noun}")
        wholes = [_Pass(batch, named)]
        if config.data.last_batch == "keep" and count % batch:
            last = f"{named}, data.last_batch=keep: the last batch of {count:,} {noun}"
            wholes.append(_Pass(count % batch, last))
        for whole in wholes:
            if build.takes_local_gradients(config):
                yield from _worker_passes(config, whole, noun)
                continue
            micro = config.micro_batch or whole.size
            if micro < whole.size:
                yield _Pass(micro, f"micro_batch={micro}", whole=False)
                if whole.size % micro:
                    left = f"micro_batch={micro}: the last micro-batch of {whole.size:,} {noun}"
                    yield _Pass(whole.size % micro, left, whole=False)
            else:
                yield whole


def _worker_passes(config: Config, whole: _Pass, noun: str) -> Iterator[_Pass]:
    workers = config.workers or 1
    if whole.size < workers and whole.size == config.batch:
        raise UserError(f"workers={workers}: a batch of {_count(whole.size, noun)} has none for some of them")
    of = "" if workers == 1 else f", workers={workers}"
    for size in {whole.size // workers, -(-whole.size // workers)} - {0}:
        micro = min(config.micro_batch or size, size)
        alone = workers == 1 and micro == size
        yield _Pass(micro, whole.setting + of, whole=alone)
        if size % micro:
            yield _Pass(size % micro, f"micro_batch={micro}: the last micro-batch of a worker{of}", whole=False)


def _count(images: int, noun: str = "images") -> str:
    return f"one {noun[:-1]}" if images == 1 else f"{images:,} {noun}"


def _augmented(name: str, setting: str, images: ImageSet) -> Tensor:
    """Returns a batch of one augmented training image."""
    one, form = images.train_images[torch.tensor([0])], images.form
    try:
        return augmentation(form, name, setting)(one, torch.Generator().manual_seed(0))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{setting}={name}: does not take {form.noun} of {form.in_words(form.shape(one))}: {flat(error)}"
        ) from error


class _Network(NamedTuple):
    """A model as its task trains it.

    Attributes:
        described: JSON of model, task, number of classes, size, shape ([C, H, W]) and type of an image.
    """

    described: str

    def refusal(self, size: int, *, backbone: bool = False) -> str | None:
        """Returns why it refuses a batch of so many images in training, None where it takes it.

        Args:
            size: images.
            backbone: whether the part below the task's own layers is meant.
        """
        return _refusal(self.described, size, backbone)


@lru_cache(maxsize=256)
def _refusal(described: str, size: int, backbone: bool) -> str | None:
    settings, (shape, dtype) = json.loads(described)[1], json.loads(described)[-2:]
    network, task = _built(described), build.task_of(settings)
    samples = torch.empty(size, *shape, dtype=getattr(torch, dtype), device="meta")
    try:
        with torch.no_grad():
            if backbone or task.views > 1:  # which go through the network one after the other
                network = getattr(network, "backbone", network) if backbone else network
                network.train()(samples)
            else:
                task.forward(network.train(), samples)
    except (AssertionError, ValueError, RuntimeError) as error:
        return flat(error)
    return None


@lru_cache(maxsize=4)
def _built(described: str) -> nn.Module:
    model, task, classes, size, *_ = json.loads(described)
    return build.outline(model, task, classes, size)


def _check_probe(config: Config, images: ImageSet, network: _Network) -> None:
    """Checks the linear probe at the end of a pre-training, whose backbone may go on adapting."""
    probe = config.task.get("probe")
    if not isinstance(probe, Mapping):
        return
    for key in ("augment", "test_augment"):
        if key in probe:
            _augmented(probe[key], f"task.probe.{key}", images)
    batch = probe.get("batch")
    if probe.get("mode") != "train" or not batch:
        return
    for split, count in (("training", len(images.train_labels)), ("test", len(images.test_labels))):
        for size in {min(batch, count), count % batch} - {0}:
            if why := network.refusal(size, backbone=True):
                raise UserError(
                    f"task.probe.batch={batch}, task.probe.mode=train: a batch of {_count(size)} of the {count:,} "
                    f"{split} images, which this model cannot take: {why}"
                )


def _check_lengths(config: Config, count: int) -> None:
    """Checks schedule and optimizer at the lengths that the training will have."""
    batch_of = build.batches(config)
    keep = config.data.last_batch == "keep"
    steps = [count // batch + (keep and count % batch > 0) for batch in map(batch_of, range(config.length))]
    build.schedule(config, steps=steps)
    build.optimizer(config, [nn.Parameter(torch.zeros(2, 2))], steps=steps)
