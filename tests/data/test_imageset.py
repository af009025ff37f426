from functools import partial

import pytest
import torch

from lbt.data import fingerprint, split_validation, take_subset
from lbt.data.imageset import held_out, image_set
from lbt.errors import UserError


def test_fingerprint_covers_every_pixel_label_and_shape():
    images = torch.zeros(4, 3, 5, 6, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    marks = {fingerprint(images, labels)}
    other = images.clone()
    other[3, 2, 4, 5] = 1
    marks |= {fingerprint(other, labels), fingerprint(images.view(4, 3, 6, 5), labels), fingerprint(labels, images)}
    marks |= {fingerprint(images, torch.tensor([0, 1, 1, 0])), fingerprint(images[:2], labels[:2])}
    assert len(marks) == 6
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert fingerprint(strided, labels) == fingerprint(images, labels)


def test_an_image_set_refuses_what_a_reader_gets_wrong():
    images, labels = torch.zeros(4, 3, 5, 6, dtype=torch.uint8), torch.tensor([0, 1, 0, 2])
    make = partial(image_set, "x", test=(images, labels.clamp(max=1)), classes=("a", "b"), origin="x", official=True)
    for train in ((images.float(), labels), (images[:, :1], labels), (images, labels.int()), (images, labels)):
        with pytest.raises(ValueError, match="must"):
            make(train)


def unequal():
    """A set of 60, 31 and 9 training images whose first pixel is their number."""
    images = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    labels = torch.tensor([0] * 60 + [1] * 31 + [2] * 9)[
        torch.randperm(100, generator=torch.Generator().manual_seed(0))
    ]
    return image_set("x", (images, labels), (images[:3], labels[:3]), ("a", "b", "c"), origin="x", official=True)


def test_split_is_stratified_disjoint_and_complete():
    images = unequal()
    split = split_validation(images, 0.2, seed=1)
    train, held = split.train_images[:, 0, 0, 0].tolist(), split.test_images[:, 0, 0, 0].tolist()
    assert sorted(train + held) == list(range(100))
    assert (train, held) == (sorted(train), sorted(held))
    assert split.test_labels.bincount().tolist() == [12, 6, 2]
    assert torch.equal(split.test_labels, images.train_labels[held])
    assert torch.equal(split.train_labels, images.train_labels[train])
    assert "validation split of 0.2 of the training set, seed 1" in split.origin


def test_split_depends_on_the_seed_alone():
    images = unequal()
    marks = [split_validation(images, 0.2, seed).fingerprint for seed in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2]
    assert images.fingerprint not in marks
    mask = held_out(torch.arange(20) % 2, 4, seed=0)
    assert mask.nonzero().flatten().tolist() == [4, 7, 11, 16]  # on every platform


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 0.001, 0.02, 0.999])
def test_split_that_loses_a_class_is_refused(fraction):
    with pytest.raises(UserError, match=f"validation fraction of {fraction} ") as caught:
        split_validation(unequal(), fraction, 0)
    assert "\n" not in str(caught.value)


def test_a_class_may_be_lost_where_labels_are_not_asked_for():
    images = unequal()
    assert len(split_validation(images, 0.02, 0, every_class=False).test_labels) == 2
    assert len(take_subset(images, 2, 0, every_class=False).train_labels) == 2
    for fraction in (0.001, 0.999):
        with pytest.raises(UserError, match="does not leave any on both sides"):
            split_validation(images, fraction, 0, every_class=False)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_are_none_are_named_by_their_setting(seed):
    with pytest.raises(UserError, match=f"^data.val_seed={seed}: expected a whole number of 0 to 4294967295$"):
        split_validation(unequal(), 0.2, seed)
    with pytest.raises(UserError, match=f"^data.subset_seed={seed}: expected a whole number of 0 to 4294967295$"):
        take_subset(unequal(), 50, seed)
    assert len(take_subset(unequal(), 50, 2**32 - 1).train_labels) == 50
