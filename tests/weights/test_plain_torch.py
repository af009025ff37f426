"""The page's example: a kept Barlow Twins backbone in a script without lbt gives the record's k-NN accuracy."""

import re

import numpy as np
import pytest
import torch
from support import REPOSITORY, configure

from lbt import build, records
from lbt.run import run

WORDS = [
    "task=barlow_twins", "task.projector=[16,8]", "task.probe.epochs=1", "data=digits", "data.subset=64",
    "data.test_every=4", "data.augment=barlow_twins", "batch=32", "epochs=1", "precision=fp32", "device=cpu",
    "optimizer=nesterov", "lr=0.05", "keep=weights",
]  # fmt: skip


def knn_accuracy(train, labels, test, wanted, k=20, temperature=0.07):
    """A weighted vote of the nearest neighbours, in float64 NumPy, an image at a time."""
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train.astype(float), test.astype(float)))
    hits = 0
    for one, right in zip(test, wanted, strict=True):
        cosines = train @ one
        near = np.argsort(-cosines)[:k]
        votes = np.bincount(labels[near], np.exp(cosines[near] / temperature), minlength=10)
        hits += votes.argmax() == right
    return 100 * hits / len(wanted)


def test_the_pages_example_gives_the_records_knn_accuracy(tmp_path):
    config = configure(*WORDS, f"results_dir={tmp_path}")
    outcome = run(config)
    images, recorded = build.images(config), records.read(outcome.path).epochs[-1]["test_knn_accuracy"]
    text = (REPOSITORY / "docs" / "weights.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    named = "results/weights/0123456789abcdef.safetensors"
    assert "lbt" not in example and example.count(named) == 1
    made: dict = {}
    exec(compile(example.replace(named, f"{tmp_path}/weights/{outcome.id}.safetensors"), "weights.md", "exec"), made)

    def found():
        train, test = (made["features"](part).numpy() for part in (images.train_images, images.test_images))
        return knn_accuracy(train, images.train_labels.numpy(), test, images.test_labels.numpy())

    assert found() == pytest.approx(recorded)
    readme = (REPOSITORY / "README.md").read_text()
    (short,) = re.findall(r"```python\n(from safetensors.*?)```", readme, flags=re.DOTALL)
    also: dict = {}
    exec(compile(short.replace(named, f"{tmp_path}/weights/{outcome.id}.safetensors"), "README.md", "exec"), also)
    theirs = also["backbone"].state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in made["backbone"].state_dict().items())
    with torch.no_grad():
        made["backbone"].conv1.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert found() != pytest.approx(recorded)  # the figure depends on the weights
