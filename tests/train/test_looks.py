"""Probes that look at the weights between two updates: when they do, what they record, and that nothing notices."""

from contextlib import contextmanager
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from support import StopAfter, configure, figures, run_tiny, tiny_config
from torch import nn

from lbt import build, records
from lbt.errors import UserError
from lbt.identity import from_json, identity, to_json
from lbt.models import MODELS
from lbt.train import Training
from lbt.train.probes import looks
from lbt.train.probes.curvature import Curvature
from lbt.train.probes.looks import trained
from lbt.train.probes.sharpness import scale_free
from lbt.train.random import Random

SMALL = ["probe.images=12", "probe.noise_images=12", "probe.micro_batch=6"]
PROBED = ["probes=[sharpness,noise_scale]", "probe_every=2", *SMALL]
OFTEN = ["probe.updates=1", "probe.first_epochs=4"]


@wraps(MODELS["tiny"])  # whose settings it takes
def dropping(num_classes: int, **_) -> nn.Module:
    """Batch norm, which has running statistics, and dropout, which draws random numbers."""
    layers = (nn.Conv2d(3, 4, 3, stride=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.4), nn.Flatten())
    model = nn.Sequential(*layers)
    model.add_module("fc", nn.Linear(16, num_classes))
    return model


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(MODELS, "dropping", dropping)


MODEL = ["model.name=dropping", "optimizer=lars"]


def without(lines):
    return [{key: one for key, one in line.items() if key not in ("sharpness", "noise_scale")} for line in lines]


def looked(path, probe="sharpness"):
    """The steps of a record's looks, by epoch: (earlier ones, that at the end)."""
    found = [line.get(probe, {}) for line in records.read(path).epochs]
    return [([one["step"] for one in line.get("earlier", [])], line.get("step")) for line in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs without and with the probes."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "dropping", dropping)
        plain = run_tiny(folder / "plain", *MODEL)
        return plain, run_tiny(folder / "probed", *MODEL, *PROBED, *OFTEN)


def test_they_change_no_number_and_no_id(whole):
    plain, probed = whole
    assert probed.id == plain.id
    assert without(figures(probed.path)) == figures(plain.path)
    assert looked(probed.path) == [([0, 1, 2], 3), ([4, 5], 6), ([7, 8], 9), ([10, 11], 12)]
    assert looked(probed.path, "noise_scale") == looked(probed.path)


def moves_statistics(monkeypatch):
    @contextmanager
    def still(model):
        yield model

    monkeypatch.setattr(looks, "still", still)


def with_dropout(monkeypatch):
    whole = looks.still

    @contextmanager
    def still(model):
        with whole(model) as copied:
            yield copied.train()

    monkeypatch.setattr(looks, "still", still)


def draws(monkeypatch):
    with_dropout(monkeypatch)
    monkeypatch.setattr(Random, "load_state_dict", lambda self, state: None)


def climbs(monkeypatch):
    shared = SimpleNamespace(deepcopy=lambda model: model)
    monkeypatch.setattr(looks, "copy", shared)  # SAM's step is then taken by the training's weights


@pytest.mark.parametrize("spoil", [moves_statistics, draws, climbs])
def test_one_that_changed_the_training_would_be_seen(tmp_path, monkeypatch, whole, spoil):
    spoil(monkeypatch)
    probed = run_tiny(tmp_path, *MODEL, *PROBED)
    assert without(figures(probed.path)) != figures(whole[0].path)


def test_one_that_draws_random_numbers_takes_none_of_the_trainings(tmp_path, monkeypatch, whole):
    with_dropout(monkeypatch)
    assert without(figures(run_tiny(tmp_path, *MODEL, *PROBED).path)) == figures(whole[0].path)


def test_resumed_they_record_the_same(tmp_path, whole):
    for updates in (1, 3, 5, 11):
        folder = tmp_path / str(updates)
        run_tiny(folder, *MODEL, *PROBED, *OFTEN, interrupt=StopAfter(updates))
        assert figures(run_tiny(folder, *MODEL, *PROBED, *OFTEN).path) == figures(whole[1].path)


def test_looks_are_before_the_first_update_every_so_many_epochs_at_the_end_and_in_the_first_epochs(tmp_path):
    noise = ["probes=[noise_scale]", *SMALL]
    for number, (words, wanted) in enumerate(
        {
            "probe_every=3": [([0], None), ([], None), ([], 9), ([], 12)],
            "probe_every=9": [([0], None), ([], None), ([], None), ([], 12)],
            "probe_every=9 probe.updates=2": [([0, 2], None), ([], None), ([], None), ([], 12)],
            "probe_every=9 probe.updates=2 probe.first_epochs=2": [([0, 2], None), ([4], 6), ([], None), ([], 12)],
        }.items()
    ):
        assert looked(run_tiny(tmp_path / str(number), *noise, *words.split()).path, "noise_scale") == wanted


def test_the_figures_are_those_of_the_recorded_images(tmp_path, whole):
    """The first look's noise scale and gradient, against per-image gradients by torch.func and McCandlish's formula."""
    words = ["model.name=dropping", "probes=[sharpness,noise_scale]", *SMALL, "data.augment=none", "probe.rho=0.1"]
    line = records.read(run_tiny(tmp_path, *words).path).epochs[0]
    torch.manual_seed(12345)
    made = Training(tiny_config(tmp_path, *words), build.images(tiny_config(tmp_path)), "by-hand")
    model, names = made.model.eval(), [name for name, _ in made.model.named_parameters()]
    model[1].train()
    model[1].track_running_stats = False

    def gradient(chosen):
        images, labels = made.data.form.input(made.data.images[chosen]), made.data.labels[chosen]
        loss = nn.functional.cross_entropy(model(images), labels)
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))]).double()

    noise = line["noise_scale"]["earlier"][0]
    parts = [gradient(part) for part in torch.tensor(noise["subset"]).split(6)]
    small, big = torch.stack([one.square().sum() for one in parts]).mean(), torch.stack(parts).mean(0).square().sum()
    trace, square = (small - big) / (1 / 6 - 1 / 12), (12 * big - 6 * small) / (12 - 6)
    assert noise["trace"] == pytest.approx(trace.item(), rel=1e-4)
    assert noise["gradient_square"] == pytest.approx(square.item(), rel=1e-3)
    assert noise["layers"] == [name for name in names if name in ("0.weight", "fc.weight")]
    sharp = line["sharpness"]["earlier"][0]
    assert len(set(sharp["subset"])) == 12
    counts = torch.bincount(made.data.labels[sharp["subset"]], minlength=10)
    assert counts.max() - counts.min() <= 1
    both = torch.stack([gradient(part) for part in torch.tensor(sharp["subset"]).split(6)]).mean(0)
    assert sharp["gradient_norm"] == pytest.approx(both.norm().item(), rel=1e-4)
    assert sharp["sam"] > 0 and "edge" not in {key for key, one in sharp.items() if one is not None}


