"""One update: clipping where squares overflow, and the timer's seam."""

import pytest
import torch
from support import training

from lbt.profile import Clock
from lbt.train.regions import REGIONS
from lbt.train.update import clip


def weights(*gradients):
    held = []
    for gradient in gradients:
        held.append(torch.nn.Parameter(torch.zeros_like(gradient)))
        held[-1].grad = gradient.clone()
    return held


def exact_norm(parameters):
    return torch.cat([parameter.grad.double().flatten() for parameter in parameters]).norm().item()


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e15])
def test_clipping_is_torchs_to_the_last_bit_where_nothing_overflows(size):
    gradients = [size * torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((7, 5), (9,))]
    mine, theirs = weights(*gradients), weights(*gradients)
    clip(mine, 0.25)
    torch.nn.utils.clip_grad_norm_(theirs, 0.25)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("size", [1e20, 1e30, 3e37])
def test_finite_gradients_whose_squares_overflow_keep_their_direction(size):
    gradients = [size * torch.ones(30, 10), -size * torch.ones(5)]
    theirs, mine = weights(*gradients), weights(*gradients)
    torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    assert exact_norm(theirs) == 0.0  # what happens without a float64 norm: the training stands still
    clip(mine, 2.0)
    # The entries of 3e37 have a norm beyond float32's largest number, which then stands for it.
    assert 2.0 * (1 - 1e-5) <= exact_norm(mine) <= (2.0 if size < 1e37 else 4.0) * (1 + 1e-5)
    assert mine[0].grad[0, 0] > 0 and torch.equal(mine[0].grad[0, :5], -mine[1].grad)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_does_not_become_so(value):
    mine = weights(torch.tensor([1.0, value]), torch.ones(3))
    clip(mine, 1.0)
    assert not exact_norm(mine) < float("inf")


def test_a_layer_without_gradient_is_left_alone():
    held = [*weights(torch.full((4,), 3.0)), torch.nn.Parameter(torch.zeros(2))]
    clip(held, 1.0)
    assert held[1].grad is None and exact_norm(held[:1]) == pytest.approx(1.0, rel=1e-5)
    clip(held[1:], 1.0)


def test_a_clipped_run_with_such_gradients_goes_on(tmp_path):
    """Weights of 1e25 behind the ReLU: the loss is finite, the squares of its gradient are not."""
    made = training(tmp_path, "grad_clip=1", "optimizer=sgd", "lr=1", "schedule=constant", "optimizer.weight_decay=0")
    with torch.no_grad():
        made.model.fc.weight.mul_(1e25)
    images, labels = next(made.data.batches())
    before = made.model[0].weight.detach().clone()
    made._update(images, labels)
    assert made.progress.sums["loss"].isfinite()
    assert 0 < (made.model[0].weight - before).norm() < float("inf")


def test_a_timer_changes_no_number(tmp_path):
    clock = Clock(torch.device("cpu"))
    plain, timed = training(tmp_path), training(tmp_path, regions=clock)
    with clock.running():
        for made in (plain, timed):
            for images, labels in made.regions.each("data", made.data.batches()):
                made._update(images, labels)
    assert torch.equal(plain.model.fc.weight, timed.model.fc.weight)
    assert {name for name in REGIONS if clock.seconds()[name]} >= {"data", "augmentation", "forward", "backward"}
