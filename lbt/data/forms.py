"""What is special to the samples of a data set: pictures, or sequences of tokens. Everybody else asks here."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lbt.data.augment import AUGMENTATIONS, IMAGENET_MEAN, IMAGENET_STD, normalise, views_of
from lbt.data.masking import mask_tokens
from lbt.data.vocabulary import Vocabulary
from lbt.errors import UserError, did_you_mean

# As in `AUGMENTATIONS`, with the vocabulary as a third argument.
MASKINGS: dict[str, Callable[..., Tensor]] = {
    "mask_tokens": mask_tokens,
    "mask_whole_words": partial(mask_tokens, whole_words=True),
}


class Form(Protocol):
    """Samples of one kind.

    Attributes:
        noun: what they are called, in the plural.
        reads: what a model or task says that takes them (`reads`).
        augmentations: by name; see `lbt.data.augment.AUGMENTATIONS`.
        marks: what belongs to the data's fingerprint besides samples and labels.
    """

    noun: str
    reads: str
    augmentations: Mapping[str, Callable[..., Tensor]]
    marks: Sequence[Tensor]

    def told(self, samples: Any) -> dict[str, Any]:
        """Returns what a record says of the samples."""

    def in_words(self, shape: Sequence[int]) -> str:
        """Returns a shape as a text says it after "of"."""

    def views(self, augment: Callable[..., Tensor]) -> int:
        """Returns how many samples an augmentation makes of one."""

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Returns a sample of zeros, as it is before augmentation: [1, ...] of samples of a shape [N, ...]."""

    def size(self, samples: Any) -> tuple[int, int]:
        """Returns what a model is built for that is made for one size of samples."""

    def shape(self, augmented: Tensor) -> Sequence[int]:
        """Returns the shape of one view of one sample of an augmented batch."""

    def blank(self, count: int, shape: Sequence[int]) -> Tensor:
        """Returns a batch of samples of a shape as a model is given them, without memory (torch's meta device)."""

    def input(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Any:
        """Returns what a model is given of augmented samples."""


class Pictures:
    """Images, uint8 [N, C, H, W]; several views of each: uint8 [N, views, C, H, W]."""

    noun = reads = "images"
    augmentations = AUGMENTATIONS
    marks = ()

    def told(self, samples: Any) -> dict[str, Any]:
        """Returns `image_size`: height and width, in pixels."""
        return {"image_size": list(self.size(samples))}

    def in_words(self, shape: Sequence[int]) -> str:
        """Returns "32x32 pixels"."""
        return f"{shape[-2]}x{shape[-1]} pixels"

    def views(self, augment: Callable[..., Tensor]) -> int:
        """Returns how many images an augmentation makes of one."""
        return views_of(augment)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Returns uint8 [1, C, H, W]."""
        return torch.zeros(1, *shape[1:], dtype=torch.uint8)

    def size(self, samples: Any) -> tuple[int, int]:
        """Returns height and width, in pixels."""
        height, width = samples.shape[-2:]
        return height, width

    def shape(self, augmented: Tensor) -> Sequence[int]:
        """Returns [C, H, W]."""
        return augmented.shape[-3:]

    def blank(self, count: int, shape: Sequence[int]) -> Tensor:
        """Returns float32 [count, C, H, W]."""
        return torch.empty(count, *shape, device="meta")

    def input(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Any:
        """Returns normalised images, or a list of the views' images."""
        if samples.ndim == 5:
            return [self.input(view, dtype) for view in samples.unbind(1)]
        return normalise(samples, IMAGENET_MEAN, IMAGENET_STD, dtype)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sequences of token numbers, int32 [N, L]; masked ones with what is asked of them: int32 [N, 2, L].

    Attributes:
        vocabulary: what the numbers mean.
    """

    vocabulary: Vocabulary

    noun = "sequences"
    reads = "tokens"

    @property
    def augmentations(self) -> Mapping[str, Callable[..., Tensor]]:
        """The maskings, and none."""
        bound = {name: partial(masking, vocabulary=self.vocabulary) for name, masking in MASKINGS.items()}
        return {"none": AUGMENTATIONS["none"], **bound}

    def told(self, samples: Any) -> dict[str, Any]:
        """Returns `token_size`: tokens of the vocabulary and of a sequence; `vocabulary`: its fingerprint."""
        return {"token_size": list(self.size(samples)), "vocabulary": self._digest}

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.vocabulary.tokenizer.encode()).hexdigest()[:16]

    @property
    def marks(self) -> Sequence[Tensor]:
        """The vocabulary's bytes."""
        return (torch.frombuffer(bytearray(self.vocabulary.tokenizer, "utf-8"), dtype=torch.uint8),)

    def in_words(self, shape: Sequence[int]) -> str:
        """Returns "128 tokens"."""
        return f"{shape[-1]} tokens"

    def views(self, augment: Callable[..., Tensor]) -> int:
        """Returns 1."""
        return 1

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Returns int32 [1, L], padding alone."""
        return torch.zeros(1, *shape[1:], dtype=torch.int32)

    def size(self, samples: Any) -> tuple[int, int]:
        """Returns the number of tokens in the vocabulary, and of a sequence."""
        return self.vocabulary.size, samples.shape[1]

    def shape(self, augmented: Tensor) -> Sequence[int]:
        """Returns [L] or [2, L]."""
        return augmented.shape[1:]

    def blank(self, count: int, shape: Sequence[int]) -> Tensor:
        """Returns int64 [count, L] or [count, 2, L]."""
        return torch.empty(count, *shape, dtype=torch.long, device="meta")

    def input(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns the numbers as int64."""
        return samples.long()


PICTURES = Pictures()


def augmentation(form: Form, name: str, setting: str = "data.augment") -> Callable[..., Tensor]:
    """Returns an augmentation of a form of samples by its name.

    Raises:
        UserError: there is none of that name for such samples.
    """
    known = form.augmentations
    if name in known:
        return known[name]
    if name in AUGMENTATIONS or name in MASKINGS:
        raise UserError(f"{setting}={name}: is not for {form.noun}; of these there are {', '.join(known)}")
    raise UserError(f"{setting}={name}: there is none of that name{did_you_mean(name, known)}")
