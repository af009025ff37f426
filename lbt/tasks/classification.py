"""Supervised image classification with cross-entropy."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.metrics import ACCURACY, LOSS, percentage


class Classification:
    """Cross-entropy loss; scored by loss and top-1 accuracy.

    Args:
        label_smoothing: share of the target spread evenly over the classes, in [0, 1] (Szegedy et al. 2016).

    Raises:
        ValueError: label_smoothing lies outside of 0 to 1.
    """

    views = 1
    spans_batch = False
    metrics = (LOSS, ACCURACY)

    def __init__(self, *, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected 0 to 1")
        self.label_smoothing = label_smoothing

    def prepare(self, model: nn.Module) -> nn.Module:
        """Returns the classifier as it is."""
        return model

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns the logits, [b, classes], of normalised images [b, C, H, W]."""
        return model(images)

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns `loss`, the mean over the batch, of logits with labels int64 [b]."""
        return {"loss": F.cross_entropy(outputs.float(), labels, label_smoothing=self.label_smoothing)}

    def evaluate(self, model: nn.Module, sets: Any, epoch: int, epochs: int) -> dict[str, float]:
        """Returns `loss` (mean, without smoothing) and `accuracy` (%) on the test set; waits for the device once."""
        sums = torch.zeros(2, dtype=torch.float64, device=sets.test_labels.device)
        for images, labels in sets.own(sets.test_images, sets.test_labels):
            logits = model(images).float()
            sums[0] += F.cross_entropy(logits, labels, reduction="sum")
            sums[1] += (logits.argmax(dim=1) == labels).sum()
        (loss, correct), images = sets.group.total(sums).tolist(), len(sets.test_labels)
        return {"loss": loss / images, "accuracy": percentage(correct, images)}
