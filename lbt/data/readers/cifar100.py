"""CIFAR-100 (Krizhevsky 2009): the official files."""

from pathlib import Path

from lbt.data import cifar
from lbt.data.cache import Known
from lbt.data.imageset import ImageSet
from lbt.data.sources import source

CLASSES = (  # in label order, as in the files' `meta`
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
OFFICIAL = Known("cifar100 (official)", official=True, classes=CLASSES)


@source
def cifar100(root: Path) -> ImageSet:
    """CIFAR-100, its 100 fine classes: the official files under `root`, else the official download over HTTPS.

    These are `cifar-100-python/` and `cifar-100-python.tar.gz`, their checksums verified before they are opened.

    Raises:
        UserError: a damaged file, or a failed download.
    """
    from torchvision.datasets import CIFAR100

    found = cifar.folder("cifar100", CIFAR100, root, OFFICIAL, "fine_labels")
    if found is not None:
        return found
    otherwise = f"or unpack it there as {CIFAR100.base_folder}"
    return cifar.archive("cifar100", CIFAR100, root, OFFICIAL, "fine_labels", otherwise)
