"""Learning-rate schedules: pure functions of the step that scale the peak learning rate.

Every builder is called as `builder(total_steps, steps_per_epoch=..., **options)` and returns `factor(step)`, where
`step` is the 0-based index of the update about to be made; the learning rate of that update is `peak * factor(step)`.

Step convention, the same in all but `bert_polynomial`: the papers' `t` (or `s`) is `step + 1`, so t runs from 1 to T =
`total_steps`. Hence the first update of a warm-up of W updates has the factor (1/W)**power, never 0; update t = W is at
the peak; and the last one, t = T, has exactly the factor `end` (with `end=0` it moves nothing). A step beyond the last
has the last one's factor. A warm-up that fills the training exactly (W = T) ends at the peak and has no decay.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(total_steps: int, *, steps_per_epoch: int) -> Schedule:
    """The peak learning rate at every update.

    Args:
        total_steps: updates of the whole training.
        steps_per_epoch: updates of one epoch.

    Returns:
        step (0-based update) -> 1.0.

    Raises:
        ValueError: a count below 1.
    """
    _warmup_steps(total_steps, steps_per_epoch, 0.0)
    return lambda step: 1.0


def warmup_cosine(
    total_steps: int,
    *,
    steps_per_epoch: int,
    warmup: float,
    warmup_power: float = 1.0,
    end: float = 0.0,
    period_epochs: float | None = None,
    lag: int = 0,
) -> Schedule:
    """Power warm-up to the peak, then half a cosine down to `end`.

    (t/W)**warmup_power for t <= W, then end + (1 - end) * (1 + cos(pi * (t - W)/(T - W)))/2, with t = step + 1.

    Args:
        total_steps: T, updates of the whole training.
        steps_per_epoch: updates of one epoch.
        warmup: length of the warm-up in epochs; W = round(warmup * steps_per_epoch) updates, 0 for none.
        warmup_power: exponent of the warm-up; 1 is linear.
        end: factor of the last update, as a fraction of the peak.
        period_epochs: epochs that take the place of the training's length, T, in the cosine, which rises again after
            them (the released TVLARS code's Barlow Twins: 100 of 1000); None: the training.
        lag: updates by which every rate comes late; 1 in the released TVLARS code, whose first update has rate 0.

    Returns:
        step (0-based update) -> factor of the peak.

    Raises:
        ValueError: a count below 1, a negative warm-up or one longer than training or period, a power <= 0, `end`
            outside [0, 1] or a negative lag.

    Source: TVLARS (arXiv 2309.14053), equation (4), with lr_min = end * lr_target; that equation's warm-up has power 1.
    """
    period = total_steps
    if period_epochs is not None:
        period = max(round(_positive("period_epochs", period_epochs) * steps_per_epoch), 1)
    warmup_steps = _warmup_steps(min(total_steps, period), steps_per_epoch, warmup)
    stretch = (total_steps - warmup_steps) / max(period - warmup_steps, 1)  # periods in what follows the warm-up
    factor = _warmup_then(
        lambda progress: (1.0 + math.cos(math.pi * progress * stretch)) / 2.0,
        total_steps,
        warmup_steps,
        _positive("warmup_power", warmup_power),
        _fraction("end", end),
    )
    return _late(factor, lag, 0.0 if warmup_steps else 1.0)


def warmup_polynomial(
    total_steps: int,
    *,
    steps_per_epoch: int,
    warmup: float,
    warmup_power: float = 1.0,
    decay_power: float = 2.0,
    end: float = 0.0,
) -> Schedule:
    """Power warm-up to the peak, then polynomial decay down to `end`.

    (t/W)**warmup_power for t <= W, then end + (1 - end) * (1 - (t - W)/(T - W))**decay_power, with t = step + 1.

    The source divides by D = T - W + 1 and so would reach `end` one update after the last; here the last update is at
    `end`, as in `warmup_cosine`. For powers >= 1 the two differ by at most (1 - end) * decay_power / D of the peak.

    Args:
        total_steps: T, updates of the whole training.
        steps_per_epoch: updates of one epoch.
        warmup: length of the warm-up in epochs; W = round(warmup * steps_per_epoch) updates, 0 for none.
        warmup_power: exponent of the warm-up; 1 is linear.
        decay_power: exponent of the decay.
        end: factor of the last update, as a fraction of the peak.

    Returns:
        step (0-based update) -> factor of the peak.

    Raises:
        ValueError: a count below 1, a negative warm-up or one longer than training, a power <= 0, `end` outside [0, 1].

    Source: A Large Batch Optimizer Reality Check (arXiv 2102.06356), the schedule of both LARS and Nesterov momentum.
    """
    power = _positive("decay_power", decay_power)
    return _warmup_then(
        lambda progress: (1.0 - progress) ** power,
        total_steps,
        _warmup_steps(total_steps, steps_per_epoch, warmup),
        _positive("warmup_power", warmup_power),
        _fraction("end", end),
    )


def warmup_step(
    total_steps: int,
    *,
    steps_per_epoch: int,
    warmup: float,
    warmup_power: float = 1.0,
    milestones: tuple[float, ...] = (30, 60, 80),
    gamma: float = 0.1,
) -> Schedule:
    """Power warm-up to the peak, then a fall by `gamma` at each milestone.

    Args:
        total_steps: T, updates of the whole training.
        steps_per_epoch: updates of one epoch.
        warmup: length of the warm-up in epochs; W = round(warmup * steps_per_epoch) updates, 0 for none.
        warmup_power: exponent of the warm-up; 1 is linear.
        milestones: epochs completed at which the rate falls; one beyond the training has no effect.
        gamma: factor of each fall.

    Returns:
        step (0-based update) -> factor of the peak.

    Raises:
        ValueError: a count below 1, a negative warm-up or one longer than training, a power <= 0, gamma outside 0 to 1.

    Source: Goyal et al. 2017 (arXiv 1706.02677), section 5.1; their warm-up begins at the unscaled rate, not near 0.
    """
    falls = [round(epoch * steps_per_epoch) for epoch in milestones]
    warm, power = _warmup_steps(total_steps, steps_per_epoch, warmup), _positive("warmup_power", warmup_power)
    gamma = _fraction("gamma", gamma)

    def factor(step: int) -> float:
        rise = ((step + 1) / warm) ** power if step < warm else 1.0
        return rise * gamma ** sum(min(step, total_steps - 1) >= fall for fall in falls)

    return factor


def bert_polynomial(
    total_steps: int,
    *,
    steps_per_epoch: int,
    warmup: float,
    warmup_power: float = 1.0,
    decay_power: float = 1.0,
    end: float = 0.0,
) -> Schedule:
    """Polynomial decay counted from the first update, which the warm-up replaces while it lasts.

    (s/W)**warmup_power for s < W, then end + (1 - end) * (1 - s/T)**decay_power, with s = step: counted from 0,
    as in the source and unlike the other schedules. So the first update of a warm-up has factor 0, none is at the peak,
    the rate drops at the warm-up's end from nearly 1 to what the decay has come to by then, and the last update is one
    short of `end`.
    `warmup_polynomial` is what is meant: a decay that begins where the warm-up ends.

    Args:
        total_steps: T, updates of the whole training.
        steps_per_epoch: updates of one epoch.
        warmup: length of the warm-up in epochs; W = round(warmup * steps_per_epoch) updates, 0 for none.
        warmup_power: exponent of the warm-up; 1 in the source.
        decay_power: exponent of the decay; 1 in the source.
        end: factor that the decay comes to after T updates, as a fraction of the peak; 0 in the source.

    Returns:
        step (0-based update) -> factor of the peak.

    Raises:
        ValueError: a count below 1, a negative warm-up or one longer than training, a power <= 0, `end` outside [0, 1].

    Source: `create_optimizer` of github.com/google-research/bert, optimization.py; its drop is what Nado et al. 2021
        (arXiv 2102.06356) found in the public code.
    """
    warm, end = _warmup_steps(total_steps, steps_per_epoch, warmup), _fraction("end", end)
    rise, power = _positive("warmup_power", warmup_power), _positive("decay_power", decay_power)

    def factor(step: int) -> float:
        if step < warm:
            return (step / warm) ** rise
        return end + (1.0 - end) * (1.0 - min(step, total_steps) / total_steps) ** power

    return factor


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "bert_polynomial": bert_polynomial,
    "constant": constant,
    "warmup_cosine": warmup_cosine,
    "warmup_polynomial": warmup_polynomial,
    "warmup_step": warmup_step,
}


def _warmup_then(decay: Callable[[float], float], total: int, warmup: int, warmup_power: float, end: float) -> Schedule:
    """Joins the warm-up to `decay`, which falls from 1 at progress 0 (t = warmup) to 0 at progress 1 (t = total)."""

    def factor(step: int) -> float:
        t = min(step + 1, total)
        if t <= warmup:
            return (t / warmup) ** warmup_power
        return end + (1.0 - end) * decay((t - warmup) / (total - warmup))

    return factor


def _late(factor: Schedule, lag: int, before: float) -> Schedule:
    """Has every rate come `lag` updates late; `before` is the factor until the first one comes."""
    if lag < 0:
        raise ValueError(f"lag={lag}: expected a number of updates, 0 or more")
    return lambda step: factor(step - lag) if step >= lag else before


def _warmup_steps(total_steps: int, steps_per_epoch: int, warmup: float) -> int:
    """Converts a warm-up in epochs to updates: round(warmup * steps_per_epoch), halves to the even number."""
    for name, count in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not 0 <= warmup < math.inf:
        raise ValueError(f"warmup must be a number of epochs >= 0, got {warmup}")
    steps = round(warmup * steps_per_epoch)
    if steps > total_steps:
        raise ValueError(
            f"warmup of {warmup:g} epochs is longer than training: {steps} of {total_steps} steps; "
            f"use at most {total_steps / steps_per_epoch:g} epochs"
        )
    return steps


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be > 0, got {value}")
    return value


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction of the peak and must be in [0, 1], got {value}")
    return value
