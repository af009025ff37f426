"""`workers=4` in a training: parts of a batch as workers, resumed, counted, and what is refused."""

import time
from types import SimpleNamespace

import pytest
import torch
from support import TINY, StopAfter, figures, run_tiny, tiny_config, training

from lbt import build, records
from lbt.cli import main
from lbt.errors import UserError
from lbt.identity import from_json, identity, to_json
from lbt.train import Training

RULES = {
    "onebit_adam": ["optimizer=onebit_adam"],  # freezes after the first epoch
    "onebit_lamb": ["optimizer=onebit_lamb", "micro_batch=3"],
    "slamb": ["optimizer=slamb", "optimizer.exchanged_below=0", "optimizer.average_steps=4"],
    "agvm": ["optimizer=agvm", "optimizer@optimizer.base=lamb", "lr=0.01", "warmup=0", "optimizer.interval=2"],
    "jointspar_lars": ["optimizer=jointspar_lars"],
}
FEW = ["workers=4", "epochs=2", "warmup=1", "data.size=35"]  # a last batch of three images: one worker has none


@pytest.mark.parametrize("rule", RULES)
def test_an_interrupted_run_goes_on_bit_for_bit_and_its_bytes_are_counted(tmp_path, rule):
    words = [*FEW, *RULES[rule]]
    whole = run_tiny(tmp_path / "whole", *words)
    assert whole.status == "done"
    for updates in (2, 5):
        stopped = run_tiny(tmp_path / str(updates), *words, interrupt=StopAfter(updates))
        assert stopped.status == "interrupted"
        assert figures(run_tiny(tmp_path / str(updates), *words).path) == figures(whole.path)
    record = records.read(whole.path)
    sent = [line["bytes_sent"] for line in record.epochs]
    assert sum(sent) == record.end["summary"]["total_bytes_sent"] and min(sent) > 0
    if rule.startswith("onebit"):  # of three updates an epoch, with 4 workers
        assert sent[0] == 3 * 2 * 3 / 4 * 4 * record.run["provenance"]["parameters"]
        assert sent[1] < sent[0] / 3  # next to these few weights scales count


def test_the_workers_gradients_are_the_parts_and_their_mean_is_the_batchs(tmp_path):
    """With a network that does not look across images."""
    made = training(tmp_path, "workers=3", "optimizer=onebit_adam", "batch=16")
    for layer in made.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    made.model.train = lambda mode=True: made.model
    [images, labels], *_ = made.data.batches()
    collected, optimizer = [], made.update.optimizer
    keep = optimizer.collect

    def collect(worker):
        collected.append([p.grad.clone() for p in made.model.parameters()])
        keep(worker)

    optimizer.collect = collect
    figures_of = made._gradient(images, labels)
    parts = made.update.executor.parts_of_workers(16)
    assert [part.size for [part] in parts] == [5, 5, 6]
    plain = training(tmp_path, "optimizer=sgd", "batch=16")
    plain.model.load_state_dict(made.model.state_dict())
    for layer in plain.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    expected = plain._gradient(images, labels)
    for name, figure in expected.items():
        assert float(figures_of[name]) == pytest.approx(float(figure))
    for mean, p in zip(zip(*collected, strict=True), plain.model.parameters(), strict=True):
        torch.testing.assert_close(sum(mean) / 3, p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", ["jointspar", "jointspar_lars"])
def test_jointspar_leaves_the_layers_that_rest_out_of_the_backward_pass(tmp_path, rule):
    """A convolution and its norm are a layer, as are the last matrix and its bias; the base splits them in groups."""
    made = training(tmp_path, f"optimizer={rule}", "optimizer.rate=0")
    [images, labels], *_ = made.data.batches()
    optimizer, seen = made.update.optimizer, []
    optimizer.collect = lambda worker: seen.append([p.grad is not None for p in made.model.parameters()])
    for draw in range(12):
        optimizer.param_groups[0]["draws"] = draw
        first, last = optimizer.drawn()
        made._gradient(images, labels)
        assert seen[-1] == [first, first, first, last, last]
    assert len({tuple(one) for one in seen}) == 4


def test_the_number_of_workers_is_part_of_a_run_where_there_is_more_than_one(tmp_path):
    several, one, none = (
        tiny_config(tmp_path, "optimizer=slamb", *words) for words in (["workers=4"], ["workers=1"], [])
    )
    assert identity(several) != identity(one) == identity(none)
    assert from_json(to_json(several)).workers == 4 and "workers" not in to_json(none)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers=4"], "workers=4: optimizer=lars averages gradients, and has no workers"),
        (["workers=0", "optimizer=slamb"], "workers=0: expected a whole number, 1 or more"),
        (["workers=20", "optimizer=slamb"], "workers=20: a batch of 16 images has none for some of them"),
        (["+optimizer.workers=4", "optimizer=slamb"], "optimizer.workers=4: the setting is workers, of all devices"),
        (["optimizer=agvm", "optimizer@optimizer.base=slamb"], 'there is no optimizer "slamb"'),
        (
            ["optimizer=slamb", "workers=2", "ema=0.9"],
            "ema=0.9: each of the optimizer's workers has weights of its own",
        ),
        (["optimizer=agvm", "bias_lr_factor=0.1"], "optimizer=agvm keeps a layer's vectors with its matrix"),
        (["optimizer=jointspar_lars", "bias_lr_factor=0"], "optimizer=jointspar_lars keeps a layer's vectors with its"),
        (["optimizer=slamb", "workers=2", "layer_norms=1"], "layer_norms: an optimizer with workers is given no"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, capsys, words, said):
    assert main(["train", *TINY, "optimizer=lars", f"results_dir={tmp_path}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err or "Invalid base name: 'slamb'" in err
    assert err.count("\n") == 1


def test_devices_divide_workers(tmp_path):
    config = tiny_config(tmp_path, "optimizer=slamb", "workers=4")
    made = build.optimizer(config, [torch.nn.Parameter(torch.ones(2, 2))], steps=[1], devices=2)
    assert made.defaults["workers"] == 2
    with pytest.raises(UserError, match=r"^workers=4: 3 devices cannot hold as many each; workers=6$"):
        build.optimizer(config, [torch.nn.Parameter(torch.ones(2, 2))], steps=[1], devices=3)


def test_agvms_modules_are_the_networks_parts(tmp_path):
    made = training(tmp_path, "optimizer=agvm", "workers=2")
    groups = made.update.optimizer.param_groups
    sizes = {(group["module"], p.ndim) for group in groups for p in group["params"]}
    assert sizes == {(0, 4), (0, 1), (1, 2), (1, 1)}  # the norm layer joins its convolution; the base splits both


@pytest.mark.parametrize(("words", "together"), [(["workers=2", "optimizer=slamb"], True), (["optimizer=lars"], False)])
def test_devices_agree_on_a_checkpoint_that_they_write_together(tmp_path, words, together):
    """Clocks differ: one device alone in a collective call would wait for the others for ever."""
    config = tiny_config(tmp_path, *words)
    made = Training(config, build.images(config), "test")
    asked = []
    made.group = SimpleNamespace(first=lambda find: asked.append(find()) or "as the first says", size=2)
    made._saved = time.monotonic() - 10
    assert made._due(5.0) == ("as the first says" if together else True)
    assert asked == ([True] if together else [])
