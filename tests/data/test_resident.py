import pytest
import torch

from lbt.data.resident import ResidentData
from lbt.errors import UserError


@pytest.mark.parametrize("side", [1, 4])
def test_images_too_small_for_their_crop_are_told_before_the_first_update(side):
    images, labels = torch.zeros(4, 3, side, side, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    options = {"batch": 2, "last_batch": "keep", "seed": 0}
    expected = rf"^data\.augment=crop_flip: padding must be less than the images' sides: 4, for {side}x{side} pixels$"
    with pytest.raises(UserError, match=expected):
        ResidentData(images, labels, augment="crop_flip", **options)
    for augment in ("none", "barlow_twins", "resized_crop_flip"):
        assert len(list(ResidentData(images, labels, augment=augment, **options).batches())) == 2


def test_the_check_draws_nothing_from_the_runs_generator():
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    data = ResidentData(images, labels, batch=2, last_batch="keep", augment="crop_flip", seed=3)
    assert torch.equal(data.generator.get_state(), torch.Generator().manual_seed(3).get_state())
