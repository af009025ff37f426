"""`lbt landscape`: what is drawn is the loss at the stated weights; both ends are the runs' own figures."""

import csv
from functools import wraps

import numpy as np
import pytest
import torch
from support import run_tiny
from torch import nn

from lbt import build, landscape, weights
from lbt.cli import main
from lbt.data import held_out, normalise
from lbt.errors import UserError
from lbt.landscape import Wanted, measured
from lbt.landscape.directions import filter_normalised
from lbt.metrics import LOSS
from lbt.models import MODELS
from lbt.records import places
from lbt.tasks import TASKS

KEEP = ["keep=weights", "epochs=2", "lr=0.5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder, two runs with batch norm, one of another network and one without weights."""
    folder = tmp_path_factory.mktemp("runs")
    made = [run_tiny(folder, *KEEP, f"seed={seed}") for seed in (0, 1)]
    other = run_tiny(folder, *KEEP, "data.classes=4")
    return folder, *made, other, run_tiny(folder, *KEEP[1:], "keep=null", "seed=2")


def test_both_ends_are_the_records_figures_bit_for_bit(runs):
    folder, first, second, *_ = runs
    found = measured([first.id, second.id[:9]], folder, Wanted(points=2, span=(0, 1), batch_norm="kept"))
    assert [row["x"] for row in found.rows] == [0, 1]
    for row, run in zip(found.rows, (first, second), strict=True):
        last = run.epochs[-1]
        assert row["test_loss"] == last["test_loss"] and row["test_accuracy"] == last["test_accuracy"]
    (middle,) = (row for row in _kept_middle(runs) if row["x"] == 0.5)
    assert min(row["test_loss"] for row in found.rows) != middle["test_loss"]


def _kept_middle(runs):
    folder, first, second, *_ = runs
    return measured([first.id, second.id], folder, Wanted(points=3, span=(0, 1), batch_norm="kept")).rows


def test_the_middle_is_the_mean_of_all_weights_and_statistics(runs):
    folder, first, second, *_ = runs
    (middle,) = (row for row in _kept_middle(runs) if row["x"] == 0.5)
    model, other = (weights.load_model(one.id, folder) for one in (first, second))
    halves = {name: (tensor + other.state_dict()[name]) / 2 for name, tensor in model.state_dict().items()}
    model.load_state_dict(halves)
    images = build.images(first.config)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(normalise(images.train_images)), images.train_labels)
    assert middle["train_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_statistics_are_those_of_the_training_part_at_the_weights_of_each_point(runs):
    """Against a network that is shown these images in training mode."""
    folder, first, second, *_ = runs
    wanted = Wanted(points=2, span=(0, 1), images=20, seed=3)
    row = measured([first.id, second.id], folder, wanted).rows[1]
    model, images = weights.load_model(second.id, folder).train(), build.images(second.config)
    train, test = (
        (normalise(pixels[chosen]), labels[chosen])
        for pixels, labels in ((images.train_images, images.train_labels), (images.test_images, images.test_labels))
        for chosen in [held_out(labels, min(20, len(labels)), 3)]
    )
    assert len(train[0]) == 20 and len(test[0]) == 16
    next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)).momentum = 1.0
    with torch.no_grad():
        model(train[0])
        model.eval()
        for split, (pixels, labels) in (("train", train), ("test", test)):
            loss = nn.functional.cross_entropy(model(pixels), labels)
            assert row[f"{split}_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_random_directions_are_as_long_as_each_filter():
    """Against a rewrite in NumPy, filter by filter."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    generator = torch.Generator().manual_seed(7)
    found = filter_normalised(network, 7)
    for name, weight in network.named_parameters():
        if weight.ndim == 1:
            assert not found[name].any()
            continue
        drawn = torch.randn(weight.shape, generator=generator).double().numpy()
        own = weight.detach().double().numpy()
        for place in range(len(own)):
            wanted = drawn[place] / np.sqrt((drawn[place] ** 2).sum()) * np.sqrt((own[place] ** 2).sum())
            np.testing.assert_allclose(found[name][place].numpy(), wanted, rtol=1e-5)
    assert not torch.equal(found["0.weight"], filter_normalised(network, 8)["0.weight"])


class Linear(nn.Module):
    """A linear map of the mean colour."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5]]))

    def forward(self, images):
        """Returns one number an image, [b]."""
        return images.mean(dim=(2, 3)) @ self.weight[0]


class Regression:
    """The labels by least squares: the loss is a quadratic of the weights."""

    views, spans_batch, metrics = 1, False, (LOSS,)

    def __init__(self, *, label_smoothing: float = 0.0):  # of the settings that a classification has
        pass

    def prepare(self, model):
        return model

    def forward(self, model, images):
        return model(images)

    def loss(self, outputs, labels):
        return {"loss": ((outputs - labels) ** 2).mean()}

    def evaluate(self, model, sets, epoch, epochs):
        (images, labels), *_ = sets.batches(sets.test_images, sets.test_labels)
        return {"loss": float(((model(images) - labels) ** 2).double().mean())}


def test_on_a_quadratic_every_point_is_the_closed_form(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "linear", wraps(MODELS["tiny"])(lambda classes, **_: Linear()))
    monkeypatch.setitem(TASKS, "regression", Regression)
    words = ["model.name=linear", "task.name=regression", "keep=weights", "epochs=1"]
    words += ["optimizer=sgd", "lr_scaling=none"]
    made = [run_tiny(tmp_path, *words, f"lr={rate}") for rate in (0.01, 0.1)]
    images = build.images(made[0].config)
    ends = [weights.read(places.weights_of(tmp_path, one.id)).tensors["weight"][0].double().numpy() for one in made]
    sides = {
        "train": (images.train_images, images.train_labels),
        "test": (images.test_images, images.test_labels),
    }
    for split, (pixels, labels) in sides.items():
        inputs, wanted = normalise(pixels).mean(dim=(2, 3)).double().numpy(), labels.double().numpy()

        def loss(weight, inputs=inputs, wanted=wanted):
            return float(((inputs @ weight - wanted) ** 2).mean())

        line = measured([one.id for one in made], tmp_path, Wanted(points=5)).rows
        assert [row["x"] for row in line] == [-0.5, 0, 0.5, 1, 1.5]
        for row in line:
            there = ends[0] + row["x"] * (ends[1] - ends[0])
            assert row[f"{split}_loss"] == pytest.approx(loss(there), rel=1e-5)
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        drawn = [torch.randn(1, 3, generator=generator)[0].double().numpy() for generator in generators]
        one, two = (along / np.linalg.norm(along) * np.linalg.norm(ends[0]) for along in drawn)
        plane = measured([made[0].id], tmp_path, Wanted(plane=True, points=3)).rows
        assert len(plane) == 9
        for row in plane:
            assert row[f"{split}_loss"] == pytest.approx(loss(ends[0] + row["x"] * one + row["y"] * two), rel=1e-5)


def test_the_verb_writes_a_table_and_a_figure_and_no_record(runs, capsys):
    folder, first, second, *_ = runs
    before = {path for path in folder.rglob("*") if path.is_file()}
    line, plane = f"landscape_{first.id}_{second.id}", f"landscape_{first.id}_plane"
    for words, name, count in (([second.id], line, 5), (["--plane"], plane, 9)):  # 0 and 1 are always among them
        assert main(["landscape", first.id, *words, "--points", "3", "--results-dir", str(folder)]) == 0
        table, figure = capsys.readouterr().out.split()
        assert table.endswith(f"/tables/{name}.csv") and figure.endswith(f"/figures/{name}.png")
        with open(table) as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count and all(float(row["test_loss"]) > 0 for row in rows)
        assert {row["batch_norm"] for row in rows} == {"re-estimated"} and rows[0]["train_images"] == "44"
    new = {path.name for path in folder.rglob("*") if path.is_file()} - {path.name for path in before}
    assert new == {f"{name}.{ending}" for name in (line, plane) for ending in ("csv", "svg", "png")}


def test_a_shell_completes_the_runs_that_have_kept_weights(runs, capsys, monkeypatch):
    folder, first, second, other, _ = runs
    for typed, wanted in (("", {first.id, second.id, other.id}), (first.id[:6], {first.id})):
        monkeypatch.setenv("COMP_LINE", f"lbt landscape --results-dir {folder} {second.id} {typed}")
        assert main(["-sc", "query=bash"]) == 0
        assert set(capsys.readouterr().out.split()) == wanted


def test_mistakes_are_one_line(runs):
    folder, first, second, other, without = runs
    mistakes = [
        ([without.id], Wanted(), "weights were not kept; keep=weights in another results_dir keeps them"),
        (["nothing"], Wanted(), "no run whose id begins so has weights"),
        ([first.id, other.id], Wanted(), f"{other.id}: another network than {first.id}'s, tiny and tiny: fc."),
        ([first.id, second.id], Wanted(plane=True), "--plane: is of one run's random directions"),
        ([first.id] * 3, Wanted(), "expected one or two runs, not 3"),
        ([first.id], Wanted(points=1), "--points 1: expected two or more"),
        ([first.id], Wanted(span=(1, 1)), "--span 1 1: expected the lower end first"),
        ([first.id], Wanted(images=0), "--images 0: expected one or more"),
        ([first.id], Wanted(directions=0), "--directions 0: expected one or more"),
        ([first.id], Wanted(batch_norm="keep"), 'did you mean "kept"?'),
    ]
    for words, wanted, said in mistakes:
        with pytest.raises(UserError) as caught:
            landscape.measured(words, folder, wanted)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="batch=4: not a setting of scoring"):
        measured([first.id], folder, overrides=["batch=4"])


def test_a_loss_of_pairs_of_images_is_refused(tmp_path):
    twins = ["task=barlow_twins", "data.augment=barlow_twins", "task.projector=[6,4]", "task.probe.epochs=1"]
    run = run_tiny(tmp_path, "keep=weights", "epochs=1", *twins)
    with pytest.raises(UserError, match="task=barlow_twins: its loss is of pairs of images"):
        measured([run.id], tmp_path)
