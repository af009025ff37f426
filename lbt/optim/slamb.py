"""SLAMB: LAMB that exchanges a part of its momentum in turn (Xu et al. 2023, ICML)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.checks import check, check_betas, check_number
from lbt.optim.gradients import Gradients, views
from lbt.optim.layerwise import LayerwiseOptimizer, arguments_are_defaults
from lbt.optim.own_weights import OwnWeights
from lbt.optim.tensors import norms, scalar_for, wide_dtype

RATIOS = (0.01, 1000.0)  # bounds of the trust ratio of what is exchanged in part


class SLAMB(OwnWeights, LayerwiseOptimizer):
    r"""SLAMB: each worker takes LAMB's steps by itself, and a chunk of the momentum is averaged in each of them.

    Each worker has moments, and weights, of its own. A fixed random permutation cuts the elements of each layer in
    ``1/k`` chunks; step t averages the chunk ``t mod 1/k`` of the momentum over the workers (the authors permute all
    layers together). Tensors of ``ndim <= 1``, or smaller than ``exchanged_below``, are always exchanged whole. ``a``
    counts the steps since an element was last exchanged, ``s = beta3**a``. With Adam's bias-corrected direction ``u``
    (plus ``wd * w``), ``r_1 = ||w|| / ||u||`` over the elements exchanged in this step and ``r_0`` over the others: ``w
    -= (s * lr + (1 - s) * lr / sqrt(n)) * (s * r_1 + (1 - s) * r_0) * u``, the latter clamped to [0.01, 1000]; what is
    exchanged whole has LAMB's ratio. Every ``average_steps`` steps of a layer its weights are averaged over the
    workers.

    The parameters hold the weights of this process' first worker. With several, ``show_worker(worker)`` puts another
    one's there, before its forward pass. ``eval()`` shows the mean over all workers, ``train()`` undoes that; all
    processes call both.

    Args:
        params: Tensors, or groups of them, which may override each argument below but ``workers``.
        lr: Learning rate: the relative change of a layer's weights in one step.
        workers: Workers on this process; None is 1. See `lbt.optim.workers.LocalGradients`.
        k: Share of the momentum that is exchanged in a step; 1/k is rounded to a whole number.
        beta3: Trust in an element's momentum, a step since it was exchanged.
        average_steps: Steps between two averagings of the weights; the authors have 50 for CIFAR-10, 100 for more.
        exchanged_below: Elements of the smallest tensor that is exchanged in part.
        betas: Decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: wd, decoupled: added to Adam's direction before the ratio.
        seed: Of the permutations.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers.
    """

    per_worker = ("exp_avg", "exp_avg_sq", "weights")

    @arguments_are_defaults
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        workers: int | None = None,
        k: float = 0.1,
        beta3: float = 0.99,
        average_steps: int = 50,
        exchanged_below: int = 9000,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        seed: int = 0,
        maximize: bool = False,
    ): ...

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a bad argument in ``group``."""
        self.check_workers(group)
        for name in ("lr", "eps", "weight_decay"):
            check_number(name, group[name])
        check_betas(group["betas"])
        check_number("k", group["k"], open_low=True)
        check("k", group["k"], group["k"] <= 1, "> 0 and at most 1")
        check_number("beta3", group["beta3"])
        check("beta3", group["beta3"], group["beta3"] <= 1, "at most 1")
        for name, least in (("average_steps", 1), ("exchanged_below", 0), ("seed", 0)):
            whole = isinstance(group[name], int) and not isinstance(group[name], bool)
            check(name, group[name], whole and group[name] >= least, f"a whole number >= {least}")

    def _forget_steps(self) -> None:
        super()._forget_steps()
        self._places: dict[Any, Tensor] = {}

    # --- the step

    def begin_step(self) -> None:
        """See that gradients are there."""
        self.begin_with_own_weights()
        self._exchange = self.exchange()

    def end_step(self) -> None:
        """Count what was sent."""
        self.end_collected(self.__dict__.pop("_exchange"))

    def update_group(self, group: dict[str, Any]) -> None:
        """Take one step for one group."""
        index = next(i for i, known in enumerate(self.param_groups) if known is group)
        for found in self.collected(index, self._exchange):
            for layer in found.layers:
                self.state[layer]["step"] = int(self.state[layer].get("step", 0)) + 1
            self._update(found, group)

    def _update(self, found: Gradients, group: dict[str, Any]) -> None:
        exchange, (beta1, beta2), layers = self._exchange, group["betas"], found.layers
        first, second = (self.joined_state(found, name, self.here) for name in ("exp_avg", "exp_avg_sq"))
        rows = found.rows.neg_() if group["maximize"] else found.rows
        first.lerp_(rows, 1 - beta1)
        second.mul_(beta2).addcmul_(rows, rows, value=1 - beta2)
        chosen = self._chosen(found, group)
        mean = exchange.mean(first.index_select(1, chosen))
        first.index_copy_(1, chosen, mean.expand(self.here, -1))
        stale = self.joined_state(found, "staleness")  # 1 - s
        stale.mul_(group["beta3"]).add_(1 - group["beta3"]).index_fill_(0, chosen, 0)
        weights = self.weights_of(found)
        rate = stale.mul(exchange.count**-0.5 - 1).add_(1).mul_(scalar_for(stale, group["lr"]))
        for own, moments in zip(weights, zip(first, second, strict=True), strict=True):
            update = self._direction(found, *moments, group)
            if group["weight_decay"]:
                update.add_(own, alpha=group["weight_decay"])
            own.addcmul_(update, self._ratios(found, own, update, chosen, stale, group).mul_(rate), value=-1)
        self._average(found, weights, group)
        pieces = views(weights, layers)
        self.put([(layer, piece[0]) for layer, piece in zip(layers, pieces, strict=True)])

    def _direction(self, found: Gradients, first: Tensor, second: Tensor, group: dict[str, Any]) -> Tensor:
        sizes, steps = zip(*[(layer.numel(), self.state[layer]["step"]) for layer in found.layers], strict=True)
        of_first, of_second = ([1 - beta**step for step in steps] for beta in group["betas"])
        below = second.sqrt()  # of the direction m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
        pieces = list(below.split(sizes))
        torch._foreach_mul_(pieces, [a / b**0.5 for a, b in zip(of_first, of_second, strict=True)])
        torch._foreach_add_(pieces, [a * group["eps"] for a in of_first])
        return torch.div(first, below, out=below)

    def _chunks(self, layer: Tensor, group: dict[str, Any]) -> int:
        """In how many chunks a layer is exchanged."""
        whole = layer.ndim <= 1 or layer.numel() < group["exchanged_below"]
        return 1 if whole else max(1, round(1 / group["k"]))

    def _chosen(self, found: Gradients, group: dict[str, Any]) -> Tensor:
        """The places that are exchanged in this step, sorted, in the layers' vector."""
        turns = [(self._chunks(layer, group), self.state[layer]["step"] - 1) for layer in found.layers]
        turns = [(count, step % count) for count, step in turns]
        key = (found.key, tuple(map(id, found.layers)), tuple(turns))
        if key not in self._places:
            places, start = [], 0
            for layer, (count, turn) in zip(found.layers, turns, strict=True):
                places.append(start + chunk(layer.numel(), count, turn, group["seed"]))
                start += layer.numel()
            self._places[key] = torch.cat(places).to(layer.device)
        return self._places[key]

    def _ratios(
        self, found: Gradients, weights: Tensor, update: Tensor, chosen: Tensor, stale: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """The trust ratios by element, ``[d]``."""
        sizes = [layer.numel() for layer in found.layers]
        parts = [self._chunks(layer, group) for layer in found.layers]
        turns = [(self.state[layer]["step"] - 1) % count for layer, count in zip(found.layers, parts, strict=True)]
        counts = [len(within(*one)) for one in zip(sizes, parts, turns, strict=True)]
        found_norms = []
        for vector in (weights, update):
            whole = norms(list(vector.split(sizes))).double()
            part = norms(list(vector[chosen].split(counts))).double()
            part = torch.where(torch.tensor([count == 1 for count in parts], device=part.device), whole, part)
            rest = whole.square() - part.square()
            rest = torch.where(rest > whole.square() * torch.finfo(vector.dtype).eps * 4, rest, 0).sqrt()
            found_norms.append((part, rest))
        ratios = [_ratio(weight, length) for weight, length in zip(*found_norms, strict=True)]
        self.keep_ratios(found.layers, ratios[0].to(wide_dtype(update)))
        of_part, of_rest = (ratio.to(update.dtype).unbind() for ratio in ratios)
        pieces = [
            one.lerp(other, age).clamp_(*RATIOS) if count > 1 else one.expand(size)
            for one, other, age, count, size in zip(of_part, of_rest, stale.split(sizes), parts, sizes, strict=True)
        ]
        return torch.cat(pieces)

    def _average(self, found: Gradients, weights: Tensor, group: dict[str, Any]) -> None:
        due = [self.state[layer]["step"] % group["average_steps"] == 0 for layer in found.layers]
        if self._exchange.count == 1 or not any(due):
            return
        pieces = weights.split([layer.numel() for layer in found.layers], dim=1)
        chosen = [piece for piece, now in zip(pieces, due, strict=True) if now]
        mean = self._exchange.mean(torch.cat(chosen, dim=1))
        for piece, value in zip(chosen, mean.split([piece.shape[1] for piece in chosen]), strict=True):
            piece.copy_(value.expand_as(piece))


def chunk(size: int, count: int, turn: int, seed: int) -> Tensor:
    """Sorted places, of ``size``, of one of the ``count`` chunks that a seed's permutation is cut in."""
    if count == 1:
        return torch.arange(size, device="cpu")
    order = torch.randperm(size, generator=torch.Generator("cpu").manual_seed(seed + size), device="cpu")
    places = within(size, count, turn)
    return order[places.start : places.stop].sort().values


def within(size: int, count: int, turn: int) -> range:
    """Which elements of a permutation are a chunk."""
    return range(turn * size // count, (turn + 1) * size // count)


def _ratio(weight: Tensor, length: Tensor) -> Tensor:
    return torch.where((weight > 0) & (length > 0), weight / length, 1)


OPTIMIZERS = {"slamb": SLAMB}
