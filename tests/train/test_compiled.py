import functools
import shutil

import pytest
import torch
from support import MODELS, figures, run_tiny, tiny_config, training
from torch import nn

from lbt import build
from lbt.train import compiled
from lbt.train.compiled import forward_flops, pays


@pytest.fixture
def traced(monkeypatch):
    """Compiles without generated code, which takes a second instead of a minute; counts the graphs."""
    graphs = []

    def count(graph, inputs):
        graphs.append([tuple(one.shape) for one in inputs if one.shape[1:] == (3, 8, 8)])
        return graph

    monkeypatch.setattr(compiled, "BACKEND", count)
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("words", [["optimizer=tvlars"], ["micro_batch=8"], ["optimizer=sam"], ["ema=0.9"]])
def test_a_compiled_training_gives_the_plain_ones_numbers_and_its_run(tmp_path, traced, words):
    plain = run_tiny(tmp_path / "plain", *words)
    asked = run_tiny(tmp_path / "asked", *words, "compile=true")
    assert asked.id == plain.id and traced
    assert asked.summary["compile"] == "compiled" and "compile" not in plain.summary
    wanted, found = figures(plain.path), figures(asked.path)
    for one, other in zip(found, wanted, strict=True):
        numbers = {key: value for key, value in other.items() if key != "kind"}
        assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=1e-5)


def test_full_training_batches_alone_are_compiled_and_later_runs_share_them(tmp_path, traced):
    run_tiny(tmp_path, "compile=true")  # batches of 16, 16 and 12; scored on 16 images
    assert traced == [[(16, 3, 8, 8)]]
    for seed in (1, 2, 3):
        run_tiny(tmp_path, "compile=true", f"seed={seed}")
    assert len(traced) == 1
    run_tiny(tmp_path, "compile=true", "batch=22")
    assert traced[1:] == [[(22, 3, 8, 8)]]


def test_more_shapes_than_torch_would_take_are_all_compiled(tmp_path, traced):
    for batch in range(5, 17):
        assert run_tiny(tmp_path, "compile=true", f"batch={batch}", "epochs=1").summary["compile"] == "compiled"
    assert len(traced) == 12


class Undecided(nn.Module):
    """What no single graph can hold: a branch that depends on a value."""

    def forward(self, features):
        """Returns the features."""
        return features if features.sum() > -1e9 else -features


def test_a_model_that_cannot_be_compiled_is_called_as_it_is_and_the_record_says_so(tmp_path, monkeypatch, traced):
    tiny = MODELS["tiny"]
    branching = functools.wraps(tiny)(lambda classes, **settings: nn.Sequential(Undecided(), tiny(classes)))
    monkeypatch.setitem(MODELS, "tiny", branching)
    wanted, found = run_tiny(tmp_path / "plain"), run_tiny(tmp_path / "asked", "compile=true")
    assert found.summary["compile"].startswith("not compiled: ")
    assert found.summary["test_loss"] == wanted.summary["test_loss"] and not traced


def test_flops_are_those_of_the_layers(tmp_path):
    made = training(tmp_path)
    convolution = 2 * (3 * 9) * 8 * 8 * 8  # FLOPs of 8 filters at 64 pixels
    assert forward_flops(made.model, made.update.executor.task, torch.Size((3, 8, 8))) == convolution + 2 * 8 * 10
    assert forward_flops(*views(tmp_path), torch.Size((3, 8, 8))) == 2 * (convolution + 2 * 8 * 4)


def views(tmp_path):
    config = tiny_config(tmp_path, "task=barlow_twins", "task.projector=[4]", "data.augment=barlow_twins")
    task = build.task(config)
    return task.prepare(build.model(config, 10)), task


def test_auto_compiles_long_trainings_on_a_gpu_alone(tmp_path, monkeypatch):
    made = training(tmp_path)
    assert not pays(made.model, made.update.executor.task, made.data, 10**9)  # a CPU
    flops = 3 * forward_flops(made.model, made.update.executor.task, torch.Size((3, 8, 8))) * 44
    epochs = int(compiled.PAYS_FROM * compiled.RATE / flops)

    class OnAGpu(nn.Module):
        def parameters(self):
            yield type("", (), {"device": torch.device("cuda")})

    monkeypatch.setattr(compiled, "forward_flops", lambda *_: flops // (3 * 44))
    assert not pays(OnAGpu(), made.update.executor.task, made.data, epochs - 1)
    assert pays(OnAGpu(), made.update.executor.task, made.data, epochs + 1)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs the C++ compiler that torch generates code for")
def test_generated_code_gives_the_plain_numbers(tmp_path):
    wanted, found = run_tiny(tmp_path / "plain", "epochs=2"), run_tiny(tmp_path / "asked", "epochs=2", "compile=true")
    assert found.summary["compile"] == "compiled"
    for name in ("train_loss", "test_loss"):
        assert found.summary[name] == pytest.approx(wanted.summary[name], rel=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("words", [[], ["cuda_graph=true"]])
def test_on_a_gpu_compiled_code_gives_the_plain_numbers(tmp_path, words):
    wanted = run_tiny(tmp_path / "plain", "device=cuda", "data.size=76")
    found = run_tiny(tmp_path / "asked", "device=cuda", "data.size=76", "compile=true", *words)
    assert found.summary["compile"] == "compiled"
    for name in ("train_loss", "test_loss"):
        assert found.summary[name] == pytest.approx(wanted.summary[name], rel=1e-3)
