"""The scores of frozen features against scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from lbt.tasks.probe import LinearProbe, knn_accuracy
from lbt.train.executor import Sets


def clouds(count, seed, classes=4, width=6, spread=1.0):
    """Features around one centre a class."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + spread * torch.randn(count, width, generator=generator), labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (1000, 0.5)])
def test_knn_is_scikit_learns_with_the_same_weights(k, temperature):
    train, test = clouds(200, 1), clouds(150, 2)
    judge = KNeighborsClassifier(
        min(k, 200), weights=lambda distance: np.exp((1 - distance) / temperature), metric="cosine", algorithm="brute"
    )
    judge.fit(train[0].numpy(), train[1].numpy())
    wanted = 100 * judge.score(test[0].numpy(), test[1].numpy())
    ours = knn_accuracy(*train, *test, k=k, temperature=temperature, classes=4)
    assert ours == pytest.approx(wanted) and 30 < ours < 95


def test_knn_survives_a_small_temperature():
    assert knn_accuracy(*clouds(50, 1, spread=0.1), *clouds(50, 2, spread=0.1), temperature=1e-4, classes=4) == 100


def test_knn_compares_in_full_precision_whatever_the_run_computes_in():
    (train, train_labels), (test, test_labels) = clouds(200, 1), clouds(150, 2)
    train, test = train + 30, test + 30  # as features behind a ReLU, all of them point nearly the same way
    wanted = knn_accuracy(train, train_labels, test, test_labels, classes=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert knn_accuracy(train, train_labels, test, test_labels, classes=4) == wanted > 50


class Network(nn.Module):
    """Two channels' means as features, after a batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, images):
        return self.norm(images).mean((2, 3))


def sets():
    """Images whose class is their strongest colour, and their features in eval mode."""
    torch.manual_seed(3)
    network = Network().train()
    images = torch.randint(0, 200, (90, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(90) % 3
    images[torch.arange(90), labels] += 50
    for _ in range(30):
        network(images.float() / 255)
    network.eval()
    made = Sets(images[:60], labels[:60], images[60:], labels[60:], 3, input=lambda part: part.float() / 255)
    return network, made, *(network(made.input(part)) for part in (made.train_images, made.test_images))


def test_the_probe_finds_what_is_linearly_separable():
    network, data, train, test = sets()
    scores = LinearProbe(epochs=60, batch=20, lr=1.0).scores(network, data, train, test)
    assert scores["accuracy"] > 95 and scores["top5_accuracy"] == 100 and scores["loss"] < 0.5
    shuffled = Sets(data.train_images, data.train_labels[torch.randperm(60)], data.test_images, data.test_labels, 3)
    assert LinearProbe(epochs=60, batch=20, lr=1.0).scores(network, shuffled, train, test)["accuracy"] < 70


def test_cached_features_give_what_computing_them_anew_gives():
    network, data, train, test = sets()
    cached, anew = (LinearProbe(epochs=3, batch=16) for _ in range(2))
    anew._cached = anew._as_tested = False
    assert cached.scores(network, data, train, test) == pytest.approx(anew.scores(network, data, train, test), rel=1e-4)


def test_standardised_features_may_have_any_scale():
    network, data, train, test = sets()
    probe = LinearProbe(epochs=20, batch=20, standardise=True)
    plain, scaled = (probe.scores(network, data, factor * train + 7, factor * test + 7) for factor in (1, 1000))
    assert scaled == pytest.approx(plain, rel=1e-2) and plain["accuracy"] > 90
    assert LinearProbe(epochs=20, batch=20).scores(network, data, 1000 * train, 1000 * test)["loss"] > 10


def test_one_seed_one_result():
    network, data, train, test = sets()
    one, again, other = (
        LinearProbe(epochs=2, batch=16, seed=seed).scores(network, data, train, test) for seed in (0, 0, 1)
    )
    assert one == again and one != other


@pytest.mark.parametrize("options", [{"mode": "train"}, {"augment": "crop_flip", "test_augment": "crop_flip"}])
def test_whatever_the_probe_does_the_backbone_stays_as_it_was(options):
    network, data, train, test = sets()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = LinearProbe(epochs=2, batch=16).scores(network, data, train, test)
    augment = {"augment": "none", "test_augment": "none"} | options
    if options.get("augment"):
        data = Sets(
            nn.functional.pad(data.train_images, (2, 2, 2, 2)), data.train_labels,
            nn.functional.pad(data.test_images, (2, 2, 2, 2)), data.test_labels, 3, data.input,
        )  # fmt: skip
    assert LinearProbe(epochs=2, batch=16, **augment).scores(network, data, train, test) != plain
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert not network.training


@pytest.mark.parametrize("period", [None, 7])
def test_the_rate_is_torchs_cosine(period):
    probe, total = LinearProbe(lr=0.3, period_steps=period), 30
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    judge = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=period or total)
    for step in range(total):
        assert probe.rate(step, total) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        judge.step()
