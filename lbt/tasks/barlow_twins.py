"""Barlow Twins: two views of an image agree, and no two dimensions of their embeddings repeat each other.

Zbontar et al. 2021, arXiv 2103.03230. Features are judged by a linear probe and a weighted k-NN vote (`probe.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbt.metrics import ACCURACY, KNN_ACCURACY, LOSS, TOP5_ACCURACY, percentage
from lbt.models import backbone
from lbt.tasks.probe import LinearProbe, knn_right

Total = Callable[[Tensor], Tensor]  # sums over devices, see `lbt.devices.group.Group.total`
BN_EPS = 1e-5  # of the embeddings' normalisation, torch's default, as in the authors' code


class _CorrelationLoss(torch.autograd.Function):
    """The loss of normalised embeddings; keeps one D x D matrix and makes no other besides its own two products."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, weight: float, divisor: int, total: Total | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = torch.promote_types(a.dtype, torch.float32)
        # The diagonal is near 1 where bfloat16 is coarse: it is summed apart from the matrix product.
        diagonal, c = (a * b).sum(0, dtype=exact), a.T @ b
        if total is not None:
            diagonal, c = total(diagonal), total(c.to(exact)).to(c.dtype)
        diagonal = diagonal / divisor
        c.div_(divisor).fill_diagonal_(0)
        off = torch.linalg.vector_norm(c, dtype=exact).square()
        ctx.save_for_backward(a, b, c, diagonal)
        ctx.weight, ctx.divisor = weight, divisor
        size = len(diagonal)
        loss = (diagonal - 1).square().sum() + weight * off
        rms = (off / (size * max(size - 1, 1))).sqrt()
        mean = diagonal.mean()
        ctx.mark_non_differentiable(mean, rms)
        return loss, mean, rms

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        a, b, c, diagonal = ctx.saved_tensors
        on = ((diagonal - 1) * (2 * grad / ctx.divisor)).to(a.dtype)
        off = (2 * ctx.weight * grad / ctx.divisor).to(a.dtype)
        return (b @ c.T).mul_(off).addcmul_(b, on), (a @ c).mul_(off).addcmul_(a, on), None, None, None


class _NormalisedOverAll(torch.autograd.Function):
    """Each dimension of [b, D] less its mean and over its deviation, those of all devices' rows; the whole gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, count: int, total: Total) -> Tensor:
        centred = z - total(z.sum(0)) / count
        scale = (total(centred.square().sum(0)) / count + BN_EPS).rsqrt()
        out = centred * scale
        ctx.save_for_backward(out, scale)
        ctx.count, ctx.total = count, total
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out, scale = ctx.saved_tensors
        along_one, along_out = ctx.total(torch.stack([grad.sum(0), (grad * out).sum(0)])) / ctx.count
        return (grad - along_one - out * along_out) * scale, None, None


def barlow_twins_loss(
    first: Tensor,
    second: Tensor,
    *,
    weight: float = 0.005,
    divisor: int | None = None,
    count: int | None = None,
    total: Total | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the loss ``sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2`` and two measures of C, all scalars.

    C [D, D] is the correlation of the embeddings, each dimension normalised over the whole batch to mean 0 and variance
    1 (biased, eps 1e-5): ``C = first^T second / B``. The measures, without gradient, are the mean of C's diagonal and
    the root mean square of what is off it. With bfloat16 embeddings, the products are bfloat16's, the sums float32's.

    Args:
        first: embeddings of the first views, [B, D].
        second: of the second views, [B, D].
        weight: lambda, of the off-diagonal terms.
        divisor: what stands for B in C; None is B. (The released TVLARS code divides a smaller last batch by the full
            batch size.)
        count: samples on all devices, where these are those of one of several; the loss is that of all of them.
        total: then, gives a tensor's sum over the devices.

    Raises:
        ValueError: fewer than two samples, whose normalisation is not defined.

    Source: arXiv 2103.03230, eq. (1) and (2).
    """
    # In float32: with bfloat16 embeddings, batch_norm on a CPU rounds the scale of a whole dimension to bfloat16.
    exact = torch.promote_types(first.dtype, torch.float32)
    if total is None:
        a, b = (F.batch_norm(z.to(exact), None, None, training=True, eps=BN_EPS).to(z.dtype) for z in (first, second))
    else:
        a, b = (_NormalisedOverAll.apply(z.to(exact), count, total).to(z.dtype) for z in (first, second))
    return _CorrelationLoss.apply(a, b, weight, divisor or count or len(first), total)


class Twins(nn.Module):
    """A backbone and the projector behind it: images [b, C, H, W] to embeddings [b, D]."""

    def __init__(self, network: nn.Module, projector: nn.Module):
        super().__init__()
        self.backbone, self.projector = network, projector

    def forward(self, images: Tensor) -> Tensor:
        """Returns the embeddings of normalised images."""
        return self.projector(self.backbone(images))


