"""Networks that draw random numbers in training: dropout and stochastic depth."""

import pytest
import torch
from support import MODELS, StopAfter, configure, figures, run_tiny, tiny, training
from torch import nn
from torchvision.ops import StochasticDepth

from lbt import records
from lbt.run import run
from lbt.train.statistics import frozen_statistics

TWINS = ["task=barlow_twins", "data.augment=barlow_twins", "task.projector=[16,16]", "task.probe.epochs=1"]


class Dropping(nn.Module):
    """The tests' small network, a residual branch of which is left out for some samples, with dropout in the end."""

    def __init__(self, num_classes, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU())
        self.branch, self.depth = nn.Conv2d(8, 8, 3, padding=1), StochasticDepth(0.5, "row")
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(8, num_classes)

    def forward(self, images):
        maps = self.stem(images)
        maps = maps + self.depth(self.branch(maps))
        return self.fc(self.dropout(maps.mean((2, 3))))


@pytest.fixture
def dropping(monkeypatch):
    tiny_settings = tiny.__kwdefaults__

    def build(num_classes, *, stem="", norm="", norm_groups=0, ghost_size=None, bn_momentum=0.1, bn_eps=1e-5,
              zero_init_residual=False, init=None):  # fmt: skip
        return Dropping(num_classes, nn.BatchNorm2d if norm != "layer" else lambda channels: nn.GroupNorm(1, channels))

    assert set(build.__kwdefaults__) == set(tiny_settings)
    monkeypatch.setitem(MODELS, "tiny", build)


@pytest.mark.parametrize("more", [[], ["micro_batch=6"], ["ema=0.9"], [*TWINS, "micro_batch=6"], ["optimizer=sam"]])
def test_an_interrupted_run_draws_on_where_it_was(dropping, tmp_path, more):
    words = ["optimizer=lars", "epochs=2", *more]
    whole = run_tiny(tmp_path / "whole", *words)
    for _ in range(2):  # in the middle of an epoch, and of the next one
        assert run_tiny(tmp_path / "parts", *words, interrupt=StopAfter(2)).status == "interrupted"
    assert figures(run_tiny(tmp_path / "parts", *words).path) == figures(whole.path)
    other = run_tiny(tmp_path / "other", *words, "seed=1")
    assert figures(other.path) != figures(whole.path)


def test_decoding_processes_draw_nothing_of_the_networks(dropping, tmp_path):
    from torchvision.utils import save_image

    for split, count in (("train", 24), ("test", 6)):
        for index in range(count):
            path = tmp_path / "images" / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index)), path)
    words = ["model.name=tiny", "batch=8", "epochs=2", "precision=fp32", "device=cpu", f"data.root={tmp_path}/images"]
    words += ["data.resolution=8", "data.augment=none"]

    def stopped(name, *more, updates=10**9):
        made = configure(*words, *more, f"results_dir={tmp_path}/{name}")
        return figures(run(made, interrupt=StopAfter(updates)).path)

    whole = stopped("whole", "data=image_stream")
    stopped("parts", "data=image_stream", updates=2)
    assert stopped("parts", "data=image_stream") == whole
    held = stopped("held", "data=image_folder")
    assert [line["train_loss"] for line in held] == [line["train_loss"] for line in whole]


def test_a_split_batch_of_twins_has_the_gradient_of_the_masks_it_drew(dropping, tmp_path):
    """Against all parts kept with their graphs at once, from the same state of the generator."""
    made = training(tmp_path, *TWINS, "micro_batch=6")
    images, labels = next(iter(made.data.batches()))
    state = torch.get_rng_state()
    with frozen_statistics(made.model):
        outputs = torch.cat([made.update.executor.forward(part) for part in images.split(6)])
    made.update.executor.task.loss(outputs, labels)["loss"].backward()
    wanted = [parameter.grad.clone() for parameter in made.model.parameters()]
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    made._gradient(images, labels)
    for parameter, gradient in zip(made.model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), after)


def test_micro_batches_average_the_gradients_of_the_masks_they_drew(dropping, tmp_path):
    made = training(tmp_path, "micro_batch=6", "model.norm=layer")
    images, labels = next(iter(made.data.batches()))
    state = torch.get_rng_state()
    made._gradient(images, labels)
    found = [parameter.grad.clone() for parameter in made.model.parameters()]
    torch.set_rng_state(state)
    logits = torch.cat([made.update.executor.forward(part) for part in images.split(6)])
    made.model.zero_grad()
    nn.functional.cross_entropy(logits, labels).backward()
    for parameter, gradient in zip(made.model.parameters(), found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_compiled_code_is_not_mixed_with_plain_passes_where_masks_must_agree(dropping, tmp_path, monkeypatch):
    made = training(tmp_path, *TWINS, "micro_batch=8")
    executor = made.update.executor
    executor.batch, executor.compiled = 16, lambda *inputs: pytest.fail("compiled code was called")
    images, labels = next(iter(made.data.batches()))
    made._gradient(images, labels)


def test_averaged_weights_keep_whole_numbers_as_they_are(monkeypatch, tmp_path):
    """A mean of whole numbers in floating point rounds down: 29 * 0.9 + 29 * 0.1 is 28."""

    class Indexed(Dropping):
        def __init__(self, num_classes):
            super().__init__(num_classes)
            self.register_buffer("index", torch.arange(1000))

    monkeypatch.setitem(MODELS, "tiny", lambda num_classes, **_: Indexed(num_classes))
    monkeypatch.setattr("lbt.build.settings.bind", lambda target, values, where: dict(values), raising=True)
    made = training(tmp_path, "ema=0.9")
    for images, labels in made.data.batches():
        made._update(images, labels)
    assert torch.equal(made.update.average.module.index, torch.arange(1000))
    moved, last = made.update.average.module.fc.weight, made.model.fc.weight
    assert not torch.equal(moved, last)


def test_two_updates_of_a_network_of_torchvision_and_what_its_record_says(tmp_path):
    words = ["data=synthetic", "data.size=16", "data.test_size=8", "batch=8", "epochs=1", "device=cpu"]
    words += ["precision=fp32", "model=torchvision", "model.arch=mobilenet_v3_small", "optimizer=lamb"]
    whole = run(configure(*words, f"results_dir={tmp_path}/whole"))
    run(configure(*words, f"results_dir={tmp_path}/parts"), interrupt=StopAfter(1))
    parts = run(configure(*words, f"results_dir={tmp_path}/parts"))
    assert (whole.status, whole.summary["steps"]) == ("done", 2) and figures(whole.path) == figures(parts.path)
    record = records.read(whole.path).run
    assert record["config"]["model"]["arch"] == "mobilenet_v3_small"
    assert record["provenance"]["image_size"] == [32, 32]
