"""Branches: up to the branching point the trunk, bit for bit, whoever trained that part; then the batch is another."""

import math
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from support import StopAfter, figures, run_tiny, tiny_config
from torch import nn

from lbt import build, records
from lbt.cli import main
from lbt.data import normalise
from lbt.errors import UserError
from lbt.identity import from_json, identity, to_json
from lbt.metrics import LOSS
from lbt.models import MODELS
from lbt.records import places
from lbt.records.consistency import contradiction
from lbt.report.critical.branches import points
from lbt.report.frame import load
from lbt.run import run
from lbt.tasks import TASKS

# LARS has momentum, crops draw random numbers, an epoch's last batch is smaller, the average has a state of its own.
TRUNK = ["epochs=5", "ema=0.8", "optimizer=lars", "lr=0.3"]
AT_2 = ["branch.at=2", "branch.epochs=2"]


def without_batch(lines):
    return [{key: value for key, value in line.items() if key != "batch"} for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A training as a whole, and its branches of which the second begins where the first left the trunk."""
    folder = tmp_path_factory.mktemp("branches")
    trunk = run_tiny(folder / "trunk", *TRUNK)
    branches = {factor: run_tiny(folder, *TRUNK, *AT_2, f"branch.factor={factor}") for factor in (1, 2)}
    return folder, trunk, branches


def test_a_factor_of_1_is_the_trunks_own_continuation(made):
    _, trunk, branches = made
    assert without_batch(branches[1].epochs)[0]["train_loss"] == trunk.epochs[0]["train_loss"]
    assert without_batch(figures(branches[1].path))[:4] == figures(trunk.path)[:4]
    assert len(branches[1].epochs) == 4 and branches[1].summary["epochs"] == 4


def test_what_another_branch_has_trained_is_what_it_would_have_trained(made, tmp_path):
    folder, trunk, branches = made
    shared, alone = branches[2], run_tiny(tmp_path, *TRUNK, *AT_2, "branch.factor=2")
    assert shared.id == alone.id and figures(shared.path) == figures(alone.path)
    (kept,) = places.trunks_folder(folder).iterdir()
    assert kept.name == f"{trunk.id}_2.pt"
    origin = [records.read(one.path).run["provenance"]["branched_from"] for one in (shared, alone)]
    made_by = origin[0].pop("shared")
    assert made_by["epochs"] == 2 and made_by["torch"] == torch.__version__
    assert origin == [{"run": trunk.id, "epoch": 2, "step": 6}] * 2
    # A point further on begins there, too; the state at the nearer one, if it is spoilt, is passed over.
    later = ["branch.at=3", "branch.factor=2"]
    further = run_tiny(folder, *TRUNK, *later)
    assert records.read(further.path).run["provenance"]["branched_from"]["shared"]["epochs"] == 2
    (places.trunks_folder(folder) / f"{trunk.id}_3.pt").write_bytes(b"spoilt")
    again = run_tiny(folder, *TRUNK, *later, "branch.epochs=2")
    assert records.read(again.path).run["provenance"]["branched_from"]["shared"]["epochs"] == 2
    assert figures(again.path)[:4] == figures(further.path)[:4]
    third = run_tiny(folder, *TRUNK, *later, "branch.epochs=2", "branch.lr_scaling=none")  # it was written anew
    assert records.read(third.path).run["provenance"]["branched_from"]["shared"]["epochs"] == 3


def test_an_interrupted_branch_goes_on_bit_for_bit(made, tmp_path):
    _, _, branches = made
    words = [*TRUNK, *AT_2, "branch.factor=2"]
    assert run_tiny(tmp_path, *words, interrupt=StopAfter(7)).status == "interrupted"  # within the branch
    assert figures(run_tiny(tmp_path, *words).path) == figures(branches[2].path)


def test_batches_and_rates_are_those_of_as_many_images(made):
    _, trunk, branches = made
    lines = branches[2].epochs
    assert [line["batch"] for line in lines] == [16, 16, 32, 32]
    assert [line["step"] for line in lines] == [3, 6, 8, 10]  # 44 images are 3 updates of 16, and 2 of 32
    schedule = build.schedule(trunk.config, steps=[3] * 5)
    for line, at in zip(lines[2:], (8, 11), strict=True):  # the trunk's update, of 3 an epoch, where its images begin
        scaled = 2 if trunk.config.lr_scaling == "linear" else math.nan
        assert line["lr"] == pytest.approx(scaled * trunk.config.peak_lr * schedule(at), rel=1e-12)
    assert [line["lr"] for line in lines[:2]] == [line["lr"] for line in trunk.epochs[:2]]


def test_the_rates_rule_is_the_runs_or_its_own(tmp_path):
    for rule, scale in (("null", 4.0), ("sqrt", 2.0), ("none", 1.0)):
        words = ["schedule=constant", "branch.at=1", "branch.factor=4", f"branch.lr_scaling={rule}", "batch=8"]
        config = tiny_config(tmp_path, *words, "optimizer=lars")
        factor = build.schedule(config, steps=[6, 2])
        assert (factor(5), factor(6)) == (1.0, scale)


def test_it_is_a_run_of_its_own_and_no_other_runs_id_knows_of_it(made, tmp_path):
    _, trunk, branches = made
    assert len({trunk.id, *(branch.id for branch in branches.values())}) == 3
    assert identity(tiny_config(tmp_path, "branch.factor=4")) == identity(tiny_config(tmp_path))
    assert "branch" not in to_json(trunk.config)
    record = records.read(branches[2].path)
    assert identity(from_json(record.run["config"])) == identity(branches[2].config)
    assert contradiction(record) is None


def test_it_can_be_verified(made, capsys):
    folder, _, branches = made
    assert main(["verify", branches[2].id, "--epochs", "4", "--results-dir", str(folder)]) == 0
    assert "bit-equal after 4 of 4 epochs" in capsys.readouterr().out


MISTAKES = {
    "branch.at=0": "branch.at=0: expected a whole number, 1 or more",
    "branch.at=4": "branch.at=4, branch.epochs=1: a training of 4 epochs ends before",
    "branch.at=1 branch.factor=3": "batch=16, branch.factor=3: larger than the training set of 44 images",
    "branch.at=1 branch.factors=3": "branch.factors: no such setting",
    "branch.at=2 schedule.batch={1:32}": "schedule.batch={1: 32}: a training whose batch grows by itself has no",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, words):
    from lbt.sweep.mistakes import in_one_line

    more = ["+schedule.batch={1:32}" if word.startswith("schedule") else word for word in words.split()]
    with pytest.raises(UserError, match=r".") as caught, in_one_line():
        run(tiny_config(tmp_path, *more))
    assert MISTAKES[words] in str(caught.value) and list(tmp_path.iterdir()) == []


START = 100.0  # where the quadratic's one weight begins
IMAGES, BATCH, SCALE = 512, 8, 20
UPDATES = IMAGES // BATCH


class Offset(nn.Module):
    """One weight; gives how far each image's mean pixel, scaled, lies from it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), START))

    def forward(self, images):
        """Returns the distances, [b]."""
        return self.weight[0, 0] - SCALE * images.mean(dim=(1, 2, 3))


class Quadratic:
    """Half the mean square, of curvature 1: each image's gradient is its distance, noise and all."""

    views, spans_batch, metrics = 1, False, (LOSS,)

    def __init__(self, *, label_smoothing: float = 0.0):  # of the settings that a classification has
        pass

    def prepare(self, model):
        return model

    def forward(self, model, images):
        return model(images)

    def loss(self, outputs, labels):
        return {"loss": (outputs**2).mean() / 2}

    def evaluate(self, model, sets, epoch, epochs):
        (images, _), *_ = sets.batches(sets.train_images, sets.train_labels)
        return {"loss": float((model(images) ** 2).mean() / 2)}


def expected(factor, rate, rule, spread):
    """The mean loss of a branch, less the part that no weight lowers: of the mean's way, and of the noise about it."""
    scaled = rate * (factor if rule == "linear" else math.sqrt(factor))
    loss = START**2 * (1 - rate) ** (2 * UPDATES) / 2 + rate / (2 - rate) * spread / (2 * BATCH)  # where it branches
    for _ in range(UPDATES // factor):
        loss = (1 - scaled) ** 2 * loss + scaled**2 * spread / (2 * factor * BATCH)
    return loss


@pytest.mark.parametrize(
    ("rate", "rule", "tolerance", "known"),
    [(0.05, "linear", 0.1, 8), (0.3, "linear", 0.1, 4), (0.05, "sqrt", 0.1, 2)],
)
def test_the_factor_of_a_noisy_quadratic_is_the_predicted_one(tmp_path, monkeypatch, rate, rule, tolerance, known):
    """Linearly scaled, batches are as good as each other until rate times curvature is 2; by the root, too slow."""
    offset = wraps(MODELS["tiny"])(lambda classes, **_: Offset())  # whose settings it takes
    monkeypatch.setitem(MODELS, "offset", offset)
    monkeypatch.setitem(TASKS, "quadratic", Quadratic)
    words = ["model.name=offset", "task.name=quadratic", f"data.size={IMAGES}", f"batch={BATCH}", "epochs=2"]
    words += ["optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "lr_scaling=none", f"lr={rate}"]
    words += ["schedule=constant", "data.augment=none", "branch.at=1", f"branch.lr_scaling={rule}", "name=x"]
    config = tiny_config(tmp_path, *words)
    for factor in (1, 2, 4, 8):
        outcome = run(replace(config, branch=replace(config.branch, factor=factor)))
    options = {"series": "optimizer.name", "metric": "test_loss", "tolerance": tolerance}
    (point,), mixed = points({"experiment": "x"}, load(tmp_path), **options)
    assert not mixed
    images = build.images(outcome.config).train_images
    spread = float((SCALE * normalise(images).mean(dim=(1, 2, 3))).var())
    loss = {factor: expected(factor, rate, rule, spread) for factor in (1, 2, 4, 8)}
    within = [factor for factor in loss if loss[factor] - loss[1] <= tolerance]
    assert max(within) == known and within == [factor for factor in loss if factor <= known]
    assert point.factor == known and point.bounded == (known < 8)
    for factor in within[1:]:
        assert point.excess[factor] == pytest.approx(loss[factor] - loss[1], abs=0.04)
    assert np.isfinite(point.excess[known])
