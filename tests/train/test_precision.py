"""bfloat16 against float32 on a CPU: what is wrong is found by its shape and computed in float32."""

import copy
import itertools
import subprocess

import pytest
import torch
from support import configure, figures, script, training
from torch import nn

from lbt import build, records, runtime
from lbt.tasks import Classification
from lbt.train import Training
from lbt.train.precision import Float32Conv2d, InFloat32, compute_in_float32, is_miscomputed

NEEDS_BF16 = pytest.mark.skipif(not runtime._computes_in_bf16("cpu"), reason="this processor has no bfloat16 unit")
DIRT = (0.0, 1e3, float("nan"), -7.0)  # what memory held before


def dirty(value: float) -> None:
    for size in range(1, 8):
        torch.full((100_003 * size,), value)


def gradient(layer: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = layer(images)
    outputs.backward(torch.sin(torch.arange(outputs.numel()).reshape(outputs.shape)).to(outputs.dtype))
    return next(layer.parameters()).grad.clone()


def distance(layer: nn.Module, images: torch.Tensor) -> float:
    """The largest relative distance of the weight gradient in bfloat16 from that in float32, memory dirtied before."""
    true, worst = gradient(layer, images, torch.float32), 0.0
    for value in DIRT:
        dirty(value)
        found = (gradient(layer, images, torch.bfloat16) - true).norm() / true.norm()
        worst = max(worst, found.item()) if found.isfinite() else float("inf")
    return worst


@NEEDS_BF16
@pytest.mark.parametrize(("kernel", "stride"), [*itertools.product((1, 3, 7), (1, 2, 3))])
def test_each_convolution_is_right_in_bf16_or_known_not_to_be(kernel, stride):
    for size, batch, groups in itertools.product((1, 2, 3, 4, 8), (2, 32), (1, 16)):
        layer = nn.Conv2d(16, 32, kernel, stride, kernel // 2, groups=groups, bias=False)
        if is_miscomputed(layer, (size, size)):
            layer.__class__ = Float32Conv2d
        images = torch.randn(batch, 16, size, size)
        for memory in (torch.contiguous_format, torch.channels_last):
            found = distance(layer.to(memory_format=memory), images.to(memory_format=memory))
            assert found < 0.05, (size, batch, groups, memory)


@NEEDS_BF16
@pytest.mark.parametrize("batch", [2, 32])
def test_the_other_layers_are_right_in_bf16(batch):
    maps = [torch.randn(batch, 64, size, size) for size in (1, 2, 4)]
    for images in maps:
        assert distance(nn.GroupNorm(32, 64), images) < 0.05
        assert distance(nn.BatchNorm2d(64), images) < 0.05 or images.shape[-1] == 1
    for inputs, outputs in ((64, 10), (512, 256)):
        assert distance(nn.Linear(inputs, outputs), torch.randn(batch, inputs)) < 0.05


def digits(precision: str, *more: str) -> Training:
    words = ["data=digits", "data.subset=96", "batch=32", "optimizer=nesterov", "device=cpu", "epochs=1", *more]
    config = runtime.settle(configure(*words, f"precision={precision}"))
    return Training(config, build.images(config), "test")


@NEEDS_BF16
def test_gradients_of_small_images_do_not_depend_on_what_memory_held(tmp_path):
    made = digits("bf16", f"results_dir={tmp_path}")
    images, labels = next(iter(made.data.batches()))
    found = []
    for value in DIRT:
        dirty(value)
        made._gradient(images, labels)
        found.append([parameter.grad.clone() for parameter in made.model.parameters()])
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


def test_the_layers_are_named_and_no_others_are_changed(tmp_path):
    made = digits("bf16", f"results_dir={tmp_path}")
    changed = [name for name, layer in made.model.named_modules() if isinstance(layer, InFloat32)]
    assert changed == made.float32_layers != []
    assert all(made.model.get_submodule(name).stride == (2, 2) for name in changed)
    assert digits("fp32", f"results_dir={tmp_path}").float32_layers == []
    assert training(tmp_path, "precision=bf16").float32_layers == []  # a network without strides


def test_the_quickstart_gives_the_same_numbers_twice(tmp_path):
    """Two processes, each with memory of its own; one of the grid's runs, at the length of one update."""
    found = []
    for folder in ("first", "second"):
        words = ["+experiment=quickstart", "optimizer=lars", "batch=512", "seed=0", "epochs=1", "data.subset=512"]
        code = f"""
import sys
from lbt.cli import main
sys.exit(main(["train", "-m", *{words!r}, "device=cpu", "results_dir={tmp_path / folder}"]))
"""
        subprocess.run(script(code), check=True, stdout=subprocess.DEVNULL)
        (path,) = records.paths(tmp_path / folder)
        found.append(figures(path))
    assert found[0] == found[1]


def test_a_convolution_of_a_librarys_own_keeps_what_it_does_besides():
    class Doubling(nn.Conv2d):
        def forward(self, images):
            return 2 * super().forward(images)

    model, images = nn.Sequential(Doubling(3, 4, 1, stride=2)), torch.randn(2, 3, 1, 1)
    wanted = model(images)
    assert compute_in_float32(model, Classification(), torch.Size([3, 1, 1]), "bf16") == ["0"]
    with torch.autocast("cpu", torch.bfloat16):
        found = copy.deepcopy(model)(images)  # as averaged weights are made
    assert isinstance(model[0], Doubling) and found.dtype == torch.float32 and torch.equal(found, wanted)
