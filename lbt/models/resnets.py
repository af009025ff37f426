"""ResNets from torchvision's own constructors, with a choice of stem, normalisation and initialisation.

Weights are drawn from torch's global generator: `torch.manual_seed(seed)` before building makes a model reproducible.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

Stem = Literal["imagenet", "cifar"]
Norm = Literal["batch", "group", "layer", "ghost"]
Init = Literal["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"]

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, mode="fan_in", nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="relu"),
}


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over virtual batches: each chunk of `ghost_size` consecutive samples by its own statistics.

    In training, output, gradients and running statistics are those of `nn.BatchNorm2d` called on the chunks one after
    another (what the network sees when the batch is split into micro-batches of `ghost_size`), computed in one call:
    the chunks are folded into the channels. The running statistics therefore move once a chunk, K times for K chunks:
    `(1 - m)**K * running + sum_j m * (1 - m)**(K - 1 - j) * statistic_j`, j = 0 ... K - 1. What is left over when
    `ghost_size` does not divide the batch is one further, smaller chunk. In evaluation it is `nn.BatchNorm2d`.
    `momentum=None` (cumulative average, as `torch.optim.swa_utils.update_bn` sets it) counts chunks, without a sync.

    Shapes: (N, C, H, W) to the same; channels_last stays channels_last.

    Args:
        num_features: C.
        ghost_size: samples in a virtual batch.
        eps: added to the variance.
        momentum: torch's convention, the weight of the new statistic.

    Raises:
        ValueError: `ghost_size` below 1; in training, a chunk (the left-over one included) with one value a channel.

    Source: Hoffer et al. 2017, Train longer, generalize better (arXiv 1705.08741), Algorithm 1.
    """

    def __init__(self, num_features: int, ghost_size: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        if ghost_size < 1:
            raise ValueError(f"ghost_size must be at least 1, got {ghost_size}")
        self.ghost_size = ghost_size

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each chunk by its own statistics in training, all samples by the running ones in evaluation."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        chunks, rest = divmod(x.shape[0], self.ghost_size)
        if chunks == 0 or rest == 0:
            return self._normalise(x, max(chunks, 1))
        whole, last = x.split((x.shape[0] - rest, rest))
        return torch.cat((self._normalise(whole, chunks), self._normalise(last, 1)))

    def extra_repr(self) -> str:
        """Adds the virtual batch to what BatchNorm2d prints."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"

    def _normalise(self, x: Tensor, chunks: int) -> Tensor:
        """Normalises `chunks` equal chunks of x by one batch_norm over chunks * C channels."""
        mean, var = self.running_mean.repeat(chunks), self.running_var.repeat(chunks)
        weight, bias = self.weight.repeat(chunks), self.bias.repeat(chunks)
        # momentum 1: batch_norm overwrites mean and var by those of the chunks
        out = F.batch_norm(_fold(x, chunks), mean, var, weight, bias, training=True, momentum=1.0, eps=self.eps)
        if self.track_running_stats:
            self._track(mean.view(chunks, -1), var.view(chunks, -1))
        return _unfold(out, chunks)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics by those of the chunks (K, C), first to last, on the device."""
        chunks = mean.shape[0]
        if self.momentum is None:
            seen = self.num_batches_tracked.to(mean.dtype)
            keep = seen / (seen + chunks)
            weights = (1.0 / (seen + chunks)).expand(chunks)
        else:
            age = torch.arange(chunks - 1, -1, -1, device=mean.device, dtype=mean.dtype)
            keep = (1.0 - self.momentum) ** chunks
            weights = self.momentum * (1.0 - self.momentum) ** age
        for running, statistic in ((self.running_mean, mean), (self.running_var, var)):
            # a product and a sum, not a matrix product: that one autocast would round to bf16
            running.mul_(keep).add_((weights[:, None] * statistic).sum(0))
        self.num_batches_tracked.add_(chunks)


def _fold(x: Tensor, chunks: int) -> Tensor:
    """(K * G, C, H, W) to (G, K * C, H, W), in the memory format of x; one copy, none for a single chunk."""
    if chunks == 1:
        return x
    if _is_channels_last(x):  # reshaped as (N, H, W, C), so that the copies of the backward pass are channels_last too
        parts = x.permute(0, 2, 3, 1).unflatten(0, (chunks, -1))
        return parts.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2)
    return x.unflatten(0, (chunks, -1)).transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, chunks: int) -> Tensor:
    """(G, K * C, H, W) back to (K * G, C, H, W), in the memory format of x; one copy, none for a single chunk."""
    if chunks == 1:
        return x
    if _is_channels_last(x):
        parts = x.permute(0, 2, 3, 1).unflatten(3, (chunks, -1))
        return parts.permute(3, 0, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)
    return x.unflatten(1, (chunks, -1)).transpose(0, 1).flatten(0, 1)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def initialise(model: nn.Module, init: Init, *, zero_init_residual: bool = False) -> None:
    """Draws all convolution and linear weights anew, in place; their biases become 0, norm layers the identity.

    With fan_in = inputs * kernel area and fan_out = outputs * kernel area, the variance of a weight is
    2 / (fan_in + fan_out) for Xavier and 2 / fan_in for Kaiming, uniform or normal. (torchvision's default, which this
    replaces, is Kaiming normal by fan_out for convolutions and torch's own for the classifier.)

    Args:
        model: any module; parameters of other layer types than convolution, linear and norm are left alone.
        init: a name in `INITS`.
        zero_init_residual: sets the scale of the last norm layer in each residual branch to 0 (Goyal et al. 2017).

    Raises:
        ValueError: an unknown `init`.

    Source: Glorot & Bengio 2010; He et al. 2015 (arXiv 1502.01852).
    """
    _check_choice("init", init, get_args(Init))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            INITS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
            module.reset_parameters()
    if zero_init_residual:
        for module in model.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)