def test_a_layers_scale_before_a_norm_layer_does_not_count(tmp_path):
    made = Training(tiny_config(tmp_path, *MODEL, *PROBED), build.images(tiny_config(tmp_path)), "by-hand")
    probe, found = made.update.probes["sharpness"], []
    for factor in (1.0, 4.0):
        with torch.no_grad():
            made.model[0].weight.mul_(factor)
        probe.look(made.update, ended=True)
        found.append(probe.read())
    assert found[1]["lambda_max_normalised"] == pytest.approx(found[0]["lambda_max_normalised"], rel=1e-2)
    with looks.still(made.model) as model:
        images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
        weights = [one for _, one in trained(model)]
        slopes = torch.autograd.grad(nn.functional.cross_entropy(model(images), labels), weights)
        scales = dict(zip(dict(trained(model)), scale_free(made.update, model, images, slopes), strict=True))
    assert {name for name, scale in scales.items() if scale} == {"0.weight"}
    assert scales["0.weight"] == pytest.approx(made.model[0].weight.square().sum().item())


@pytest.mark.parametrize("spoil", ["far bias", "zero head"])
def test_a_layer_that_outputs_hardly_show_keeps_its_scale(tmp_path, spoil):
    made = Training(tiny_config(tmp_path, *MODEL, *PROBED), build.images(tiny_config(tmp_path)), "by-hand")
    made.model[1] = nn.Identity()
    with torch.no_grad():
        if spoil == "far bias":
            made.model.fc.bias.fill_(1e4)  # the same for all classes: no part of the loss
        else:
            made.model.fc.weight.zero_()
    look = made.update.probes["sharpness"]
    look.look(made.update, ended=True)
    assert "lambda_max_normalised" not in (found := look.read()) and found["lambda_max"] > 0


def test_one_that_fails_is_recorded_and_ends_no_training(tmp_path, monkeypatch, whole):
    def fails(self, vector):
        raise RuntimeError("derivative is\nnot implemented")

    monkeypatch.setattr(Curvature, "product", fails)
    outcome = run_tiny(tmp_path, *MODEL, *PROBED)
    assert outcome.status == "done" and without(figures(outcome.path)) == figures(whole[0].path)
    said = records.read(outcome.path).epochs[-1]["sharpness"]["error"]
    assert said == "RuntimeError: derivative is not implemented"


def test_their_settings_are_no_part_of_a_run_and_stand_in_its_record():
    config = configure(*PROBED, *OFTEN)
    assert identity(config) == identity(configure())
    assert from_json(to_json(config)).probe == config.probe and to_json(config)["probe_every"] == 2
    assert not {"probe", "probe_every"} & to_json(configure()).keys()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("probe_every=0", "probe_every=0: expected"),
        ("probe.images=0", "probe.images=0: expected"),
        ("probe.tolerance=1", "probe.tolerance=1: expected"),
        ("probe.noise_images=11", "noise_scale compares micro-batches and needs two, 12 images"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, word, said):
    with pytest.raises(UserError, match=said) as caught:
        run_tiny(tmp_path / "results", *PROBED, word)
    assert "\n" not in str(caught.value) and not (tmp_path / "results").exists()
