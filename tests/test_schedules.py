"""Schedules against their closed forms, torch's own schedulers, and what holds for any of them."""

import inspect
import math
from itertools import pairwise
from typing import get_type_hints

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, PolynomialLR

from lbt.schedules import SCHEDULES, bert_polynomial, constant, warmup_cosine, warmup_polynomial, warmup_step

SPE = 7  # steps per epoch


def factors(schedule, total):
    return [schedule(step) for step in range(total)]


def torch_lrs(scheduler_class, steps, **options):
    """Rates of the `steps` updates made under one of torch's schedulers with peak 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_class(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def paper_cosine(t, total, warmup, power, end):
    """TVLARS, equation (4), for target 1 and t = 1 ... T."""
    if t <= warmup:
        return (t / warmup) ** power
    q = (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2
    return q + end * (1 - q)


def paper_polynomial(s, total, warmup, power, decay_power, end, extra):
    """The reality check's form for base 1 and s = 1 ... S; it has extra = 1, this project 0."""
    if s <= warmup:
        return (s / warmup) ** power
    length = total - warmup + extra
    return end + (1 - end) * (1 - min(s - warmup, length) / length) ** decay_power


@pytest.mark.parametrize("warmup", [0, 1, 2.5, 20])
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("end", [0.0, 0.02])
def test_closed_forms(warmup, power, end):
    total, steps = 30 * SPE, round(warmup * SPE)
    cosine = warmup_cosine(total, steps_per_epoch=SPE, warmup=warmup, warmup_power=power, end=end)
    assert factors(cosine, total) == pytest.approx(
        [paper_cosine(t, total, steps, power, end) for t in range(1, total + 1)], rel=1e-13, abs=1e-15
    )
    for decay_power in (1.0, 2.0, 0.5):
        polynomial = warmup_polynomial(
            total, steps_per_epoch=SPE, warmup=warmup, warmup_power=power, decay_power=decay_power, end=end
        )
        expected = [paper_polynomial(s, total, steps, power, decay_power, end, extra=0) for s in range(1, total + 1)]
        assert factors(polynomial, total) == pytest.approx(expected, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("decay_power", [1.0, 2.0])
def test_distance_from_the_published_polynomial_is_the_documented_one(decay_power):
    total, warmup, end = 2512, 706, 1e-4
    ours = factors(warmup_polynomial(total, steps_per_epoch=1, warmup=warmup, decay_power=decay_power, end=end), total)
    published = [paper_polynomial(s, total, warmup, 1, decay_power, end, extra=1) for s in range(1, total + 1)]
    assert ours[:warmup] == published[:warmup]
    gaps = [abs(a - b) for a, b in zip(ours, published, strict=True)]
    assert 0 < max(gaps) <= (1 - end) * decay_power / (total - warmup + 1)


def test_warmup_equals_torch_linear():
    total, warmup = 12 * SPE, 5
    steps = warmup * SPE
    expected = torch_lrs(LinearLR, steps, start_factor=1 / steps, end_factor=1.0, total_iters=steps - 1)
    for build in (warmup_cosine, warmup_polynomial):
        assert factors(build(total, steps_per_epoch=SPE, warmup=warmup), steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [1, 4])
def test_cosine_decay_equals_torch(warmup, end):
    total = 12 * SPE
    decay = total - warmup * SPE
    expected = torch_lrs(CosineAnnealingLR, decay + 1, T_max=decay, eta_min=end)  # its step 0 is the peak, our t = W
    ours = factors(warmup_cosine(total, steps_per_epoch=SPE, warmup=warmup, end=end), total)
    assert ours[warmup * SPE - 1 :] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("decay_power", [1.0, 2.0])
@pytest.mark.parametrize("warmup", [1, 4])
def test_polynomial_decay_equals_torch(warmup, decay_power):
    total = 12 * SPE
    decay = total - warmup * SPE
    expected = torch_lrs(PolynomialLR, decay + 1, total_iters=decay, power=decay_power)
    ours = factors(warmup_polynomial(total, steps_per_epoch=SPE, warmup=warmup, decay_power=decay_power), total)
    assert ours[warmup * SPE - 1 :] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
@pytest.mark.parametrize("end", [0.0, 0.001, 1.0])
@pytest.mark.parametrize("warmup", [0, 1 / SPE, 3, 10 - 1 / SPE])
def test_endpoints_and_shape(build, end, warmup):
    total, steps = 10 * SPE, round(warmup * SPE)
    schedule = build(total, steps_per_epoch=SPE, warmup=warmup, warmup_power=2.0, end=end)
    ours = factors(schedule, total)
    assert ours[-1] == end
    assert schedule(total) == schedule(total + 1000) == end  # held after the last
    assert all(0 < factor <= 1 for factor in ours[:-1])
    rise, fall = ours[:steps], ours[max(steps - 1, 0) :]
    assert all(a < b for a, b in pairwise(rise))
    assert all(a > b or end == 1 for a, b in pairwise(fall))
    if steps:
        assert ours[0] == pytest.approx(steps**-2)  # never a zero rate
        assert ours[steps - 1] == 1.0


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
def test_continuous_at_the_joint(build):
    """Finer steps of one training shrink the jumps between neighbours in proportion, at the joint as elsewhere."""
    jumps = []
    for steps_per_epoch in (100, 1000):
        total = 10 * steps_per_epoch
        ours = factors(build(total, steps_per_epoch=steps_per_epoch, warmup=3, end=0.1), total)
        jumps.append(max(abs(a - b) for a, b in pairwise(ours)))
    assert jumps[1] == pytest.approx(jumps[0] / 10, rel=0.05)


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
def test_power_two_is_the_square_of_power_one(build):
    total, warmup = 10 * SPE, 4
    linear = factors(build(total, steps_per_epoch=SPE, warmup=warmup), total)
    square = factors(build(total, steps_per_epoch=SPE, warmup=warmup, warmup_power=2.0), total)
    assert square[: warmup * SPE] == pytest.approx([factor**2 for factor in linear[: warmup * SPE]], rel=1e-13)
    assert square[warmup * SPE :] == linear[warmup * SPE :]


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
@pytest.mark.parametrize(
    ("warmup", "steps"), [(0.06, 0), (0.1, 1), (1.49, 10), (1.5, 10), (2.2, 15), (2.5, 18), (3, 21)]
)
def test_warmup_is_converted_once_and_rounded(build, warmup, steps):
    ours = factors(build(100, steps_per_epoch=7, warmup=warmup), 100)
    assert steps == round(warmup * 7)
    if steps:
        assert ours[steps - 1] == 1.0
        assert ours.index(1.0) == steps - 1
    else:
        assert 1.0 not in ours


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
def test_warmup_against_the_length_of_training(build):
    assert factors(build(20, steps_per_epoch=10, warmup=2), 20)[-1] == 1.0  # fills it exactly: ends at the peak
    with pytest.raises(
        ValueError, match=r"warmup of 200 epochs is longer than training: 2000 of 1000 steps; use at most 100"
    ):
        build(1000, steps_per_epoch=10, warmup=200)
    with pytest.raises(ValueError, match="longer than training: 21 of 20"):
        build(20, steps_per_epoch=10, warmup=2.1)


@pytest.mark.parametrize("build", [warmup_cosine, warmup_polynomial])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"warmup": -1}, "warmup must be"),
        ({"warmup": math.nan}, "warmup must be"),
        ({"warmup": math.inf}, "warmup must be"),
        ({"warmup_power": 0.0}, "warmup_power must be > 0"),
        ({"end": -0.1}, "end is a fraction"),
        ({"end": 1.5}, "end is a fraction"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
    ],
)
def test_bad_arguments(build, bad, message):
    with pytest.raises(ValueError, match=message):
        build(20, **{"steps_per_epoch": 10, "warmup": 1, **bad})


