"""Supervised classification of token sequences with cross-entropy."""

import torch
from torch import Tensor, nn

from lbt.models import Bert, backbone, classifier, draw
from lbt.tasks.classification import Classification


class SequenceClassifier(nn.Module):
    """An encoder, BERT's pooler and a classifier: token numbers [b, L] to logits [b, classes]."""

    def __init__(self, encoder: Bert):
        super().__init__()
        _, fc = classifier(encoder)
        self.backbone, width = backbone(encoder)
        self.pooler = nn.Linear(width, width)
        self.dropout = nn.Dropout(encoder.dropout)
        self.fc = fc
        draw(self.pooler)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits, by the first token's vector."""
        return self.fc(self.dropout(torch.tanh(self.pooler(self.backbone(tokens)))))


class SequenceClassification(Classification):
    """Cross-entropy loss of a sequence's class, told by its first token; scored by loss and accuracy.

    Args:
        label_smoothing: share of the target spread evenly over the classes, in [0, 1] (Szegedy et al. 2016).

    Raises:
        ValueError: label_smoothing lies outside of 0 to 1.
    """

    reads = "tokens"

    def prepare(self, model: nn.Module) -> SequenceClassifier:
        """Returns the model with a pooling layer before its classifier.

        Raises:
            ValueError: it reads no tokens.
        """
        return SequenceClassifier(Bert.of(model, "sequence_classification"))

    def forward(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Returns the logits, [b, classes], of sequences [b, L].

        Raises:
            ValueError: the sequences are masked.
        """
        if tokens.ndim != 2:
            raise ValueError("task=sequence_classification needs data.augment=none")
        return model(tokens)
