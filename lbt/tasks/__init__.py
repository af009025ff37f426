"""What a model is trained for: a task gives the loss of a batch and the scores of a model.

A module of this package that defines a class with these members, entered in `TASKS`, adds a task:

- `views`: images of each sample that the augmentation must deliver; 1, or 2 for two augmented views.
- `reads`: "images" or "tokens" where it is for one form of samples alone (see `lbt.data.forms`); without it for both.
- `labelled`: False where of the samples' labels nothing is asked, so that a class may lack them; without it True.
- `spans_batch`: whether the loss cannot be split into terms of single samples. Micro-batches then take two passes
  (see `lbt.train.executor.Executor.backward`).
- `prepare(model)`: the module that is trained, made from a freshly built classifier.
- `forward(model, images)`: outputs [b, ...] of normalised images [b, C, H, W], of a list of views, or of tokens.
- `loss(outputs, labels)`: `{"loss": scalar, ...}`, means over the batch; all of them are recorded an epoch.
- `loss_together(outputs, count, total)`, if it has one: with `spans_batch` on several devices the same, of `count`
  images of which `outputs` are this device's; `total` gives a tensor's sum over the devices. Without it each device
  is given the outputs of all.
- `metrics`: what `loss` and `evaluate` measure, each a `lbt.metrics.Metric` with unit, direction and the places
  where it is shown; a figure that is not among them is recorded an epoch and shown nowhere.
- `evaluate(model, sets, epoch, epochs)`: the recorded scores after an epoch (counted from 1), without gradient, in the
  run's precision; `sets` is a `lbt.train.sets.Sets`. A score that is not taken in this epoch is left
  out; the last has all. On several devices each scores all images, unless the task takes `sets.own` for
  `sets.batches` and has `sets.group.total` add up what the devices found.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Imports the tasks where they are first asked for: `lbt.metrics` is read by reports, which need no torch."""
    if name not in ("TASKS", "Classification", "BarlowTwins", "MaskedLanguage", "SequenceClassification"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lbt.tasks.barlow_twins import BarlowTwins
    from lbt.tasks.classification import Classification
    from lbt.tasks.masked_language import MaskedLanguage
    from lbt.tasks.sequence_classification import SequenceClassification

    tasks = {
        "classification": Classification,
        "barlow_twins": BarlowTwins,
        "masked_language": MaskedLanguage,
        "sequence_classification": SequenceClassification,
    }
    globals().update(TASKS=tasks, **{task.__name__: task for task in tasks.values()})
    return globals()[name]
