"""What torchvision does not say of its data sets: where their files lie, and which part is trained and tested on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_SPLIT = ({"split": "train"}, {"split": "test"})
_TRAIN = ({"train": True}, {"train": False})


@dataclass(frozen=True)
class Parts:
    """A data set's two parts.

    Attributes:
        places: its files and folders below torchvision's `root`.
        arguments: of torchvision's class, for what is trained on and for what is tested on.
        said: the parts in words, and those that are not used.
        checked: whether torchvision compares the checksums of all files before it reads them.
        samples: gives (file, label) of a data set of image files that has no `loader`.
    """

    places: tuple[str, ...]
    arguments: tuple[dict[str, Any], dict[str, Any]] = _SPLIT
    said: str = "train and test parts"
    checked: bool = False
    samples: Callable[[Any], Iterable[tuple[Any, int]]] | None = None


PARTS = {
    "CIFAR10": Parts(("cifar-10-batches-py",), _TRAIN, checked=True),
    "CIFAR100": Parts(("cifar-100-python",), _TRAIN, checked=True),
    "Country211": Parts(("country211",), said="train and test parts, valid unused"),
    "DTD": Parts(("dtd",), said="train and test parts of partition 1, val unused"),
    "EMNIST": Parts(("EMNIST",), _TRAIN),
    "FGVCAircraft": Parts(
        ("fgvc-aircraft-2013b",), ({"split": "trainval"}, {"split": "test"}), "trainval and test parts"
    ),
    "FashionMNIST": Parts(("FashionMNIST",), _TRAIN),
    "Flowers102": Parts(("flowers-102",), said="train and test parts, val unused"),
    "Food101": Parts(("food-101",)),
    "GTSRB": Parts(("gtsrb",), samples=lambda found: found._samples),
    "KMNIST": Parts(("KMNIST",), _TRAIN),
    "MNIST": Parts(("MNIST",), _TRAIN),
    "OxfordIIITPet": Parts(
        ("oxford-iiit-pet",),
        ({"split": "trainval"}, {"split": "test"}),
        "trainval and test parts",
        samples=lambda found: zip(found._images, found._labels, strict=True),
    ),
    "QMNIST": Parts(("QMNIST",), _TRAIN),
    "RenderedSST2": Parts(("rendered-sst2",), said="train and test parts, val unused"),
    "STL10": Parts(("stl10_binary",), said="train and test parts, unlabeled unused", checked=True),
    "SVHN": Parts(("train_32x32.mat", "test_32x32.mat"), said="train and test parts, extra unused", checked=True),
    "StanfordCars": Parts(("stanford_cars",)),
    "USPS": Parts(("usps.bz2", "usps.t.bz2"), _TRAIN),
}

NO_TEST_PART = ("Caltech101", "Caltech256", "EuroSAT", "INaturalist", "Places365", "SEMEION", "SUN397")
