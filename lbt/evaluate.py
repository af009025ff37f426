"""`lbt evaluate`: scores the weights that a run has kept, on its own data or on another set; records nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from rich.table import Table

from lbt import build, fit, metrics, records, runtime, sweep
from lbt.config import BEFORE, Config, typed
from lbt.data import ImageSet, augmentation, augmented_shape
from lbt.errors import UserError, did_you_mean
from lbt.records import places
from lbt.session.console import Page
from lbt.train.executor import Executor, Sets
from lbt.train.layout import lay_out
from lbt.train.precision import compute_in_float32
from lbt.weights import Weights, check_vocabulary, classifier, find, its_plugins, network_of, read

SETTINGS = ("data", "device", "precision")  # that may be others than the run's
# What a network was built for, of the settings of data: those of other files are the same.
OF_SAMPLES = ("resolution", "length", "vocabulary", "tokens", "apart", "held_out")


def show(run: str, overrides: Sequence[str], results_dir: str | Path) -> int:
    """Prints the scores of kept weights, beside those of the run's record where they stand for the same; returns 0.

    Args:
        run: the id of the run, the beginning of one, or the path of its weights.
        overrides: `data=...`, settings of the data, `device=...` and `precision=...`, as for `lbt train`.
        results_dir: where the run's results lie.

    Raises:
        UserError: no such weights, or they cannot score such data.
    """
    weights = read(find(run, results_dir))
    if weights.path.parent.name == places.weights_folder("").name:
        results_dir = weights.path.parent.parent  # of a file elsewhere, its record lies there
    config = runtime.settle(scoring_config(weights, overrides))
    with its_plugins(weights):
        build.validate(config)
    images = build.images(config)
    record = records.read_final(results_dir, str(weights.run))
    with _threads(config, record):
        scores = score(weights, config, images)
    split = "val" if config.data.val else "test"
    found = {f"{split}_{name}": value for name, value in scores.items()}
    own = _is_own(weights, config, images)
    recorded = record.epochs[-1] if record and own else {}
    console = Page()
    for line in _heading(weights, config, images):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(_table(config, found, recorded))
    verdict = _compared(found, recorded) if recorded else f"no record of this run in {results_dir} to compare with"
    if own:
        console.print(verdict, highlight=False, markup=False, soft_wrap=True)
    return 0


def _is_own(weights: Weights, config: Config, images: ImageSet) -> bool:
    """Says whether the images are those on which the run was scored."""
    same_part = config.data.test_every == weights.config["data"]["test_every"]
    return same_part and images.fingerprint == weights.metadata["data_fingerprint"]


def _heading(weights: Weights, config: Config, images: ImageSet) -> Iterator[str]:
    yield f"run {weights.run}: {config.model['name']}, {config.task['name']}, {config.precision} on {config.device}"
    own = "" if _is_own(weights, config, images) else ", not what the run was scored on"
    yield f"  {images.origin}: {len(images.test_labels):,} {images.form.noun}{own}"


def _compared(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    unequal = [
        f"{key} {recorded.get(key)} there, {value} here" for key, value in found.items() if recorded.get(key) != value
    ]
    return f"other figures than the record's: {'; '.join(unequal)}" if unequal else "the record's figures, bit for bit"


def score(weights: Weights, config: Config, images: ImageSet) -> dict[str, float]:
    """Returns the scores of weights, in the way a run's last epoch is scored.

    Args:
        weights: as a run has kept them.
        config: settled configuration.
        images: what is scored; the training images too, where a task's score needs them.

    Raises:
        UserError: the images are of other classes or another vocabulary than the weights know.
    """
    device, task = runtime.prepare(config), build.task(config)
    refuse_foreign(weights, config, images)
    network = network_of(weights)
    if classifier(config.model) & network.state_dict().keys() and images.classes != weights.classes:
        raise UserError(_other_classes(config, images.classes, weights.classes))
    lay_out(network, device, config.small_maps)
    augment = augmentation(images.form, config.data.augment)
    compute_in_float32(network, task, augmented_shape(images, augment), config.precision, images.form)
    test = images.test_images.to(device), images.test_labels.to(device)
    train = images.train_images.to(device), images.train_labels.to(device)
    sets = Sets(*train, *test, len(images.classes), augment=augment)
    executor = Executor(network, task, precision=config.precision, micro_batch=None, form=images.form)
    return executor.evaluate(sets, epoch=config.length, epochs=config.length)


def refuse_foreign(weights: Weights, config: Config, images: ImageSet) -> None:
    """Raises a `UserError` where the weights' network is for other samples, or tokens of another vocabulary."""
    fit.check_form(config, build.task(config), images.form)
    check_vocabulary(config, images.form.told(images.train_images).get("vocabulary"), weights)