def test_more_bad_arguments():
    with pytest.raises(ValueError, match="decay_power must be > 0"):
        warmup_polynomial(20, steps_per_epoch=10, warmup=1, decay_power=-1)
    for build in SCHEDULES.values():
        with pytest.raises(ValueError, match="total_steps must be at least 1"):
            build(0, steps_per_epoch=10, **({} if build is constant else {"warmup": 0}))


def test_constant():
    assert set(factors(constant(50, steps_per_epoch=5), 60)) == {1.0}


@pytest.mark.parametrize("name", SCHEDULES)
def test_registry_is_annotated_and_pure(name):
    build = SCHEDULES[name]
    parameters = inspect.signature(build).parameters
    assert list(parameters)[:2] == ["total_steps", "steps_per_epoch"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])
    hints = get_type_hints(build)
    assert {hints[p] for p in list(parameters)[:2]} == {int}
    assert {hints[p] for p in list(parameters)[2:]} <= {int, float, float | None, tuple[float, ...]}
    schedule = build(40, steps_per_epoch=4, **({"warmup": 2.0} if "warmup" in parameters else {}))
    forward = factors(schedule, 40)
    assert [schedule(step) for step in reversed(range(40))] == forward[::-1]
    assert all(type(factor) is float for factor in forward)


def test_a_cosine_of_a_shorter_period_rises_again():
    # What the released TVLARS code makes of 1000 epochs: the period is the probe's 100, the end near 85 % of the peak.
    factor = warmup_cosine(10_000, steps_per_epoch=10, warmup=20, period_epochs=100)
    whole = warmup_cosine(1000, steps_per_epoch=10, warmup=20)
    assert [factor(step) for step in range(1000)] == pytest.approx([whole(step) for step in range(1000)], abs=1e-12)
    assert factor(999) == pytest.approx(0, abs=1e-12) and factor(1799) == pytest.approx(1)
    assert factor(9999) == pytest.approx(0.854, abs=1e-3)
    assert warmup_cosine(8, steps_per_epoch=1, warmup=0, period_epochs=0.4)(7) in (0, 1)  # shorter than an update


