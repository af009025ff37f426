import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as one  # of one image; Pillow's, where it is given a Pillow image
from torchvision.transforms.v2 import functional as F

from lbt.data import pixels, views
from lbt.data.augment import AUGMENTATIONS
from lbt.data.views import FIRST_VIEW, SECOND_VIEW, draw_crop, draw_look, look, resized_crop, two_views

BICUBIC, BILINEAR = one.InterpolationMode.BICUBIC, one.InterpolationMode.BILINEAR


def noise(count, height=32, width=32, seed=0):
    """Pixels without any relation to their neighbours: the hardest case of every filter."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=random, dtype=torch.uint8)


@pytest.fixture(scope="module")
def images(request):
    """60 natural images, CIFAR-10's where they exist, and 12 of noise: uint8 [72, 3, 32, 32]."""
    try:
        files = sorted((request.getfixturevalue("real_data") / "cifar10" / "test").glob("*/*"))
        natural = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files[:: len(files) // 60][:60]])
        natural = torch.from_numpy(natural).permute(0, 3, 1, 2)
    except pytest.skip.Exception:
        coarse = torch.rand(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        natural = F.resize((coarse * 255).byte(), [32, 32], BICUBIC)
    return torch.cat((natural, noise(12)))


def uniform(count, low, high, seed):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def planes(images):
    """As float32, in the memory layout that `two_views` works in."""
    return images.transpose(0, 1).float().contiguous().transpose(0, 1)


def worst(ours, expected):
    return (ours.double() - expected.double()).abs().max().item()


def boxes(count, height, width, seed=0):
    """Drawn boxes, and first the whole image, its corners' pixels and a row, half of all mirrored."""
    drawn = draw_crop(count, height, width, torch.Generator().manual_seed(seed))
    hand = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1), (height // 2, 0, 1, width)]
    for row, each in enumerate(hand):
        for values, value in zip(drawn, each, strict=False):
            values[row] = value
    return drawn


def pillow_crop(image, crop, row, mode):
    top, left, height, width = (int(values[row]) for values in crop[:4])
    cropped = one.resized_crop(pillow(image), top, left, height, width, [*image.shape[1:]], mode)
    return one.hflip(cropped) if crop.flip[row] else cropped


@pytest.mark.parametrize(("kernel", "mode"), [(pixels.bicubic, BICUBIC), (pixels.bilinear, BILINEAR)])
def test_resized_crop_is_pillows_to_one_grey_level(images, kernel, mode):
    """Pillow rounds after the rows and after the columns, so a level is as close as unrounded values can come."""
    for batch in (images, noise(40, 9, 14, seed=1), noise(20, 64, 64, seed=2)):
        crop = boxes(len(batch), *batch.shape[2:])
        expected = torch.stack([tensor(pillow_crop(image, crop, row, mode)) for row, image in enumerate(batch)])
        ours = resized_crop(batch.float(), crop, kernel)
        assert ours.min() >= 0 and ours.max() <= 255
        assert worst(ours.round(), expected) <= 1
        assert (ours - expected).abs().mean() < 0.35  # 0.25 is rounding once


def test_blur_is_pillows(images):
    """Pillow rounds after each of its six passes: at most 3 levels away and 0.7 on average, to neither side."""
    for batch in (images, noise(20, 9, 14, seed=1)):
        sigma = uniform(len(batch), 0.1, 2.0, seed=0)
        sigma[:3] = torch.tensor([0.1, 1.0, 2.0])
        filters = [ImageFilter.GaussianBlur(value) for value in sigma.tolist()]
        expected = torch.stack([tensor(pillow(i).filter(f)) for i, f in zip(batch, filters, strict=True)])
        rows, columns = (pixels.blurring(sigma, size) for size in batch.shape[2:])
        ours = pixels.separable(batch.float(), rows, columns)
        assert worst(ours, expected) <= 3
        assert (ours - expected).abs().mean() < 0.7 and (ours - expected).mean().abs() < 0.05


def test_blur_is_nearly_torchvisions(images):
    """Here are three box filters of the Gaussian's variance; torchvision samples its density, narrow ones badly."""
    sigma = uniform(len(images), 0.7, 2.0, seed=0)
    each = zip(images.float(), sigma.tolist(), strict=True)
    expected = torch.stack([F.gaussian_blur(image, [17, 17], [value, value]) for image, value in each])
    matrices = pixels.blurring(sigma, 32)
    far = (pixels.separable(images.float(), matrices, matrices) - expected).abs()
    inner = far[:, :, 8:-8, 8:-8]  # torchvision mirrors at the edges, Pillow repeats the last pixel
    assert inner[:60].max() < 8 and inner[:60].mean() < 0.7  # natural images
    assert inner[60:].max() < 16


def test_blur_has_the_variance_and_keeps_the_mean():
    sigma = torch.tensor([0.0, 0.1, 0.5, 1.0, 1.5, 2.0])
    matrices = pixels.blurring(sigma, 33).double()
    torch.testing.assert_close(matrices.sum(2), torch.ones(6, 33).double(), rtol=0, atol=1e-6)
    variance = (matrices[:, 16] * (torch.arange(33) - 16) ** 2).sum(1)
    torch.testing.assert_close(variance, sigma.double() ** 2, rtol=1e-5, atol=1e-6)
    assert torch.equal(matrices[0], torch.eye(33).double())


ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def draw_factors(count, seed=0):
    """Wider than the recipe's: factors 0 to 2, hue shifts of up to half a turn."""
    factors = uniform(count * 3, 0, 2, seed).view(count, 3)
    return factors, uniform(count, -0.5, 0.5, seed + 1)


@pytest.mark.parametrize("operation", [pixels.BRIGHTNESS, pixels.CONTRAST, pixels.SATURATION])
def test_blends_are_torchvisions(images, operation):
    """Within 0.03 levels: torchvision's tensor kernels weigh red by 0.2989, Pillow and we by 0.299."""
    factor = draw_factors(len(images))[0][:, 0]
    each = zip(images.float() / 255, factor.tolist(), strict=True)
    expected = torch.stack([ADJUST[operation](image, value) for image, value in each]) * 255
    assert worst(pixels.blend_(images.float(), factor, torch.full((len(images),), operation)), expected) < 0.03


def test_hue_is_torchvisions(images):
    """Pure, equal and black colours included: every combination of five values."""
    colours = torch.tensor([*itertools.product((0, 1, 100, 254, 255), repeat=3)] * 9)[:1024]  # 125, repeated
    batch = torch.cat((images.float(), colours.T.reshape(1, 3, 32, 32).float().expand(8, -1, -1, -1)))
    shift = draw_factors(len(batch))[1]
    shift[-3:] = torch.tensor([-0.5, 0.0, 0.5])
    each = zip(batch / 255, shift.tolist(), strict=True)
    expected = torch.stack([F.adjust_hue(image, value) for image, value in each]) * 255
    assert worst(pixels.rotate_hue_(batch.clone(), shift), expected) < 1e-2


def test_jitter_follows_each_samples_order(images):
    """All 24 orders in one batch; a wrong one differs by tens of levels."""
    batch = images[:72].float()
    factors, hue = draw_factors(72)
    factors, hue = 0.6 + 0.4 * factors, 0.2 * hue
    order = torch.tensor([*itertools.permutations(range(4))] * 3)
    values = torch.cat((factors, hue[:, None]), 1).tolist()
    expected = []
    for image, numbers, turns in zip(batch / 255, values, order.tolist(), strict=True):
        for turn in turns:
            image = ADJUST[turn](image, numbers[turn])
        expected.append(image * 255)
    expected = torch.stack(expected)
    assert worst(pixels.jitter_(batch.clone(), factors, hue, order), expected) < 0.2
    assert worst(pixels.jitter_(batch.clone(), factors, hue, order.roll(1, 0)), expected) > 10


@pytest.mark.parametrize(
    ("ours", "theirs", "far"),
    [(pixels.greyscale_, lambda image: one.to_grayscale(image, 3), 0.51), (pixels.solarize_, ImageOps.solarize, 0)],
)
def test_grey_and_solarized_are_pillows(images, ours, theirs, far):
    chosen = torch.arange(len(images)) % 2 == 0
    expected = torch.stack([tensor(theirs(pillow(image))) for image in images])
    result = ours(images.float(), chosen)
    assert torch.equal(result[~chosen], images[~chosen].float())
    assert worst(result[chosen], expected[chosen]) <= far  # Pillow rounds


def test_solarisation_decides_as_after_rounding():
    x = torch.tensor([127.4, 127.6, 128.0]).expand(1, 3, 1, 3).clone()
    assert torch.equal(pixels.solarize_(x, torch.tensor([True])).round()[0, 0, 0], torch.tensor([127.0, 127.0, 127.0]))


def official(image, crop, chosen, row):
    """A view by Pillow and torchvision's Pillow functions, in the order of the official Barlow Twins code."""
    view = pillow_crop(image, crop, row, BICUBIC)
    adjust = [one.adjust_brightness, one.adjust_contrast, one.adjust_saturation, one.adjust_hue]
    numbers = [*chosen.factors[row].tolist(), chosen.hue[row].item()]
    for turn in chosen.order[row].tolist() if numbers != [1, 1, 1, 0] else []:
        view = adjust[turn](view, numbers[turn])
    if chosen.grey[row]:
        view = one.to_grayscale(view, 3)
    if chosen.sigma[row]:
        view = view.filter(ImageFilter.GaussianBlur(chosen.sigma[row].item()))
    return tensor(ImageOps.solarize(view) if chosen.solarize[row] else view)


def test_two_views_are_the_official_recipe(images):
    """Pillow rounds after every step and has 256 hues: 1.2 levels apart on average, 99 % of the pixels at most 4."""
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    ours = two_views(images, generator)
    generator.set_state(state)
    assert ours.shape == (72, 2, 3, 32, 32) and ours.dtype == torch.uint8
    for view, recipe in enumerate((FIRST_VIEW, SECOND_VIEW)):
        crop, chosen = draw_crop(72, 32, 32, generator), draw_look(72, generator, recipe)
        expected = torch.stack([official(image, crop, chosen, row) for row, image in enumerate(images)])
        far = (ours[:, view].float() - expected.float()).abs()
        folded = torch.minimum(far, (255 - ours[:, view].float() - expected.float()).abs())  # 127 or 128, solarised
        assert folded.mean() < 1.5 and folded.quantile(0.99) <= 5 and folded.max() <= 20
        assert (far > folded).float().mean() < 0.01


def test_linear_probe_crops_are_bilinear(images):
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    ours = AUGMENTATIONS["resized_crop_flip"](images, generator)
    crop = draw_crop(72, 32, 32, generator.set_state(state))
    expected = torch.stack([tensor(pillow_crop(image, crop, row, BILINEAR)) for row, image in enumerate(images)])
    assert ours.dtype == torch.uint8 and worst(ours, expected) <= 1
    assert (ours.float() - expected).mean().abs() < 0.05  # rounded, not cut off


def smirnov(a, b):
    """Whether two samples may be of one distribution: Kolmogorov-Smirnov at 0.1 %."""
    a, b = a.double().sort().values, b.double().sort().values
    points = torch.cat((a, b))
    gap = torch.searchsorted(a, points, right=True) / len(a) - torch.searchsorted(b, points, right=True) / len(b)
    return gap.abs().max() < 1.95 * (1 / len(a) + 1 / len(b)) ** 0.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (10, 40), (40, 10), (24, 30)])
