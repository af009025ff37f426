"""Documents' tokens packed into sequences of one length."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lbt.data.vocabulary import CLS, PAD, SEP


def pack(documents: Sequence[np.ndarray], length: int, apart: bool) -> tuple[Tensor, Tensor]:
    """Packs documents into sequences `[CLS] tokens [SEP]`, each full before the next begins; no token is lost.

    Args:
        documents: tokens of each, int32 [n].
        length: of a sequence in tokens, CLS and SEP among them.
        apart: whether a document begins with a sequence of its own, so that its last one is padded. Else the documents
            follow one another without a mark and the last sequence of all is padded.

    Returns:
        int32 [N, length], and for each sequence the number of the document its first token is from, int64 [N].
    """
    body = length - 2
    tokens = np.concatenate([np.empty(0, np.int32), *documents])
    sizes = np.array([len(document) for document in documents], dtype=np.int64)
    runs = sizes if apart else sizes.sum(keepdims=True)  # what is packed without a gap
    sequences = -(-runs // body)
    place = np.arange(len(tokens)) - np.repeat(runs.cumsum() - runs, runs)  # of a token in its run
    row = np.repeat(sequences.cumsum() - sequences, runs) + place // body
    packed = np.full((sequences.sum(), length), PAD, dtype=np.int32)
    packed[:, 0] = CLS
    packed[row, 1 + place % body] = tokens
    counts = np.bincount(row, minlength=len(packed))
    packed[np.arange(len(packed)), 1 + counts] = SEP
    first = np.flatnonzero(place % body == 0)  # the token that each sequence begins with
    labels = np.searchsorted(sizes.cumsum(), first, side="right")
    return torch.from_numpy(packed), torch.from_numpy(labels.astype(np.int64))


def split(text: str, share: float) -> tuple[str, str]:
    """Cuts off a text's end: at the last line end, else space, that makes it no more than twice the share.

    Args:
        text: to cut in two.
        share: of its letters that the second part is to have, between 0 and 1.

    Returns:
        Both parts, which together are the text; the second is empty where one of them had no word.
    """
    meant, earliest = (max(0, round(len(text) * (1 - part))) for part in (share, 2 * share))
    before = text[earliest:meant]
    cut = earliest + (before.rfind("\n") + 1 or before.rfind(" ") + 1 or len(before))
    parts = text[:cut], text[cut:]
    return parts if all(part.strip() for part in parts) else (text, "")
