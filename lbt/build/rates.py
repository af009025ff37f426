"""Batch sizes and rates of a training, also where it is a branch of another one."""

from collections.abc import Callable, Sequence

from lbt.build.settings import construct, named
from lbt.config import Config, scaling_factor
from lbt.errors import UserError
from lbt.schedules import SCHEDULES


def batches(config: Config) -> Callable[[int], int]:
    """Returns the batch size as a function of the epoch (0-based): `batch`, or what `schedule.batch` has it grow to.

    `schedule.batch` maps epochs completed to the batch size from then on (Smith et al. 2018, arXiv 1711.00489). A
    branch's batch is another one from the branching point on.

    Raises:
        UserError: an epoch outside of the training, or something else than a batch size.
    """
    if (branch := config.branch) is not None:
        return lambda epoch: config.batch * (branch.factor if epoch >= branch.at else 1)
    grown = config.schedule.get("batch") or {}
    if not isinstance(grown, dict):
        raise UserError(
            f"schedule.batch={grown}: expected epochs and batch sizes, '{{30:2048,60:8192}}' in quotes, or null"
        )
    for epoch, batch in grown.items():
        if type(epoch) is not int or not 1 <= epoch < config.epochs or type(batch) is not int or batch < 1:
            raise UserError(
                f"schedule.batch={{{epoch}: {batch}}}: expected an epoch of 1 to {config.epochs - 1} and a batch size"
            )
    return lambda epoch: next((grown[known] for known in sorted(grown, reverse=True) if known <= epoch), config.batch)


def of_training(config: Config, steps: Sequence[int]) -> Sequence[int]:
    """Returns the updates of each epoch of the whole training, also where the run is a branch of it."""
    return steps if config.branch is None else [steps[0]] * config.epochs


def _of_branch(config: Config, factor: Callable[[int], float], steps: Sequence[int]) -> Callable[[int], float]:
    """Returns a trunk's schedule as a branch follows it: at as many images, and scaled for the batch.

    An update of a branch has the images of several of the trunk's, and the rate of their first one.
    """
    branch = config.branch
    before = sum(steps[: branch.at])
    rule = branch.lr_scaling or config.lr_scaling
    scale = scaling_factor(rule, config.batch * branch.factor) / scaling_factor(rule, config.batch)

    def of_step(step: int) -> float:
        if step < before:
            return factor(step)
        epoch, update = divmod(step - before, steps[branch.at])
        return scale * factor(before + epoch * steps[0] + update * branch.factor)

    return of_step


def in_first_epochs(epochs: float, steps: Sequence[int]) -> float:
    """Returns how many epochs as long as the first one have the updates of the first `epochs`."""
    if len(set(steps)) == 1:
        return epochs
    whole = min(int(epochs), len(steps) - 1)
    return (sum(steps[:whole]) + (epochs - whole) * steps[whole]) / steps[0]


def schedule(config: Config, *, steps: Sequence[int]) -> Callable[[int], float]:
    """Returns the factor on the peak learning rate as a function of the step (0-based).

    Args:
        config: of the run.
        steps: updates of each epoch: fewer where the batch has grown, and what is said in epochs stays in epochs.
    """
    settings = {key: value for key, value in config.schedule.items() if key != "batch"}
    builder, arguments = named("schedule", settings, SCHEDULES)
    own, steps = steps, of_training(config, steps)
    for key, value in arguments.items():
        if key == "milestones":
            arguments[key] = tuple(in_first_epochs(epoch, steps) for epoch in value)
        elif (key == "warmup" or key.endswith("_epochs")) and value is not None:
            arguments[key] = in_first_epochs(value, steps)
    factor = construct("schedule", builder, sum(steps), steps_per_epoch=steps[0], **arguments)
    return factor if config.branch is None else _of_branch(config, factor, own)