def test_boxes_are_drawn_as_torchvision_draws_them(height, width):
    """In the narrow images a large part of the boxes is the central one that ten misses end in."""
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, views.CROP_SCALE, views.CROP_RATIO) for _ in range(3000)]
    theirs = torch.tensor(theirs).T.float()
    ours = torch.stack(draw_crop(60_000, height, width, torch.Generator().manual_seed(1))[:4])
    for here, there in zip(ours, theirs, strict=True):
        assert smirnov(here, there)
    assert smirnov(ours[2] * ours[3], theirs[2] * theirs[3])
    assert smirnov(ours[3] / ours[2], theirs[3] / theirs[2])
    assert (ours[:2] >= 0).all() and (ours[2:] > 0).all()
    assert (ours[0] + ours[2] <= height).all() and (ours[1] + ours[3] <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(10, 40, (3 / 4, 4 / 3)), (41, 10, (3 / 4, 4 / 3)), (9, 9, (1, 1))]
)
def test_ten_misses_end_in_torchvisions_central_box(height, width, ratio):
    scale = (20.0, 30.0)  # never fits
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), scale, ratio)
    drawn = draw_crop(5, height, width, torch.Generator(), scale, ratio)
    assert torch.equal(torch.stack(drawn[:4], 1), torch.tensor(expected).float().expand(5, 4))


