"""The learning rates of a study's final runs, computed by the schedules that they were trained with."""

from lbt.identity import from_json
from lbt.report.reality.study import Final
from lbt.schedules import SCHEDULES


def has_rate(final: Final) -> bool:
    """Says whether a schedule's form is known here; a plug-in's is known where that is loaded."""
    return final.config["schedule"]["name"] in SCHEDULES


def rate(final: Final) -> tuple[list[int], list[float], float]:
    """Returns the updates (from 1), the schedule's learning rate at each, and the peak rate."""
    config = from_json(final.config)
    arguments = {key: value for key, value in config.schedule.items() if key not in ("name", "batch")}
    total = final.steps_per_epoch * config.epochs
    factor = SCHEDULES[config.schedule["name"]](total, steps_per_epoch=final.steps_per_epoch, **arguments)
    return list(range(1, total + 1)), [config.peak_lr * factor(step) for step in range(total)], config.peak_lr
