"""Barlow Twins: its loss against NumPy, micro-batches against the whole batch, and what a run records."""

import numpy as np
import pytest
import torch
from support import StopAfter, configure, run_tiny, tiny, tiny_config
from torch import nn

from lbt import build, optim, records
from lbt.errors import UserError
from lbt.run import run
from lbt.tasks.barlow_twins import BarlowTwins, barlow_twins_loss
from lbt.train.executor import Executor

TWINS = [
    "task=barlow_twins",
    "task.projector=[16,12]",
    "task.probe.epochs=3",
    "task.probe.batch=8",
    "data.augment=barlow_twins",
    "task.knn_every=2",
]


def embeddings(batch=40, width=6, dtype=torch.float64):
    torch.manual_seed(0)
    shared = torch.randn(batch, width, dtype=dtype)
    return shared + 0.5 * torch.randn_like(shared), 2 * shared + torch.randn_like(shared) + 3


def by_numpy(first, second, weight):
    """The paper's eq. (1) and (2) entry by entry."""
    first, second = first.numpy(), second.numpy()
    first = (first - first.mean(0)) / np.sqrt(first.var(0) + 1e-5)
    second = (second - second.mean(0)) / np.sqrt(second.var(0) + 1e-5)
    c = np.einsum("bi,bj->ij", first, second) / len(first)
    loss = sum((1 - c[i, j]) ** 2 if i == j else weight * c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)))
    off = c[~np.eye(len(c), dtype=bool)]
    return loss, np.diag(c).mean(), np.sqrt((off**2).mean())


@pytest.mark.parametrize("weight", [0.005, 1.0])
def test_loss_and_measures_equal_the_formula(weight):
    first, second = embeddings()
    ours = barlow_twins_loss(first, second, weight=weight)
    np.testing.assert_allclose([value.item() for value in ours], by_numpy(first, second, weight), rtol=1e-10)


def test_the_gradient_is_the_losss():
    first, second = embeddings(batch=7, width=4)
    inputs = first.requires_grad_(), second.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins_loss(a, b, weight=0.3)[0], inputs)
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins_loss(a, b, weight=0.3, divisor=20)[0] * 3, inputs)


def test_the_divisor_stands_for_the_batch():
    first, second = embeddings()
    whole, mean, _ = barlow_twins_loss(first, second)
    assert barlow_twins_loss(first, second, divisor=40)[0] == whole
    assert barlow_twins_loss(first, second, divisor=80)[1] == pytest.approx(mean.item() / 2)


def test_a_bfloat16_diagonal_is_not_rounded_to_bfloat16():
    torch.manual_seed(0)
    first = torch.randn(4096, 32)
    exact = barlow_twins_loss(first, first)
    rounded = barlow_twins_loss(first.bfloat16(), first.bfloat16())
    assert rounded[1].dtype == torch.float32
    assert rounded[1].item() == pytest.approx(exact[1].item(), abs=1e-4)  # bfloat16 steps by 0.004 below 1


def test_equal_views_correlate_and_unrelated_ones_do_not():
    first, _ = embeddings(batch=4000)
    loss, diagonal, off = barlow_twins_loss(first, 5 * first - 1, weight=0.0)
    assert loss < 1e-8 and diagonal == pytest.approx(1, abs=1e-4) and off < 0.1
    loss, diagonal, _ = barlow_twins_loss(first, torch.randn_like(first), weight=0.0)
    assert abs(diagonal) < 0.05 and loss == pytest.approx(6, rel=0.1)


def test_the_loss_keeps_at_most_two_matrices_of_the_embeddings_width():
    width = 512
    first, second = (z.requires_grad_() for z in embeddings(batch=4, width=width, dtype=torch.float32))
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as profile:
        barlow_twins_loss(first, second)[0].backward()
    now = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert width**2 * 4 <= peak <= 2.1 * width**2 * 4