def test_steps_equal_torchs_multistep_after_the_warmup():
    total, milestones = 12 * SPE, (4, 7.5, 9)
    ours = factors(warmup_step(total, steps_per_epoch=SPE, warmup=2, milestones=milestones, gamma=0.2), total)
    steps = [round(epoch * SPE) for epoch in milestones]
    torchs = torch_lrs(torch.optim.lr_scheduler.MultiStepLR, total, milestones=steps, gamma=0.2)
    warm = 2 * SPE
    assert ours[warm:] == pytest.approx(torchs[warm:])
    assert ours[:warm] == pytest.approx([(t + 1) / warm for t in range(warm)])
    with pytest.raises(ValueError, match="gamma"):
        warmup_step(total, steps_per_epoch=SPE, warmup=2, gamma=2.0)


def released_rate(step, *, steps_per_epoch, epochs, warm_up):
    """The released TVLARS code's scheduler, its step counted from 0, as a share of the peak."""
    whole, warm = epochs * steps_per_epoch, warm_up * steps_per_epoch
    if step < warm:
        return step / warm
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warm) / (whole - warm)))
    return cosine + 0.001 * (1 - cosine)


@pytest.mark.parametrize("steps_per_epoch", [1, 4, 98])
def test_a_lag_of_one_update_is_the_released_codes_schedule(steps_per_epoch):
    shape = {"steps_per_epoch": steps_per_epoch, "epochs": 100, "warm_up": 20}
    mine = warmup_cosine(100 * steps_per_epoch, steps_per_epoch=steps_per_epoch, warmup=20, end=0.001, lag=1)
    theirs = [released_rate(step, **shape) for step in range(100 * steps_per_epoch)]
    assert factors(mine, 100 * steps_per_epoch) == pytest.approx(theirs, abs=1e-12)
    assert mine(0) == 0.0


def test_a_lag_without_a_warm_up_keeps_the_peak_and_a_negative_one_is_refused():
    factor = warmup_cosine(40, steps_per_epoch=4, warmup=0, lag=3)
    plain = warmup_cosine(40, steps_per_epoch=4, warmup=0)
    assert factors(factor, 40)[:3] == [1.0] * 3 and factor(20) == plain(17)
    with pytest.raises(ValueError, match="lag=-1"):
        warmup_cosine(40, steps_per_epoch=4, warmup=0, lag=-1)


def public_bert_rate(global_step, *, init_lr, train_steps, warmup_steps, power, end):
    """The public BERT code's rate, in its own order: the decay of all updates, then the warm-up in its place."""
    decayed = (init_lr - end) * (1 - min(global_step, train_steps) / train_steps) ** power + end
    is_warmup = 1.0 if global_step < warmup_steps else 0.0
    return (1 - is_warmup) * decayed + is_warmup * init_lr * global_step / max(warmup_steps, 1)


@pytest.mark.parametrize("warmup", [0, 1 / SPE, 4, 12])
@pytest.mark.parametrize(("power", "end"), [(1.0, 0.0), (2.0, 0.01)])
def test_the_public_bert_schedule_is_that_codes(warmup, power, end):
    total, steps = 12 * SPE, round(warmup * SPE)
    mine = bert_polynomial(total, steps_per_epoch=SPE, warmup=warmup, decay_power=power, end=end)
    shape = {"train_steps": total, "warmup_steps": steps, "power": power, "end": 0.006 * end}
    theirs = [public_bert_rate(step, init_lr=0.006, **shape) for step in range(total + 5)]
    assert [0.006 * mine(step) for step in range(total + 5)] == pytest.approx(theirs, rel=1e-12, abs=1e-15)
    squared = bert_polynomial(total, steps_per_epoch=SPE, warmup=warmup, warmup_power=2.0, decay_power=power, end=end)
    assert factors(squared, total) == [mine(step) ** (2 if step < steps else 1) for step in range(total)]


def test_the_public_bert_schedule_drops_where_its_warmup_ends_and_the_intended_one_does_not():
    total, warm = 7038, 2001  # of the first phase of a mixed-batch training
    public = bert_polynomial(total, steps_per_epoch=1, warmup=warm)
    intended = warmup_polynomial(total, steps_per_epoch=1, warmup=warm, decay_power=1.0)
    assert public(warm - 1) > 0.999 and public(warm) == pytest.approx(1 - warm / total)
    drops = [max(a - b for a, b in pairwise(factors(one, total))) for one in (public, intended)]
    assert drops[0] > 0.28 and drops[1] == pytest.approx(1 / (total - warm))
    assert all(public(step) <= intended(step) for step in range(total - 4))
