"""Every optimizer trains handwritten digits (8 x 8) in a short recipe, asked for what it needs by attribute alone."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import lbt.optim

# learning rate (0.1 where none is given) and further arguments of this recipe
RECIPES = {
    "adam": (0.005, {}),
    "adamw": (0.005, {}),
    "adan": (0.01, {}),
    "clars": (20.0, {}),
    "lamb": (0.02, {}),
    "larc": (0.1, {"eta": 0.02}),
    "lars": (10.0, {}),
    "jointspar_lars": (10.0, {}),
    "lion": (0.002, {}),
    "muon": (0.005, {}),
    "onebit_adam": (0.005, {"freeze_steps": 40}),
    "onebit_lamb": (0.02, {"freeze_steps": 40}),
    "schedulefree_adamw": (0.01, {}),
    "schedulefree_sgd": (1.0, {}),
    "shampoo": (0.002, {}),
    "slamb": (0.02, {"k": 0.5, "exchanged_below": 0}),
    "soap": (0.005, {}),
    "tvlars": (20.0, {"lam": 0.02, "delay_steps": 140}),
}
EPOCHS, BATCH = 20, 128


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return images[train], labels[train], images[test], labels[test]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 16, 10),
    )  # fmt: skip


def train(model, optimizer, images, labels):
    """Warm-up and cosine, two micro-batches a step; what is special about an optimizer is asked of it."""
    generator = torch.Generator().manual_seed(1)
    steps = EPOCHS * (len(labels) // BATCH)
    observe = getattr(optimizer, "observe_micro_batch", lambda share: None)
    peaks = [group["lr"] for group in optimizer.param_groups]
    norms = [module for module in model if isinstance(module, nn.BatchNorm2d)]

    def gradients():
        optimizer.zero_grad()
        total = 0.0
        for part in chosen.split(BATCH // 2):
            loss = nn.functional.cross_entropy(model(images[part]), labels[part]) * (len(part) / len(chosen))
            loss.backward()
            observe(len(part) / len(chosen))
            total += loss.detach()
        return total

    def again():
        for norm in norms:  # their statistics are updated once a step
            norm.momentum = 0.0
        loss = gradients()
        for norm in norms:
            norm.momentum = 0.1
        return loss

    model.train()
    getattr(optimizer, "train", lambda: None)()
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min((step + 1) / 10, (1 + math.cos(math.pi * step / steps)) / 2)
        if step % (len(labels) // BATCH) == 0:
            order = torch.randperm(len(labels), generator=generator)
        chosen = order[: len(order) // BATCH * BATCH].split(BATCH)[step % (len(labels) // BATCH)]
        gradients()
        optimizer.step(*[again] * getattr(optimizer, "needs_closure", False))


@torch.no_grad()
def accuracy(model, optimizer, digits):
    getattr(optimizer, "eval", lambda: None)()
    if hasattr(optimizer, "eval"):  # the average's own batch-norm statistics
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        model(digits[0])
    model.eval()
    return float((model(digits[2]).argmax(1) == digits[3]).float().mean())


@pytest.mark.parametrize("name", lbt.optim.names())
def test_trains_digits(name, digits):
    lr, options = RECIPES.get(name, (0.1, {}))
    model = network()
    try:
        optimizer = lbt.optim.get(name)(model.parameters(), lr=lr, **options)
    except ValueError as error:
        if "lbt[more]" in str(error):
            pytest.skip(str(error))
        raise
    train(model, optimizer, *digits[:2])
    reached = accuracy(model, optimizer, digits)
    assert reached > 0.95, f"{name} reached {reached:.1%}"