@pytest.mark.parametrize(("recipe", "blur", "solarize"), [(FIRST_VIEW, 1.0, 0.0), (SECOND_VIEW, 0.1, 0.2)])
def test_looks_have_the_recipes_shares_and_ranges(recipe, blur, solarize):
    count = 48_000
    drawn = draw_look(count, torch.Generator().manual_seed(2), recipe)
    flip = draw_crop(count, 32, 32, torch.Generator().manual_seed(2)).flip
    changed = drawn.hue != 0
    shares = [(flip, 0.5), (changed, 0.8), (drawn.grey, 0.2), (drawn.sigma > 0, blur), (drawn.solarize, solarize)]
    for mask, share in shares:
        assert abs(mask.float().mean() - share) <= 5 * (share * (1 - share) / count) ** 0.5
    assert (drawn.factors[~changed] == 1).all()
    values = [*drawn.factors[changed].T, drawn.hue[changed], drawn.sigma[drawn.sigma > 0]]
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), (0.1, 2.0)]
    for seen, (low, high) in zip(values, ranges, strict=True):
        assert smirnov(seen, torch.linspace(low, high, 1_000_000))
        assert seen.min() >= low - 1e-6 and seen.max() <= high + 1e-6
    orders = torch.bincount((drawn.order * torch.tensor([64, 16, 4, 1])).sum(1), minlength=256)
    assert (orders > 0).sum() == 24
    # Chi-square of 24 equally likely orders: mean 23, standard deviation 6.8; five of them allowed.
    assert ((orders[orders > 0] - count / 24) ** 2 / (count / 24)).sum() < 23 + 5 * 6.8
    columns = [flip, changed, drawn.grey, drawn.solarize, drawn.order[:, 0] == 3, drawn.sigma, *drawn.factors.T]
    drawn = torch.stack([column.float() for column in columns if column.float().std() > 0])
    assert (torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().tril(-1)[:-3].max() < 5 / count**0.5


def test_the_views_share_no_draws(images):
    """Equal images have different views, between samples and between the two of one."""
    ours = two_views(images[:1].expand(8, -1, -1, -1), torch.Generator().manual_seed(0)).flatten(0, 1)
    assert len(torch.unique(ours.flatten(1), dim=0)) == 16


def test_a_batch_is_its_samples_one_by_one(images):
    crop, chosen = draw_crop(72, 32, 32, torch.Generator()), draw_look(72, torch.Generator(), SECOND_VIEW)

    def view(x, part):
        crops, looks = (type(each)(*(row[part] for row in each)) for each in (crop, chosen))
        return look(resized_crop(x[part], crops, pixels.bicubic), looks, SECOND_VIEW)

    batch = view(images.float(), slice(None))
    single = torch.cat([view(images.float(), slice(row, row + 1)) for row in range(72)])
    for other in (single, view(planes(images), slice(None))):
        assert ((batch - other).abs() < 1e-2).float().mean() > 0.9999  # but for solarisation on the threshold


@pytest.mark.parametrize("name", ["barlow_twins", "resized_crop_flip"])
def test_the_generators_state_decides_the_batch_and_chunks_do_not(images, name, monkeypatch):
    augment, before = AUGMENTATIONS[name], images.clone()
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    first = augment(images, generator)
    after = generator.get_state()
    second = augment(images, generator)
    assert torch.equal(augment(images, generator.set_state(state)), first)
    assert not torch.equal(first, second)
    monkeypatch.setitem(views.CHUNK_PIXELS, "cpu", 7 * 32 * 32)
    chunked = augment(images, generator.set_state(state))
    assert torch.equal(generator.get_state(), after)
    assert (chunked != first).float().mean() < 1e-4  # sums of another length may round a tie differently
    assert torch.equal(images, before)
    assert first.is_contiguous()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (9, 14), (1, 5)])
