"""What every data set becomes: four tensors in memory, their class names, where they came from, and a fingerprint.

A data set of text is one whose "images" are sequences of tokens: `form` says what its samples are.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lbt.data.forms import PICTURES, Form, Tokens
from lbt.data.vocabulary import Vocabulary
from lbt.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """A data set of labelled images, or of token sequences, decoded.

    Attributes:
        name: the name it was asked for by.
        train_images: uint8 [N, 3, H, W], RGB; `lbt.data.streaming.Files` where memory cannot hold them. Of text:
            int32 [N, L], token numbers.
        train_labels: int64 [N], 0 to len(classes) - 1.
        test_images: likewise, of M samples.
        test_labels: int64 [M].
        classes: class names in label order.
        origin: provenance in words, shown in every record, e.g. "cifar10 (unofficial: image folder, JPEG)".
        official: whether these are the data set's own pixels rather than somebody's copy or collection.
        fingerprint: first 16 hex digits of the SHA-256 of shapes, pixels and labels; see `fingerprint`.
        form: what the samples are.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    origin: str
    official: bool
    fingerprint: str
    form: Form = PICTURES


def fingerprint(*tensors: Tensor) -> str:
    """Returns 16 hex digits of the SHA-256 over each tensor's type, shape and little-endian bytes, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.numpy())
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{array.dtype.name}{list(array.shape)};".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()[:16]


def image_set(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    *,
    origin: str,
    official: bool,
) -> ImageSet:
    """Makes an `ImageSet` of (images, labels) pairs and fingerprints it; a reader's last line.

    Args:
        name: the data set's name.
        train: uint8 [N, 3, H, W] and int64 [N].
        test: uint8 [M, 3, H, W] and int64 [M].
        classes: class names in label order.
        origin: provenance in words.
        official: whether these are the data set's own pixels.

    Raises:
        ValueError: shapes, types or labels are not those of an `ImageSet`: a mistake in the reader.
    """
    for images, labels in (train, test):
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{name}: images must be uint8 [N, 3, H, W], not {images.dtype} {list(images.shape)}")
        _check_labels(name, images, labels, classes)
    mark = fingerprint(*train, *test)
    return ImageSet(name, *train, *test, tuple(classes), origin, official, mark)


def _check_labels(name: str, samples: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    if labels.dtype != torch.int64 or labels.shape != samples.shape[:1]:
        raise ValueError(f"{name}: labels must be int64 [{len(samples)}], not {labels.dtype} {list(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError(f"{name}: labels must lie in 0 to {len(classes) - 1}")


def token_set(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    *,
    vocabulary: Vocabulary,
    origin: str,
    official: bool = False,
) -> ImageSet:
    """Makes the data set of (token sequences, labels) pairs and fingerprints it with the vocabulary.

    Args:
        name: the data set's name.
        train: int32 [N, L], numbers of the vocabulary's tokens, and int64 [N].
        test: int32 [M, L] and int64 [M].
        classes: class names in label order.
        vocabulary: of the tokens.
        origin: provenance in words.
        official: whether this is the data set's own text.

    Raises:
        ValueError: shapes, types, labels or tokens are not those of a token set: a mistake in the reader.
    """
    for tokens, labels in (train, test):
        if tokens.dtype != torch.int32 or tokens.dim() != 2:
            raise ValueError(f"{name}: tokens must be int32 [N, L], not {tokens.dtype} {list(tokens.shape)}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary.size:
            raise ValueError(f"{name}: tokens must lie in 0 to {vocabulary.size - 1}")
        _check_labels(name, tokens, labels, classes)
    form = Tokens(vocabulary)
    return ImageSet(name, *train, *test, tuple(classes), origin, official, _marked(form, *train, *test), form)


def _marked(form: Form, *tensors: Tensor) -> str:
    """Returns the fingerprint of a data set's tensors and of what they mean."""
    return fingerprint(*tensors, *form.marks)


def _remade(images: ImageSet, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], told: str) -> ImageSet:
    """Returns a data set of other parts of a set's samples, whose origin tells so."""
    parts = {"train_images": train[0], "train_labels": train[1], "test_images": test[0], "test_labels": test[1]}
    mark = _marked(images.form, *parts.values())
    return replace(images, **parts, origin=f"{images.origin}, {told}", fingerprint=mark)


def augmented_shape(images: ImageSet, augment: Callable[..., Tensor]) -> Sequence[int]:
    """Returns the shape of one view of an augmented training sample, [C, H, W] of an image."""
    return images.form.shape(augment(images.train_images[torch.tensor([0])], torch.Generator()))