def _other_classes(config: Config, these: Sequence[str], known: Sequence[str]) -> str:
    place = next((place for place, pair in enumerate(zip(these, known, strict=False)) if len(set(pair)) == 2), None)
    if place is None:
        return f"data={config.data.name}: has {len(these)} classes, these weights know {len(known)}"
    return f"data={config.data.name}: its class {place} is {these[place]}, to these weights {known[place]}"


def scoring_config(weights: Weights, overrides: Sequence[str]) -> Config:
    """Returns the configuration of a run's scoring: its own, but for what the overrides say.

    Data of another kind (`data=...`) keep the run's place, augmentation and, where they have these settings, what its
    network was built for: resolution, length, vocabulary.
    """
    raw = {**BEFORE, **weights.config}
    raw.pop("peak_lr", None)
    raw |= {"results_dir": "results", "sweep": {}, "lr_rank": None, "init_from": None, "study": None}
    raw["data"] |= raw["data"].pop("options")
    parsed = zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True)
    for word, override in sorted(parsed, key=lambda one: one[1].key_or_group != "data"):
        key, value = override.key_or_group, override.value()
        group, _, name = key.partition(".")
        if group not in SETTINGS:
            raise UserError(f"{word}: not a setting of scoring{did_you_mean(group, SETTINGS)}")
        if key == "data":
            own, raw["data"] = raw["data"], OmegaConf.to_container(sweep.compose([word]).data, resolve=True)
            built_for = {name: own[name] for name in OF_SAMPLES if name in own}
            if "image_size" in weights.metadata:
                built_for["resolution"] = weights.size[0]
            raw["data"] |= {name: value for name, value in built_for.items() if name in raw["data"]}
            raw["data"] |= {"root": own.get("root"), "augment": own["augment"]}
        elif name:
            raw[group] = {**raw[group], name: value}
        else:
            raw[key] = value
    return typed(raw)


@contextmanager
def _threads(config: Config, record: records.RunRecord | None) -> Iterator[None]:
    """Has a CPU compute with as many threads as the run did at its end: sums are rounded by their number."""
    with runtime.own_threads():
        if config.device == "cpu" and record is not None:
            changes = record.end["summary"].get("threads", [])
            recorded = changes[-1][1] if changes else record.run["provenance"].get("threads")
            if isinstance(recorded, int) and 1 <= recorded <= runtime.cores():
                runtime.use_threads(recorded)
        yield


def _table(config: Config, found: Mapping[str, Any], recorded: Mapping[str, Any]) -> Table:
    declared, table = metrics.declared_by(build.task(config)), Table()
    table.add_column("metric")
    for header in ("here", *(["record"] if recorded else [])):
        table.add_column(header, justify="right")
    for key, value in found.items():
        metric = metrics.metric_of(key, declared) or metrics.Metric(key)
        cells = [value, *([recorded.get(key)] if recorded else [])]
        shown = ["" if one is None else metric.number(one) for one in cells]
        table.add_row(f"{key.replace('_', ' ')} {metric.unit}".rstrip(), *shown)
    return table