class BarlowTwins:
    """Barlow Twins pre-training on two augmented views, scored by frozen features.

    Scores: `accuracy`, `top5_accuracy` and `loss` of a linear probe after the last epoch, `knn_accuracy` every
    `knn_every` epochs and after the last, all in % but the loss, on features of images that are not augmented.

    Args:
        projector: widths of the projector's layers, the last of which is D; each but the last has a norm and a ReLU.
        projector_norm: `batch`, or `layer` (LayerNorm), which makes micro-batches exact if the model's norm does too.
        off_diagonal: lambda, weight of the correlation's off-diagonal terms.
        divisor: what the correlation is divided by in place of the number of images; None: that number.
        knn_every: epochs between two k-NN scores; None: only after the last epoch.
        knn_k: neighbours that vote.
        knn_temperature: T of a vote's weight, exp(cosine / T).
        probe: settings of `lbt.tasks.probe.LinearProbe`.

    Raises:
        ValueError: a value out of range, or a setting that the probe does not have.

    Source: Zbontar et al. 2021, arXiv 2103.03230; its use with large batches: arXiv 2309.14053, section 6.
    """

    reads = "images"
    views = 2
    spans_batch = True
    metrics = (LOSS, KNN_ACCURACY, ACCURACY, TOP5_ACCURACY)

    def __init__(
        self,
        *,
        projector: list[int],
        projector_norm: Literal["batch", "layer"] = "batch",
        off_diagonal: float = 0.005,
        divisor: int | None = None,
        knn_every: int | None = 10,
        knn_k: int = 20,
        knn_temperature: float = 0.07,
        probe: dict,
    ):
        if not projector or min(projector) < 1:
            raise ValueError(f"projector={projector}: expected the widths of one or more layers")
        for name, value in (("off_diagonal", off_diagonal), ("knn_temperature", knn_temperature), ("knn_k", knn_k)):
            if not value > 0:
                raise ValueError(f"{name}={value}: expected a positive number")
        for name, value in (("divisor", divisor), ("knn_every", knn_every)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more, or null")
        self.projector, self.projector_norm = list(projector), projector_norm
        self.off_diagonal, self.divisor = off_diagonal, divisor
        self.knn_every, self.knn_k, self.knn_temperature = knn_every, knn_k, knn_temperature
        self.probe = LinearProbe.of(probe)

    def prepare(self, model: nn.Module) -> Twins:
        """Returns the model, its classifier replaced by the projector."""
        network, width = backbone(model)
        norm = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[self.projector_norm]
        layers: list[nn.Module] = []
        for size in self.projector[:-1]:
            layers += [nn.Linear(width, size, bias=False), norm(size), nn.ReLU(inplace=True)]
            width = size
        return Twins(network, nn.Sequential(*layers, nn.Linear(width, self.projector[-1], bias=False)))

    def forward(self, model: nn.Module, images: list[Tensor]) -> Tensor:
        """Returns the embeddings of both views, [b, 2, D]; batch norm sees one view at a time."""
        return torch.stack([model(view) for view in images], dim=1)

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns `loss` and, of the correlation, `diagonal` (mean) and `off_diagonal` (root mean square)."""
        return self._figures(outputs)

    def loss_together(self, outputs: Tensor, count: int, total: Total) -> dict[str, Tensor]:
        """Returns the same of `count` images on several devices, of which `outputs` are this one's.

        Each device multiplies the embeddings of its own images; one D x D matrix is exchanged, and no embeddings are.

        Args:
            outputs: of this device's images, [b, 2, D].
            count: images on all devices.
            total: gives a tensor's sum over the devices.
        """
        return self._figures(outputs, count=count, total=total)

    def _figures(self, outputs: Tensor, **together: Any) -> dict[str, Tensor]:
        options = {"weight": self.off_diagonal, "divisor": self.divisor, **together}
        loss, diagonal, off = barlow_twins_loss(*outputs.unbind(1), **options)
        return {"loss": loss, "diagonal": diagonal, "off_diagonal": off}

    def evaluate(self, model: Twins, sets: Any, epoch: int, epochs: int) -> dict[str, float]:
        """Returns the k-NN accuracy where it is due, and after the last epoch the linear probe's scores."""
        last = epoch == epochs
        if not last and (self.knn_every is None or epoch % self.knn_every):
            return {}
        train = features(model.backbone, sets, sets.train_images, sets.train_labels)
        test = features(model.backbone, sets, sets.test_images, sets.test_labels)
        classes = sets.classes
        vote = {"k": self.knn_k, "temperature": self.knn_temperature, "classes": classes}
        share = sets.group.share(len(test))
        right = sets.group.total(knn_right(train, sets.train_labels, test[share], sets.test_labels[share], **vote))
        scores = {"knn_accuracy": percentage(right.item(), len(test))}
        if last:
            scores |= self.probe.scores(model.backbone, sets, train, test)
        return scores


def features(network: nn.Module, sets: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the backbone's features of one of the sets, float32 [N, F], each device's share computed by it."""
    own = torch.cat([network(part).float() for part, _ in sets.own(images, labels)])
    return sets.group.gathered(own, len(labels))
