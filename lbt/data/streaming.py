"""Folders too large for the device: images decoded by worker processes while the device computes.

`data=image_stream` is `image_folder` without its cache. The order, the augmentation and what a checkpoint holds are
those of `ResidentData`, so that both train alike where they decode alike.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import center_crop, resize

from lbt.data.files import reading
from lbt.data.folders import cores, decode_one, decode_whole, opened
from lbt.data.resident import ResidentData
from lbt.errors import UserError
from lbt.files import read_regular
from lbt.session.interrupt import SIGNALS

NARROW = 16  # sides in such a proportion: scaled as a whole, the longer one would have no end
PREFETCH = 2  # batches that each decoding process, one a core but one, is ahead


@dataclass(frozen=True)
class Files:
    """Image files in the place of a tensor uint8 [N, 3, H, W]: what is used of it is decoded when it is used.

    Attributes:
        base: folder the names lie in.
        names: of the files.
        resolution: pixels; the shorter side is scaled to it (anti-aliased), then the centre is cut out.
        device: where decoded images go.
    """

    base: Path
    names: Sequence[str]
    resolution: int
    device: str | torch.device = "cpu"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the tensor in whose place it is."""
        return len(self.names), 3, self.resolution, self.resolution

    def __getitem__(self, part: slice | Tensor) -> "Files | Tensor":
        """Returns the files of a slice, or the images of indices (int64 [B]), decoded: uint8 [B, 3, H, W]."""
        if isinstance(part, Tensor):
            return next(self.read([part.tolist()]))
        return replace(self, names=self.names[part])

    def __getitems__(self, indices: Sequence[int]) -> Tensor | str:
        """Decodes a batch, uint8 [B, 3, H, W]; a text says which file cannot be read. Called by the `DataLoader`."""
        out = torch.empty((len(indices), 3, self.resolution, self.resolution), dtype=torch.uint8)
        for place, index in enumerate(indices):
            path = self.base / self.names[index]
            try:
                with reading(path, "replace the file", "as an image"):
                    out[place] = _decoded(read_regular(path), self.resolution)
            except UserError as error:
                return str(error)
        return out

    def to(self, device: torch.device) -> "Files":
        """Returns the same files, to be decoded for another device."""
        return replace(self, device=device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yields all images in batches, as `Tensor.split` does: uint8 [size, 3, H, W] on the device."""
        return self.read([range(first, min(first + size, len(self))) for first in range(0, len(self), size)])

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Yields the images of lists of indices, decoded ahead of their use, on the device.

        Raises:
            UserError: a file cannot be read; names it.
        """
        pinned = torch.device(self.device).type == "cuda"
        workers = {"num_workers": max(1, cores() - 1), "prefetch_factor": PREFETCH, "pin_memory": pinned}
        workers["worker_init_fn"] = _leave_signals_to_the_training
        workers["generator"] = torch.Generator()  # the loader draws a seed: not from torch's own, which dropout uses
        loader = DataLoader(self, batch_sampler=batches, collate_fn=_as_it_is, **workers)
        for images in loader:
            if isinstance(images, str):
                raise UserError(images)
            yield images.to(self.device, non_blocking=True)


def _leave_signals_to_the_training(_worker: int) -> None:
    """Lets a worker go on when Ctrl-C or a scheduler signals every process of the job: the training stops by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Tensor | str) -> Tensor | str:
    return batch


def _decoded(data: bytes, resolution: int) -> Tensor:
    """Decodes one image to uint8 [3, resolution, resolution], turned as EXIF says; by Pillow if torchvision cannot."""
    with opened(data) as head:  # torchvision looks at neither the kind nor the number of pixels before it makes room
        kind, narrow = head.format, max(head.size) > NARROW * min(head.size)
    if narrow:
        return _by_pillow(data, resolution)
    try:
        if kind in ("GIF", "WEBP"):  # torchvision decodes all pictures of the one and does not turn the other
            image = torch.from_numpy(decode_whole(data)).permute(2, 0, 1)
        else:
            image = decode_image(
                torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB, apply_exif_orientation=True
            )
    except RuntimeError:
        return _by_pillow(data, resolution)
    if image.dtype == torch.uint16:  # a PNG of 16 bits: its upper 8
        image = (image.int() >> 8).byte()
    if image.shape[1:] == (resolution, resolution):
        return image
    return center_crop(resize(image, [resolution], antialias=True), [resolution, resolution])


def _by_pillow(data: bytes, resolution: int) -> Tensor:
    return torch.from_numpy(np.array(decode_one(data, resolution, resize=True))).permute(2, 0, 1)  # of its own memory


class StreamingData(ResidentData):
    """A training set of `Files`, otherwise as `ResidentData`; its labels lie on the device."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches left of the current epoch, or of a new one: uint8 [B, C, H, W] augmented, int64 [B]."""
        if not len(self._order):
            self._order, self._next = self._permutation(), 0
        left = self._order.split(self.batch)[self._next : self.steps_per_epoch]
        images = self.images.read([self._read(indices).tolist() for indices in left])
        for indices, decoded in zip(left, images, strict=True):
            batch = self._augmented(decoded, len(indices)), self.labels[indices]
            self._next += 1
            yield batch
        self._order = self._order[:0]


def feed(images: Tensor | Files, labels: Tensor, **options: object) -> ResidentData:
    """Returns the training data as epochs of batches; options as of `ResidentData`."""
    return (StreamingData if isinstance(images, Files) else ResidentData)(images, labels, **options)
