import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lbt.data import augment
from lbt.data.augment import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD, crop_flip_rotate, normalise, warp

PADDING = 4


def draw(count, height, width, seed=0, degrees=15.0, padding=PADDING):
    """Images without zeros (so that zero fill shows) and a set of parameters each."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (count, 3, height, width), generator=random, dtype=torch.uint8)
    dy, dx = torch.randint(-padding, padding + 1, (2, count), generator=random)
    flip = torch.rand(count, generator=random) < 0.5
    angle = (torch.rand(count, generator=random) * 2 - 1) * degrees
    return images, dy, dx, flip, angle


def torchvision_one(image, dy, dx, flip, angle, padding=PADDING):
    """One image through torchvision, as RandomCrop(H, padding), RandomHorizontalFlip, RandomRotation would."""
    height, width = image.shape[1:]
    image = F.crop(F.pad(image, [padding]), padding + int(dy), padding + int(dx), height, width)
    if flip:
        image = F.horizontal_flip(image)
    return image if angle is None else F.rotate(image, float(angle), interpolation=v2.InterpolationMode.NEAREST)


def reference(images, dy, dx, flip, angle, padding=PADDING):
    angles = [None] * len(images) if angle is None else angle
    each = zip(images, dy, dx, flip, angles, strict=True)
    return torch.stack([torchvision_one(*sample, padding=padding) for sample in each])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14), (64, 64)])
def test_crop_and_flip_equal_torchvision(height, width):
    images, dy, dx, flip, _ = draw(200, height, width)
    assert torch.equal(warp(images, dy, dx, flip, None), reference(images, dy, dx, flip, None))


def test_every_crop_offset_equals_torchvision():
    padding = 7  # of 8 pixels: nearly the whole image can lie outside
    grid = torch.cartesian_prod(*[torch.arange(-padding, padding + 1)] * 2).repeat(2, 1)
    flip = torch.arange(len(grid)) < len(grid) // 2
    images = draw(len(grid), 8, 8)[0]
    expected = reference(images, grid[:, 0], grid[:, 1], flip, None, padding)
    assert torch.equal(warp(images, grid[:, 0], grid[:, 1], flip, None), expected)
    assert torch.equal(warp(images, grid[:, 0], grid[:, 1], flip, torch.zeros(len(grid))), expected)


@pytest.mark.parametrize("degrees", [15.0, 180.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14), (64, 64)])
def test_rotation_equals_torchvision_but_for_rounding_ties(height, width, degrees):
    """A source coordinate within float32's error of a pixel's edge may round either way: at most 1 pixel in 20,000."""
    images, dy, dx, flip, angle = draw(300, height, width, degrees=degrees)
    different = (warp(images, dy, dx, flip, angle) != reference(images, dy, dx, flip, angle)).any(1)
    assert different.float().mean() <= 1 / 20_000


def test_order_is_crop_flip_rotate():
    """The tolerance above would not hide another order: it changes a large part of the pixels."""
    images, dy, dx, flip, angle = draw(100, 32, 32)
    ours = warp(images, dy, dx, flip, angle)
    other = warp(warp(images, dy * 0, dx * 0, flip & False, angle), dy, dx, flip, None)
    assert (ours != other).any(1).float().mean() > 0.05


def test_neither_chunks_nor_memory_layout_change_anything(monkeypatch):
    sample = draw(50, 32, 32)
    expected = warp(*sample), normalise(sample[0])
    monkeypatch.setitem(augment.CHUNK_PIXELS, "cpu", 7 * 32 * 32)
    channels_last = sample[0].contiguous(memory_format=torch.channels_last)
    for images in (sample[0], channels_last):
        assert torch.equal(warp(images, *sample[1:]), expected[0])
        assert torch.equal(normalise(images), expected[1])


def capture(monkeypatch, count, **settings):
    """The parameters that crop_flip_rotate draws."""
    seen = {}

    def spy(images, dy, dx, flip, angle):
        seen.update(dy=dy, dx=dx, flip=flip, angle=angle)
        return images

    monkeypatch.setattr(augment, "warp", spy)
    crop_flip_rotate(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.Generator().manual_seed(3), **settings)
    return seen


def test_parameters_are_uniform_and_drawn_per_sample(monkeypatch):
    count, padding = 90_000, 4
    seen = capture(monkeypatch, count, padding=padding)
    joint = torch.bincount((seen["dy"] + padding) * 9 + seen["dx"] + padding, minlength=81)
    assert len(joint) == 81
    # Chi-square of 81 equally likely pairs: mean 80, standard deviation 12.6; five of them allowed.
    assert ((joint - count / 81) ** 2 / (count / 81)).sum() < 80 + 5 * 12.6
    assert abs(seen["flip"].float().mean() - 0.5) < 5 * 0.5 / count**0.5
    angles = torch.sort(seen["angle"]).values
    assert angles.abs().max() <= 15
    uniform = torch.linspace(-15, 15, count)
    assert (angles - uniform).abs().max() / 30 < 1.95 / count**0.5  # Kolmogorov-Smirnov at 0.1 %
    drawn = torch.stack([seen["dy"].float(), seen["dx"].float(), seen["flip"].float(), seen["angle"]])
    assert (torch.corrcoef(drawn) - torch.eye(4)).abs().max() < 5 / count**0.5


def test_switches_leave_a_part_out(monkeypatch):
    seen = capture(monkeypatch, 100, padding=0, flip=False, degrees=0.0)
    assert not seen["dy"].any()
    assert not seen["dx"].any()
    assert seen["flip"] is None
    assert seen["angle"] is None


@pytest.mark.parametrize("padding", [-1, 8])
def test_padding_out_of_range_is_refused(padding):
    with pytest.raises(ValueError, match="padding must be"):
        crop_flip_rotate(torch.zeros(2, 3, 8, 9, dtype=torch.uint8), torch.Generator(), padding=padding)


@pytest.mark.parametrize("name", ["crop_flip", "crop_flip_rotate"])
def test_generator_state_decides_the_batch(name):
    images = draw(64, 32, 32)[0]
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    first, second = (AUGMENTATIONS[name](images, generator) for _ in range(2))
    generator.set_state(state)
    assert torch.equal(AUGMENTATIONS[name](images, generator), first)
    assert not torch.equal(first, second)


def test_the_names_do_what_they_say():
    images, generator = draw(64, 32, 32)[0], torch.Generator().manual_seed(1)
    state = generator.get_state()
    assert AUGMENTATIONS["none"](images, generator) is images
    assert torch.equal(generator.get_state(), state)
    rotated = AUGMENTATIONS["crop_flip_rotate"](images, generator)
    generator.set_state(state)
    upright = AUGMENTATIONS["crop_flip"](images, generator)
    for batch, straight in ((upright, True), (rotated, False)):  # a crop blanks whole rows and columns
        blank = (batch == 0).all(1)
        assert blank.any()
        assert torch.equal(blank, blank.all(2, keepdim=True) | blank.all(1, keepdim=True)) is straight


def test_the_input_stays_as_it_is():
    images = draw(16, 32, 32)[0]
    before = images.clone()
    normalise(crop_flip_rotate(images, torch.Generator()))
    assert torch.equal(images, before)


def test_normalise_is_torchvisions():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16).repeat(5, 1, 1, 1)
    expected = F.normalize(F.to_dtype(images, torch.float32, scale=True), IMAGENET_MEAN, IMAGENET_STD)
    ours = normalise(images)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    half = normalise(images, dtype=torch.bfloat16)
    assert torch.equal(half, ours.bfloat16())
    assert half.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu_without_a_host_sync():
    sample = draw(3000, 32, 32)
    there = [item.cuda() for item in sample]
    generator = torch.Generator("cuda").manual_seed(0)
    normalise(crop_flip_rotate(there[0], generator), dtype=torch.bfloat16)
    torch.cuda.set_sync_debug_mode("error")
    try:
        upright, rotated = warp(*there[:4], None), warp(*there)
        normal = normalise(crop_flip_rotate(there[0], generator), dtype=torch.bfloat16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert normal.dtype == torch.bfloat16
    assert torch.equal(upright.cpu(), warp(*sample[:4], None))
    assert (rotated.cpu() != warp(*sample)).any(1).float().mean() <= 1 / 20_000
    torch.testing.assert_close(normalise(there[0]).cpu(), normalise(sample[0]), rtol=1e-6, atol=1e-6)
