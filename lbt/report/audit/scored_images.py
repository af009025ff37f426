"""How many test images the published accuracies were counted on, as far as their last digits tell.

An accuracy over N images is a multiple of 100/N %. Over 10,000 images every second figure is a multiple of 0.02 % by
chance, over 5,000 each one is; so a column of figures that are all multiples of it was probably counted on fewer.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy import special

from lbt.config import CONFIG_DIR
from lbt.report.kit import render
from lbt.report.kit.wording import p_value

TABLE = CONFIG_DIR / "table" / "tvlars_table1.csv"
GROUPS = ("task", "dataset", "optimizer")
WHOLE = 10_000  # test images of CIFAR-10 and of Tiny ImageNet
PARTS = (5_000, 2_500)  # a half and a quarter of them: what one of two or of four workers scores
UNLIKELY = 0.001


@dataclass(frozen=True)
class Column:
    """What the last digits of some published accuracies say.

    Attributes:
        name: of the column.
        count: its figures.
        multiples: of 100/N %, for each N of `PARTS`.
        images: the fewest images that give all the figures.
        chance: probability that all of them are multiples of 100/images if 10,000 were scored.
    """

    name: str
    count: int
    multiples: tuple[int, ...]
    images: int
    chance: float

    def said(self) -> str:
        """Returns what follows."""
        if self.images == WHOLE:
            return f"{WHOLE:,} images: {self.count - self.multiples[0]} figures are impossible with fewer"
        if self.chance < UNLIKELY:
            return f"probably {self.images:,} images"
        return f"{self.images:,} images or {WHOLE:,}"


def column(name: str, accuracies: Sequence[str]) -> Column:
    """Returns what some accuracies say.

    Args:
        name: what they have in common.
        accuracies: in %, as printed: decimal texts.

    Raises:
        ValueError: a figure that 10,000 images cannot give.
    """
    counted = [Fraction(text) * WHOLE / 100 for text in accuracies]
    if any(number.denominator != 1 for number in counted):
        raise ValueError(f"{name}: not all figures are multiples of {100 / WHOLE:g} %")
    multiples = tuple(sum(number % (WHOLE // part) == 0 for number in counted) for part in PARTS)
    fitting = [part for part, found in zip(PARTS, multiples, strict=True) if found == len(counted)]
    images = min(fitting, default=WHOLE)
    chance = float(special.bdtrc(len(counted) - 1, len(counted), images / WHOLE))
    return Column(name, len(counted), multiples, images, chance)


def columns(rows: Iterable[Mapping[str, str]], keys: Sequence[str], value: str) -> list[Column]:
    """Returns what each group of a published table's rows says, in the table's order.

    Args:
        rows: as `csv.DictReader` gives them.
        keys: columns that make a group.
        value: the column of accuracies.
    """
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(", ".join(row[key] for key in keys), []).append(row[value])
    return [column(name, accuracies) for name, accuracies in groups.items()]


def section() -> list[str]:
    """Returns the lines of the audit page's section on the published Table 1."""
    with open(TABLE, newline="") as file:
        found = columns(csv.DictReader(file), GROUPS, "accuracy")
    steps = [f"multiples of {100 / part:g} %" for part in PARTS]
    header = ["published figures of", "figures", *steps, "fewest images", "probability by chance", "what follows"]
    rows = [
        [one.name, f"{one.count}", *map(str, one.multiples), f"{one.images:,}", _chance(one), one.said()]
        for one in found
    ]
    aligned = ["---", "---:", *["---:"] * len(PARTS), "---:", "---:", "---"]
    return [*_INTRODUCTION.splitlines(), *render.markdown_table(header, rows, aligned), ""]


def _chance(one: Column) -> str:
    return "-" if one.images == WHOLE else p_value(one.chance)


_INTRODUCTION = f"""\
## What was scored

An accuracy over N images is a multiple of 100/N %: over all {WHOLE:,} test images every second figure is a multiple of
0.02 % by chance, over 5,000 each is. Computed from the published Table 1 (`configs/table/{TABLE.name}`); the
probability is that of all figures of one line being such multiples if {WHOLE:,} images were scored.

In classification of CIFAR-10 TVLARS was probably scored on 5,000 images and LARS and LAMB on {WHOLE:,}, which suggests
another number of GPUs and other batch-norm batches: in classification the released code normalises, and scores, on each
GPU its own part (rows 11 and 13).

"""
