import pytest
import torch
from support import configure, run_tiny

from lbt import build, records
from lbt.data import load, split_validation, take_subset
from lbt.errors import UserError
from lbt.identity import identity


def test_a_subset_keeps_the_classes_proportions_the_order_and_the_test_set():
    full = load("digits")
    part = take_subset(full, 300, seed=1)
    shares = full.train_labels.bincount() * 300 / len(full.train_labels)
    assert len(part.train_labels) == 300 and (part.train_labels.bincount() - shares).abs().max() <= 1
    place = {image.numpy().tobytes(): index for index, image in enumerate(full.train_images)}
    found = [place[image.numpy().tobytes()] for image in part.train_images]
    assert found == sorted(found) and torch.equal(full.train_labels[found], part.train_labels)
    assert torch.equal(part.test_images, full.test_images) and torch.equal(part.test_labels, full.test_labels)
    assert part.origin.endswith("stratified subset of 300 training images, seed 1") and part.official == full.official


def test_the_seed_decides_which():
    full = load("digits")
    marks = [take_subset(full, 300, seed).fingerprint for seed in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2] and full.fingerprint not in marks


@pytest.mark.parametrize("count", [9, 1437, 5000])
def test_a_subset_that_is_none_is_one_line(count):
    with pytest.raises(UserError, match=f"data.subset={count}: digits has 1437 training images of 10 classes"):
        take_subset(load("digits"), count, 0)


def test_the_setting_is_off_by_default_and_then_absent_from_the_identity():
    keys = {"subset", "subset_seed"}
    assert not keys & set(identity(configure("data=digits"))["data"])
    assert identity(configure("data=digits", "data.subset=300"))["data"]["subset"] == 300
    with pytest.raises(UserError, match=r"data\.subset=-1: expected a number of images"):
        configure("data=digits", "data.subset=-1")


def test_validation_is_held_out_of_the_subset():
    config = configure("data=digits", "data.subset=300", "data.subset_seed=1", "data.val=0.2")
    wanted = split_validation(take_subset(load("digits"), 300, 1), 0.2, 0)
    assert build.images(config).fingerprint == wanted.fingerprint
    assert (len(wanted.train_labels), len(wanted.test_labels)) == (240, 60)


def test_a_run_says_that_it_saw_a_subset(tmp_path):
    made = records.read(run_tiny(tmp_path, "data.subset=32").path).run["provenance"]
    assert made["train_images"] == 32 and "stratified subset of 32 training images, seed 0" in made["data"]
