"""BERT's masked-language pre-training: some tokens of a sequence are hidden, and the network says which they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.data.augment import Rows
from lbt.data.masking import IGNORED, PERCENT_ASKED
from lbt.metrics import LOSS, MASKED_ACCURACY, PERPLEXITY, percentage
from lbt.models import Bert, backbone, draw
from lbt.models.bert import NORM_EPS

ENDS = 2  # tokens of a sequence, its first and its last, of which nothing is asked
LOGITS = 2**25  # computed at once in an evaluation: 128 MiB
SEED = 0  # of the held-out sequences' masks


class Head(nn.Module):
    """From a token's vector [..., width] to the logits [..., vocabulary] of what it was.

    Args:
        width: of a vector.
        vocabulary: number of tokens that there are.
        tied: whether the decoder's weight is given with the vectors; otherwise it is the head's own.
    """

    def __init__(self, width: int, vocabulary: int, *, tied: bool):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder = None if tied else nn.Linear(width, vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        draw(self)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Returns the logits; `embedding` [vocabulary, width] is the decoder's weight where it has none of its own."""
        weight = embedding if self.decoder is None else self.decoder.weight
        return F.linear(self.layer_norm(F.gelu(self.dense(x))), weight, self.bias)


class MaskedLanguageModel(nn.Module):
    """An encoder and the head that tells hidden tokens.

    A tied decoder is the embedding itself, not a second name for it: it is one parameter wherever parameters are named.
    """

    def __init__(self, encoder: Bert):
        super().__init__()
        self.backbone, width = backbone(encoder)
        self.head = Head(width, encoder.embeddings.word.num_embeddings, tied=encoder.tied)

    def forward(self, samples: Tensor) -> Tensor:
        """Returns logits: of masked samples [b, 2, L] at their `places`, [b, k, vocabulary].

        Of sequences [b, L] those of every token, [b, L, vocabulary].
        """
        if samples.ndim == 2:
            x = self.backbone.encode(samples)
        else:
            x = self.backbone.encode(samples[:, 0])
            x = x.gather(1, places(samples[:, 1])[..., None].expand(-1, -1, x.shape[-1]))
        return self.head(x, self.backbone.embeddings.word.weight)


def places(targets: Tensor) -> Tensor:
    """Returns where something is asked, int64 [b, k], first to last; then, up to k, where nothing is.

    k depends on L alone, the most tokens that a masking asks: nothing waits for the device.

    Args:
        targets: [b, L], `IGNORED` where nothing is asked.
    """
    most = max(1, (PERCENT_ASKED * (targets.shape[1] - ENDS) + 50) // 100)  # a half rounded up: no fewer than are asked
    return (targets == IGNORED).byte().argsort(dim=1, stable=True)[:, :most]


class MaskedLanguage:
    """Cross-entropy of the hidden tokens; scored by loss, perplexity and accuracy on hidden tokens of held-out text.

    In training, a sequence's loss is the mean over the tokens asked of it, the batch's the mean over its sequences, so
    that each sequence is a term of its own. The published code takes the mean over all tokens asked in a batch, which
    is the same where sequences are equally long. The scores are means over all held-out tokens asked; these are the
    same after every epoch.

    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1.
    """

    reads = "tokens"
    labelled = False
    views = 1
    spans_batch = False
    metrics = (replace(LOSS, shown=("summary", "console", "sweep")), PERPLEXITY, MASKED_ACCURACY)

    def prepare(self, model: nn.Module) -> MaskedLanguageModel:
        """Returns the model, its classifier replaced by the head that tells hidden tokens.

        Raises:
            ValueError: it reads no tokens.
        """
        return MaskedLanguageModel(Bert.of(model, "masked_language"))

    def forward(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Returns each sequence's mean loss and share of hits, float32 [b, 2], of masked samples [b, 2, L].

        Of a sequence that nothing is asked of, both are 0.

        Raises:
            ValueError: the sequences are not masked.
        """
        if samples.ndim != 3:
            raise ValueError("task=masked_language needs data.augment=mask_tokens or mask_whole_words")
        sums = self._sums(model, samples)
        return sums[:, :2] / sums[:, 2:].clamp(min=1)

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns `loss` and `masked_accuracy` (%), means over the batch's sequences; of labels nothing is asked."""
        loss, hits = outputs.mean(dim=0).unbind()
        return {"loss": loss, "masked_accuracy": 100 * hits}

    def evaluate(self, model: MaskedLanguageModel, sets: Any, epoch: int, epochs: int) -> dict[str, float]:
        """Returns `loss` (mean), `perplexity` and `masked_accuracy` (%) over all held-out tokens that are asked."""
        tokens, count = sets.test_images, len(sets.test_images)
        generator, share = torch.Generator(tokens.device).manual_seed(SEED), sets.group.share(count)
        samples = sets.augment(tokens[share], generator, rows=Rows(count, share))
        size = max(1, LOGITS // (places(samples[:1, 1]).shape[1] * len(model.head.bias)))
        sums = torch.zeros(3, dtype=torch.float64, device=tokens.device)
        for part in samples.split(size):
            sums += self._sums(model, sets.input(part)).sum(dim=0, dtype=torch.float64)
        sums = sets.group.total(sums)
        mean = sums[0] / sums[2].clamp(min=1)
        loss, perplexity, hits, asked = torch.stack([mean, mean.exp(), *sums[1:]]).tolist()
        return {"loss": loss, "perplexity": perplexity, "masked_accuracy": percentage(hits, max(asked, 1))}

    def _sums(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Returns each sequence's summed loss, hits and number of tokens asked, [b, 3], float32 or wider."""
        targets = samples[:, 1]
        targets = targets.gather(1, places(targets)).long()
        logits = model(samples)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        hits, asked = logits.detach().argmax(dim=2) == targets, targets != IGNORED
        return torch.stack([losses.view_as(targets).sum(1), *(one.sum(1).to(logits.dtype) for one in (hits, asked))], 1)
