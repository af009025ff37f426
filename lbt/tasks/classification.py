"""Supervised image classification with cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classification:
    """Cross-entropy loss; scored by loss and top-1 accuracy.

    Args:
        label_smoothing: share of the target spread evenly over the classes, in [0, 1] (Szegedy et al. 2016).
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected 0 to 1")
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean loss, a scalar, of normalised images [B, C, H, W] with labels int64 [B]."""
        return F.cross_entropy(model(images).float(), labels, label_smoothing=self.label_smoothing)

    def scores(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns sums over a batch, scalars on the device: `loss` (without smoothing) and `correct` predictions."""
        logits = model(images).float()
        return {
            "loss": F.cross_entropy(logits, labels, reduction="sum"),
            "correct": (logits.argmax(dim=1) == labels).sum(),
        }

    @staticmethod
    def metrics(sums: dict[str, Tensor], count: int) -> dict[str, float]:
        """Returns `loss` (mean) and `accuracy` (%) from summed `scores` of `count` images."""
        loss, correct = torch.stack([sums["loss"].double(), sums["correct"].double()]).tolist()
        return {"loss": loss / count, "accuracy": 100.0 * correct / count}