def test_images_keep_their_size(height, width):
    batch = noise(5, height, width)
    assert AUGMENTATIONS["resized_crop_flip"](batch, torch.Generator()).shape == batch.shape
    if height > 1:
        assert two_views(batch, torch.Generator()).shape == (5, 2, 3, height, width)


def test_grey_images_are_refused_by_two_views():
    with pytest.raises(ValueError, match="3 channels, not 1"):
        two_views(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.Generator())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu_without_a_host_sync(images):
    generator, there = torch.Generator("cuda").manual_seed(0), images.cuda()
    two_views(there, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        crop, chosen = draw_crop(72, 32, 32, generator), draw_look(72, generator, SECOND_VIEW)
        x = planes(there)
        ours = look(resized_crop(x, crop, pixels.bicubic), chosen, SECOND_VIEW)
        for name in ("barlow_twins", "resized_crop_flip"):
            AUGMENTATIONS[name](there, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    crop, chosen = (type(each)(*(row.cpu() for row in each)) for each in (crop, chosen))
    expected = look(resized_crop(planes(images), crop, pixels.bicubic), chosen, SECOND_VIEW)
    assert ((ours.cpu() - expected).abs() < 1e-2).float().mean() > 0.9999


@pytest.mark.parametrize("name", ["barlow_twins", "resized_crop_flip"])
def test_autocast_around_the_augmentation_changes_nothing(images, name):
    plain = AUGMENTATIONS[name](images, torch.Generator().manual_seed(5))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(AUGMENTATIONS[name](images, torch.Generator().manual_seed(5)), plain)
