"""BERT: a transformer's encoder of token sequences (Devlin et al. 2019, arXiv 1810.04805), in four sizes.

A sequence is one segment: there are no segment embeddings, because no task here shows the network two texts at once.
Queries, keys and values are layers of their own, as in the published code, so that a layer-wise optimizer adapts each.
Tensors of one dimension are those whose name has `layer_norm` or `bias` in it, which large-batch recipes exclude from
decay and adaptation, and no others.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.models.libraries import sized

PADDING = 0  # the token that fills a sequence up; nothing attends to it
NORM_EPS = 1e-12
INIT_STD = 0.02
SHORT = 128  # tokens, up to which a CPU attends faster in float32 than in bfloat16

Norm = Literal["post", "pre"]


class Embeddings(nn.Module):
    """Sums of each token's and its place's vector: tokens [b, L] to float [b, L, width]."""

    def __init__(self, vocabulary: int, positions: int, width: int, *, norm: Norm, dropout: float):
        super().__init__()
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(positions, width)
        self.layer_norm = nn.LayerNorm(width, eps=NORM_EPS) if norm == "post" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the vectors, normalised where norms stand behind."""
        return self.dropout(self.layer_norm(self.word(tokens) + self.position.weight[: tokens.shape[1]]))


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself: float [b, L, width] to the same."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Returns the mixture of the tokens that are `real`, bool [b, 1, 1, L]."""
        split = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        ]
        mixed = attend(*split, real, dropout=self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor, *, dropout: float) -> Tensor:
    """Returns softmax(query key^T / sqrt(d)) value over the tokens that are `real`, [b, heads, L, d] in their type.

    On a CPU, of short sequences in bfloat16 it is computed in float32, which is 1.5 to 2 times as fast there
    (`scripts/bench_attention.py`).

    Args:
        query: [b, heads, L, d], as are key and value.
        key: see query.
        value: see query.
        real: bool [b, 1, 1, L].
        dropout: share of the softmax's entries dropped.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] <= SHORT:
        with torch.autocast("cpu", enabled=False):
            mixed = attend(query.float(), key.float(), value.float(), real, dropout=dropout)
        return mixed.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=real, dropout_p=dropout)


class Layer(nn.Module):
    """Attention and a network of two layers on each token, both residual: float [b, L, width] to the same."""

    def __init__(self, width: int, heads: int, *, norm: Norm, dropout: float):
        super().__init__()
        self._pre = norm == "pre"
        self.attention = Attention(width, heads, dropout)
        self.attention_layer_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.layer_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Returns the tokens' vectors, having seen those that are `real`, bool [b, 1, 1, L]."""
        if self._pre:
            x = x + self.dropout(self.attention(self.attention_layer_norm(x), real))
            return x + self.dropout(self.feed_forward(self.layer_norm(x)))
        x = self.attention_layer_norm(x + self.dropout(self.attention(x, real)))
        return self.layer_norm(x + self.dropout(self.feed_forward(x)))


class Bert(nn.Module):
    """The encoder and a classifier on a sequence's first token: token numbers [b, L] to logits [b, num_classes].

    Args:
        num_classes: number of logits.
        vocabulary: number of tokens that there are.
        length: tokens of a sequence.
        layers: of the encoder.
        width: of a token's vector; its feed-forward network is four times as wide.
        heads: of the attention, of width / heads each.
        dropout: share of vectors' entries and of attention dropped in training.
        norm: "post": after each residual sum, as published, and after the embeddings; "pre": before attention and
            feed-forward network instead, and once after the last layer (Xiong et al. 2020, arXiv 2002.04745).
        tied: whether the masked-language head's decoder is the tokens' embedding (Press & Wolf 2017).
        positions: places that have an embedding; None: `length`.

    Attributes:
        tied, dropout, width: as given.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        num_classes: int,
        vocabulary: int,
        length: int,
        *,
        layers: int,
        width: int,
        heads: int,
        dropout: float = 0.1,
        norm: Norm = "post",
        tied: bool = True,
        positions: int | None = None,
    ):
        super().__init__()
        positions = length if positions is None else positions
        for name, value in (("num_classes", num_classes), ("positions", positions)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a share of at least 0 and less than 1")
        self.width, self.tied, self.dropout = width, tied, dropout
        how = {"norm": norm, "dropout": dropout}
        self.embeddings = Embeddings(vocabulary, positions, width, **how)
        self.layers = nn.ModuleList(Layer(width, heads, **how) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width, eps=NORM_EPS) if norm == "pre" else nn.Identity()
        self.fc = nn.Linear(width, num_classes)
        draw(self)

    @classmethod
    def of(cls, model: nn.Module, task: str) -> "Bert":
        """Returns a model that a task needs to be one.

        Raises:
            ValueError: it is not.
        """
        if not isinstance(model, cls):
            raise ValueError(f"{type(model).__name__} reads images; task={task} needs model=bert_tiny or another bert")
        return model

    def encode(self, tokens: Tensor) -> Tensor:
        """Returns the vectors [b, L, width] of token numbers [b, L].

        Raises:
            ValueError: something else than sequences, or longer ones than there are embeddings of places.
        """
        if tokens.ndim != 2:
            raise ValueError(f"it reads sequences of tokens, not samples of shape {list(tokens.shape[1:])}")
        if tokens.shape[1] > (most := self.embeddings.position.num_embeddings):
            raise ValueError(f"model.positions={most}: sequences have {tokens.shape[1]} tokens")
        real = (tokens != PADDING)[:, None, None]
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x, real)
        return self.layer_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of token numbers [b, L]; without the classifier, the first token's vector."""
        return self.fc(self.encode(tokens)[:, 0])


def draw(module: nn.Module) -> None:
    """Draws a module's weights as BERT's: normal, cut off at twice the deviation of 0.02; its biases become 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _builder(layers: int, width: int, heads: int) -> Callable[..., Bert]:
    """Makes the builder of one size."""

    @sized
    def build(
        num_classes: int,
        size: tuple[int, int],
        /,
        *,
        dropout: float = 0.1,
        norm: Norm = "post",
        tied: bool = True,
        positions: int | None = None,
    ) -> Bert:
        settings = {"dropout": dropout, "norm": norm, "tied": tied, "positions": positions}
        return Bert(num_classes, *size, layers=layers, width=width, heads=heads, **settings)

    build.reads = "tokens"
    return build


bert_tiny = _builder(2, 128, 2)  # this and small: Turc et al. 2019, arXiv 1908.08962
bert_small = _builder(4, 512, 8)
bert_base = _builder(12, 768, 12)
bert_large = _builder(24, 1024, 16)