def twins(norm, micro_batch):
    """An executor in float64 on a convolution with a norm layer, and the batch it is given."""
    torch.manual_seed(1)
    task = BarlowTwins(projector=[16, 5], projector_norm="layer" if norm == "group" else "batch", probe={})
    model = tiny(10)
    if norm == "group":
        model[1] = nn.GroupNorm(2, 8)
    module = task.prepare(model).double()
    executor = Executor(module, task, precision="fp32", micro_batch=micro_batch)
    executor.input = lambda images: [view.double() / 255 for view in images.unbind(1)]
    images = torch.randint(0, 256, (22, 2, 3, 8, 8), dtype=torch.uint8)
    return executor, images, torch.zeros(22, dtype=torch.long)


def gradients(norm, micro_batch, shares=None):
    executor, images, labels = twins(norm, micro_batch)
    observe = None if shares is None else shares.append
    figures = executor.backward(images, labels, observe)
    return [parameter.grad for parameter in executor.model.parameters()], figures


@pytest.mark.parametrize("micro_batch", [22, 11, 5, 1])
def test_micro_batches_give_the_whole_batchs_loss_and_gradient(micro_batch):
    shares = []
    whole, figures = gradients("group", None)
    parts, again = gradients("group", micro_batch, shares)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again, figures, rtol=1e-9, atol=1e-12)
    assert sum(shares) == pytest.approx(1) and len(shares) == -(-22 // micro_batch)


def test_batch_norm_sees_the_micro_batch_so_that_the_gradient_changes():
    whole, _ = gradients("batch", None)
    parts, _ = gradients("batch", 11)
    assert any(not torch.allclose(one, other, rtol=0.01) for one, other in zip(parts, whole, strict=True))


def test_batch_norms_statistics_move_once_a_micro_batch_and_view():
    executor, images, labels = twins("batch", 11)
    executor.backward(images, labels)
    assert executor.model.backbone[1].num_batches_tracked == 4  # not 8: the first of the two passes leaves no trace


def figures(path):
    record = records.read(path)
    lines = [*record.epochs, record.end["summary"]]
    return [{key: value for key, value in line.items() if not key.startswith("wall_")} for line in lines]


def test_a_run_records_correlation_knn_and_probe(tmp_path):
    outcome = run_tiny(tmp_path, *TWINS, "optimizer=adam", "lr=0.01", "epochs=5", "data.test_size=40")
    lines = records.read(outcome.path).epochs
    assert all({"train_loss", "train_diagonal", "train_off_diagonal"} <= line.keys() for line in lines)
    assert [line["epoch"] for line in lines if "test_knn_accuracy" in line] == [2, 4, 5]
    probe = {"test_accuracy", "test_top5_accuracy", "test_loss"}
    assert not probe & lines[3].keys() and probe <= lines[4].keys() and probe <= outcome.summary.keys()
    assert outcome.summary["test_top5_accuracy"] >= outcome.summary["test_accuracy"]


def test_embeddings_learn_to_agree(tmp_path):
    overrides = ["data=digits", "model.name=tiny", "batch=128", "optimizer=adam", "lr=0.02", "epochs=8", "device=cpu"]
    config = configure(
        *overrides, *TWINS, "task.projector=[32,4]", "task.off_diagonal=0.3", "epochs=16", f"results_dir={tmp_path}"
    )
    first, *_, last = records.read(run(config).path).epochs
    assert last["train_loss"] < first["train_loss"]
    assert last["train_diagonal"] > first["train_diagonal"] + 0.1


@pytest.mark.parametrize("micro_batch", ["null", "6"])
def test_resumed_at_any_step_equals_uninterrupted(tmp_path, micro_batch):
    overrides = [*TWINS, "optimizer=tvlars", f"micro_batch={micro_batch}", "epochs=3", "ema=0.9"]
    whole = run_tiny(tmp_path / "whole", *overrides)
    for updates in range(1, 9):
        stopped = run_tiny(tmp_path / str(updates), *overrides, interrupt=StopAfter(updates))
        assert stopped.status == "interrupted"
        assert figures(run_tiny(tmp_path / str(updates), *overrides).path) == figures(whole.path)


@pytest.mark.parametrize("optimizer", optim.names())
def test_every_optimizer_trains_it(tmp_path, optimizer):
    outcome = run_tiny(tmp_path, *TWINS, f"optimizer={optimizer}", "epochs=1", "lr=0.001", "micro_batch=8")
    assert outcome.status == "done" and np.isfinite(outcome.summary["train_loss"])


def test_running_out_of_memory_names_the_largest_micro_batch(tmp_path, monkeypatch):
    forward = BarlowTwins.forward

    def fits_five(self, model, images):
        if len(images[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        return forward(self, model, images)

    monkeypatch.setattr(BarlowTwins, "forward", fits_five)
    outcome = run_tiny(tmp_path, *TWINS)
    assert outcome.status == "oom" and outcome.summary["largest_micro_batch"] == 4


def test_divergence_ends_the_run(tmp_path):
    outcome = run_tiny(tmp_path, *TWINS, "optimizer=sgd", "lr=1e30", "schedule=constant")
    assert outcome.status == "diverged"


def test_the_released_protocol_trains_and_probes_as_its_authors_do(tmp_path):
    paper, released = (run_tiny(tmp_path, *TWINS, f"protocol={name}", "epochs=1") for name in ("paper", "released"))
    settings = records.read(released.path).run["config"]
    assert settings["task"]["divisor"] == 16 and settings["schedule"]["period_epochs"] == 100
    assert settings["task"]["probe"] | {"mode": "train", "period_steps": 100} == settings["task"]["probe"]
    # The last batch has 12 of 16 images: divided by 16, its correlation is smaller.
    assert released.summary != paper.summary


def test_the_released_probe_works_in_bfloat16(tmp_path):
    outcome = run_tiny(tmp_path, *TWINS, "protocol=released", "epochs=1", "precision=bf16")
    assert outcome.status == "done" and np.isfinite(outcome.summary["test_loss"])


def test_one_view_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"needs 2 view\(s\) of an image, data.augment=crop_flip gives 1"):
        run_tiny(tmp_path / "results", *TWINS, "data.augment=crop_flip")
    with pytest.raises(UserError, match=r"task=classification needs 1 view"):
        run_tiny(tmp_path / "results", "data.augment=barlow_twins")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.projector=[]", "projector=.*widths"),
        ("task.off_diagonal=0", "off_diagonal=0"),
        ("task.knn_every=0", "knn_every=0"),
        ("task.probe.epochs=0", "probe.epochs=0"),
        ("+task.probe.epoch=3", 'task.probe.epoch: no such setting.*"epochs"'),
        ("task.probe.mode=trian", 'task.probe.mode=trian: no such choice.*"train"'),
        ("task.probe.augment=crop", "task.probe.augment=crop"),
        ("task.probe.augment=barlow_twins", "probe.augment=barlow_twins: expected .* one view"),
        ("task.probe.test_augment=barlow_twins", "probe.test_augment=barlow_twins: expected .* one view"),
    ],
)
def test_mistakes_are_one_line(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        build.validate(tiny_config(tmp_path, *TWINS, override))


def test_weights_and_biases_may_have_rates_of_their_own(tmp_path):
    config = tiny_config(tmp_path, "optimizer=lars", "lr=0.2", "lr_scaling=none", "bias_lr_factor=0.024")
    model = tiny(10)
    optimizer = build.optimizer(config, model.parameters(), steps=[3] * config.epochs)
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert rates.keys() == {id(one) for one in model.parameters()}
    for one in model.parameters():
        assert rates[id(one)] == pytest.approx(0.2 if one.ndim > 1 else 0.0048)


def test_the_official_preset_has_the_authors_settings():
    config = configure("+experiment=barlow_twins_official")
    network = build.model(config, 10)
    module = build.task(config).prepare(network)
    widths = [layer.out_features for layer in module.projector if isinstance(layer, nn.Linear)]
    assert widths == [8192, 8192, 8192] and module.projector[0].in_features == 2048
    assert all(block.bn3.weight.abs().max() == 0 for block in module.backbone.layer1)
    optimizer = build.optimizer(config, module.parameters(), steps=[25] * 1000)
    rates = {one.ndim > 1: group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert rates == {True: pytest.approx(0.2 * 2048 / 256), False: pytest.approx(0.0048 * 2048 / 256)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-6}
    assert config.task["off_diagonal"] == 0.0051 and config.epochs == 1000
    factor = build.schedule(config, steps=[25] * 1000)
    assert factor(249) == 1 and factor(24999) == pytest.approx(0.001)
