"""An accuracy is the share of a count, to the last digit that a number has."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from lbt.devices.group import ALONE
from lbt.metrics import percentage
from lbt.tasks.classification import Classification


class Scored:
    """A test set of so many images, each of which is its own logits; the first ones are of their class."""

    def __init__(self, right, images):
        self.test_images = torch.eye(2)[torch.zeros(images, dtype=torch.int64)]
        self.group = ALONE
        self.test_labels = (torch.arange(images) >= right).long()

    def own(self, images, labels):
        yield from zip(images.split(128), labels.split(128), strict=True)


@pytest.mark.parametrize("images", [400, 297])
def test_an_accuracy_is_the_number_nearest_to_its_count(images):
    for right in range(0, images + 1, 3):
        found = Classification().evaluate(nn.Identity(), Scored(right, images), 1, 1)["accuracy"]
        assert found == float(Fraction(100 * right, images))


def test_a_percentage_has_the_digits_of_its_count():
    assert str(percentage(57, 400)) == "14.25"
    assert {len(str(percentage(count, 10_000))) for count in range(10_001)} <= {3, 4, 5}
