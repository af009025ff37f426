"""What micro-batched batch norm and stratified order do to a gradient, against the gradients themselves."""

from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from support import figures, run_tiny, training
from torch import nn

from lbt import records
from lbt.errors import UserError
from lbt.models import MODELS
from lbt.train.probes.stratified import IMBALANCE, long_tail

BOTH = ["probes=[batch_norm,stratified]", "probe.noise_images=24", "probe.micro_batch=6", "data.augment=none"]


def look(made, name):
    probe = made.update.probes[name]
    probe.look(made.update, ended=True)
    return probe.read()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    return training(tmp_path_factory.mktemp("made"), *BOTH)


def gradient(made, images, labels):
    """The gradient of a batch by itself, batch norm by its own statistics, in float64."""
    model = made.model.double().train()
    loss = nn.functional.cross_entropy(model(images.double()), labels)
    found = torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))])
    made.model.float()
    return found


def chosen(made, found):
    indices = torch.tensor(found["subset"])
    return made.data.form.input(made.data.images[indices]), made.data.labels[indices]


def test_the_change_is_that_between_one_pass_and_micro_batches(made):
    found = look(made, "batch_norm")
    images, labels = chosen(made, found)
    whole = gradient(made, images, labels)
    parts = zip(images.split(6), labels.split(6), strict=True)
    split = torch.stack([gradient(made, *part) for part in parts]).mean(0)
    assert found["change"] == pytest.approx(((split - whole).norm() / whole.norm()).item(), rel=1e-3)
    assert found["change"] > 0.01
    assert found["cosine"] == pytest.approx(torch.cosine_similarity(split, whole, 0).item(), rel=1e-3)
    assert found["growth"] == pytest.approx((split.norm() / whole.norm()).item(), rel=1e-3)
    assert (found["images"], found["micro_batch"], len(set(found["subset"]))) == (24, 6, 24)


def test_without_batch_norm_only_rounding_is_left(monkeypatch, tmp_path):
    without = MODELS["tiny"](10)
    without[1] = nn.Identity()
    monkeypatch.setitem(MODELS, "tiny", wraps(MODELS["tiny"])(lambda num_classes, **_: without))
    assert look(training(tmp_path, *BOTH), "batch_norm")["change"] < 1e-5


def test_the_random_orders_variance_is_one_of_those_of_random_orders(made):
    found = look(made, "stratified")
    assert found["ratio"] == pytest.approx(found["stratified"] / found["random"], rel=1e-4)
    images, labels = chosen(made, found)
    assert len(labels) == 48 and len(set(found["subset"][:24])) == 24
    assert torch.bincount(labels[24:], minlength=10).argmax() == 0

    def trace(order):
        parts = torch.stack([gradient(made, images[part], labels[part]) for part in order.split(6)])
        return 6 * parts.var(0).sum().item()

    some = [trace(torch.randperm(24)) for _ in range(40)]
    assert min(some) < found["random"] < max(some)


class Layered(nn.Module):
    """Logits that do not depend on the image: a gradient is its label's, and all variance is between the classes."""

    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(1, num_classes)

    def forward(self, images):
        return self.fc(torch.ones(len(images), 1))


def test_where_all_variance_is_between_classes_stratified_batches_have_none(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "tiny", wraps(MODELS["tiny"])(lambda num_classes, **_: Layered(num_classes)))
    small = ["data.size=400", "probe.noise_images=400", "probe.micro_batch=50"]
    found = look(training(tmp_path, *BOTH, *small), "stratified")
    assert 0.5 < found["random"] < 2.5 and found["ratio"] < 0.2  # a batch holds whole images of a class: 4, 5 or 6
    assert found["imbalanced"]["ratio"] < 0.5


def test_a_long_tail_falls_from_class_to_class():
    labels = np.repeat(np.arange(10), 500)
    counts = np.bincount(labels[long_tail(labels, 1000, np.random.RandomState(0))])
    assert counts.sum() == 1000 and (np.diff(counts) <= 0).all()
    assert counts[0] / counts[-1] == pytest.approx(IMBALANCE, rel=0.35)  # whole images: 3.9 are 3
    assert len(long_tail(np.arange(200) % 100, 16, np.random.RandomState(0))) == 16


def test_they_change_nothing_of_the_training(tmp_path):
    plain, probed = run_tiny(tmp_path / "plain"), run_tiny(tmp_path / "probed", *BOTH[:3], "probe_every=2")
    assert probed.id == plain.id
    seen = [{"batch_norm", "stratified"} & line.keys() for line in records.read(probed.path).epochs]
    assert [len(names) for names in seen] == [2, 2, 0, 2]
    lines = [{key: one for key, one in line.items() if key not in BOTH[0]} for line in figures(probed.path)]
    assert lines == figures(plain.path)


def test_each_look_of_each_run_has_orders_of_its_own(tmp_path):
    torch.manual_seed(0)
    made = training(tmp_path, *BOTH)
    first, again = look(made, "stratified"), look(made, "stratified")
    assert (first["random"], first["stratified"]) == (again["random"], again["stratified"])
    made.update.progress.step = 1
    later = look(made, "stratified")
    assert later["random"] != first["random"] and later["stratified"] != first["stratified"]
    made.update.progress.step, made.update.probes["stratified"].config = 0, replace(made.config, seed=5)
    other = look(made, "stratified")
    assert other["random"] != first["random"] and other["stratified"] != first["stratified"]


def test_a_set_of_one_micro_batch_is_no_zero_change(tmp_path):
    found = look(training(tmp_path, *BOTH, "probe.micro_batch=12", "data.size=10", "batch=8"), "batch_norm")
    assert found["error"] == "ValueError: the set has 10 images, one micro-batch: nothing to compare"


def test_one_micro_batch_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="batch_norm compares micro-batches and needs two"):
        training(tmp_path, "probes=[batch_norm]", "probe.noise_images=79", "probe.micro_batch=40")
    with pytest.raises(UserError, match="stratified compares micro-batches and needs two, 80 images"):
        training(tmp_path, "probes=[stratified]", "probe.noise_images=79", "probe.micro_batch=40")