def _builder(name: str) -> Callable[..., ResNet]:
    """Makes the builder of torchvision's constructor `name`."""
    constructor = getattr(torchvision.models, name)

    def build(
        num_classes: int,
        *,
        stem: Stem = "imagenet",
        norm: Norm = "batch",
        norm_groups: int = 32,
        ghost_size: int | None = None,
        bn_momentum: float = 0.1,
        bn_eps: float = 1e-5,
        zero_init_residual: bool = False,
        init: Init | None = None,
    ) -> ResNet:
        _check_choice("stem", stem, get_args(Stem))
        if init is not None:
            _check_choice("init", init, get_args(Init))
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        norm_layer = _norm_layer(norm, norm_groups, ghost_size, bn_momentum, bn_eps)
        model = constructor(
            weights=None, num_classes=num_classes, zero_init_residual=zero_init_residual, norm_layer=norm_layer
        )
        if stem == "cifar":
            model.conv1 = nn.Conv2d(3, model.conv1.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # torchvision's rule
            model.maxpool = nn.Identity()
        if init is not None:
            initialise(model, init, zero_init_residual=zero_init_residual)
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = _BUILD_DOC.format(name=name)
    return build


_BUILD_DOC = """Builds torchvision's {name}: images (N, 3, H, W) to logits (N, num_classes).

Args:
    num_classes: number of logits.
    stem: `imagenet` (7x7 stride 2, then max-pool: 1/4 of the size) or `cifar` (3x3 stride 1, no max-pool: full size).
    norm: `batch`, `group` (GroupNorm), `layer` (GroupNorm with one group: a sample's whole map) or `ghost`
        (GhostBatchNorm2d).
    norm_groups: groups of `group`; must divide every layer's channels (64 to 2048); other norms ignore it.
    ghost_size: samples in a virtual batch of `ghost`, which requires it; other norms ignore it.
    bn_momentum: weight of the new statistic in the running ones (torch's convention) of `batch` and `ghost`.
    bn_eps: added to the variance, in every norm.
    zero_init_residual: the last norm of each residual branch starts at scale 0 (Goyal et al. 2017).
    init: a name in `INITS`, applied to all convolution and linear weights; None keeps torchvision's default.

Raises:
    ValueError: an unknown `stem`, `norm` or `init`, or a number out of range.

Source: He et al. 2015 (arXiv 1512.03385), torchvision.models.{name}.
"""


def _norm_layer(
    norm: str, norm_groups: int, ghost_size: int | None, bn_momentum: float, bn_eps: float
) -> Callable[[int], nn.Module]:
    """Returns channels -> norm layer."""
    _check_choice("norm", norm, get_args(Norm))
    if not 0 <= bn_momentum <= 1:
        raise ValueError(f"bn_momentum must be in [0, 1] (weight of the new statistic), got {bn_momentum}")
    if not bn_eps > 0:
        raise ValueError(f"bn_eps must be > 0, got {bn_eps}")
    if norm == "batch":
        return partial(nn.BatchNorm2d, momentum=bn_momentum, eps=bn_eps)
    if norm == "ghost":
        if ghost_size is None or ghost_size < 1:
            raise ValueError(f"norm ghost needs ghost_size >= 1, the samples in a virtual batch; got {ghost_size}")
        return partial(GhostBatchNorm2d, ghost_size=ghost_size, momentum=bn_momentum, eps=bn_eps)

    groups = 1 if norm == "layer" else norm_groups

    def group_norm(channels: int) -> nn.GroupNorm:
        if groups < 1 or channels % groups:
            raise ValueError(f"norm_groups must divide every layer's channels: {groups} does not divide {channels}")
        return nn.GroupNorm(groups, channels, eps=bn_eps)

    return group_norm


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(choices)}")


resnet18 = _builder("resnet18")
resnet34 = _builder("resnet34")
resnet50 = _builder("resnet50")