def _check_seed(setting: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"{setting}={seed}: expected a whole number of 0 to {2**32 - 1}")


def held_out(labels: Tensor, count: int, seed: int) -> Tensor:
    """Chooses `count` samples at random, each class in proportion to its size (largest remainder).

    The random stream is NumPy's frozen MT19937 one, so a seed means the same samples on every platform and version.

    Args:
        labels: int64 [N].
        count: number of samples to choose, at most N.
        seed: of the choice.

    Returns:
        bool [N], true for the chosen ones.
    """
    names, members, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    share, remainder = np.divmod(sizes * count, sizes.sum())
    share[np.argsort(-remainder, kind="stable")[: count - share.sum()]] += 1
    random = np.random.RandomState(seed)  # Generator's streams may change between releases
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for index in range(len(names)):
        own = np.flatnonzero(members == index)
        chosen[torch.from_numpy(own[random.permutation(len(own))[: share[index]]])] = True
    return chosen


def split_validation(images: ImageSet, fraction: float, seed: int, *, every_class: bool = True) -> ImageSet:
    """Takes a stratified validation set off the training set, in the place of the test set.

    Args:
        images: the full data set; its test set is dropped, so that nothing can be tuned on it.
        fraction: of the training images to hold out, between 0 and 1; rounded to a whole number of images.
        seed: of the choice; the same seed gives the same images on every platform.
        every_class: whether both sides need images of every class.

    Returns:
        A data set whose `test_*` are the held-out images; both parts keep their order, `origin` names the split.

    Raises:
        UserError: no image, or with `every_class` no image of some class, is left on one of the sides.
    """
    if not isinstance(images.train_images, Tensor):
        raise UserError(f"data.val={fraction}: {images.name} is not held in memory; make a val/ folder of its own")
    _check_seed("data.val_seed", seed)
    labels = images.train_labels
    count = round(len(labels) * fraction) if 0 < fraction < 1 else 0
    mask = held_out(labels, count, seed) if count else torch.zeros_like(labels, dtype=torch.bool)
    needed = len(labels.unique()) if every_class else 1
    if any(len(labels[side].unique()) < needed for side in (mask, ~mask)):
        raise UserError(
            f"a validation fraction of {fraction} of {images.name}'s {len(labels)} training {images.form.noun} does "
            f"not leave {'every class' if every_class else 'any'} on both sides: choose one between 0 and 1 that does"
        )
    return _remade(
        images,
        (images.train_images[~mask], labels[~mask]),
        (images.train_images[mask], labels[mask]),
        f"validation split of {fraction:g} of the training set, seed {seed}",
    )


def scored_part(images: ImageSet, every: int) -> ImageSet:
    """Leaves one image in `every` of the test set, in its order and from the first one on: one worker's share of it.

    The fingerprint stays that of all pixels: which of them are scored is a setting of the run.

    Args:
        images: the full data set.
        every: images of the test set to each one that is scored.
    """
    return replace(
        images,
        test_images=images.test_images[::every],
        test_labels=images.test_labels[::every],
        origin=f"{images.origin}, one test {images.form.noun[:-1]} in {every} scored",
    )


def take_subset(images: ImageSet, count: int, seed: int, *, every_class: bool = True) -> ImageSet:
    """Keeps a stratified part of the training set; the test set stays as it is.

    Args:
        images: the full data set.
        count: training images to keep, each class in proportion to its size.
        seed: of the choice; the same seed gives the same images on every platform.
        every_class: whether each class needs an image.

    Returns:
        A data set in the full one's order, whose `origin` names the part.

    Raises:
        UserError: the images are not held in memory, the training set is not larger, or with `every_class` a class
            would be left without an image.
    """
    if not isinstance(images.train_images, Tensor):
        raise UserError(f"data.subset={count}: {images.name} is not held in memory; make a folder of so many images")
    _check_seed("data.subset_seed", seed)
    labels = images.train_labels
    mask = held_out(labels, count, seed) if 0 < count < len(labels) else torch.zeros_like(labels, dtype=torch.bool)
    if len(labels[mask].unique()) < (len(labels.unique()) if every_class else 1):
        classes, enough = f" of {len(labels.unique())} classes", ", and enough for every class"
        raise UserError(
            f"data.subset={count}: {images.name} has {len(labels)} training {images.form.noun}"
            f"{classes if every_class else ''}; choose fewer than that many{enough if every_class else ''}"
        )
    return _remade(
        images,
        (images.train_images[mask], labels[mask]),
        (images.test_images, images.test_labels),
        f"stratified subset of {count:,} training {images.form.noun}, seed {seed}",
    )
