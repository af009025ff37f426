import csv

import pytest

from lbt.config import CONFIG_DIR
from lbt.report.audit.scored_images import column, columns, section


def published(*keys):
    with open(CONFIG_DIR / "table" / "tvlars_table1.csv", newline="") as file:
        return {one.name: one for one in columns(csv.DictReader(file), keys, "accuracy")}


def test_figures_of_a_part_are_told_from_those_of_the_whole():
    half = column("half", ["0.02", "50.00", "79.98"])
    assert (half.images, half.multiples) == (5_000, (3, 1)) and half.chance == pytest.approx(1 / 8)
    assert half.said() == "5,000 images or 10,000"
    assert column("whole", ["0.02", "50.01"]).images == 10_000
    quarter = column("quarter", ["0.04", "12.00"] * 10)
    assert quarter.images == 2_500 and quarter.chance == pytest.approx(0.25**20)
    assert quarter.said() == "probably 2,500 images"


def test_a_figure_of_more_digits_than_images_can_give_is_refused():
    with pytest.raises(ValueError, match=r"multiples of 0\.01 %"):
        column("x", ["50.005"])


def test_tvlars_on_cifar10_was_scored_on_other_images_than_lars_and_lamb():
    found = published("task", "dataset", "optimizer")
    tvlars = found["classification, cifar10, tvlars"]
    assert tvlars.images == 5_000 and tvlars.chance == pytest.approx(2**-18)
    others = [found[f"classification, cifar10, {name}"] for name in ("lars", "lamb")]
    assert [one.images for one in others] == [10_000, 10_000]
    assert sum(one.count - one.multiples[0] for one in others) == 14


def test_all_of_tiny_imagenet_was_scored_on_a_quarter():
    found = published("task", "dataset")["classification, tiny_imagenet"]
    assert (found.count, found.images, found.multiples) == (54, 2_500, (54, 54))


def test_the_section_has_a_line_for_each_group_of_the_table():
    lines = [line for line in section() if line.startswith("| ")]
    assert len(lines) == 2 + 12
    assert "| classification, cifar10, tvlars | 18 | 18 | 9 | 5,000 | < 0.0001 | probably 5,000 images |" in lines
    (lars,) = [line for line in lines if line.startswith("| classification, cifar10, lars |")]
    assert "10,000 images" in lars and "| - |" in lars
