"""JointSpar: a random part of the layers takes part in an update (Liu and Mozafari 2022, ICML)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from lbt.optim.checks import check, check_number
from lbt.optim.generic import groups_of
from lbt.optim.sam import build_base
from lbt.optim.wrapping import WrappingWorkers

STRONGEST = 1.0  # largest exponent of one step of the probabilities


class JointSpar(WrappingWorkers):
    r"""JointSpar: the update of another optimizer, with a gradient of some of the layers, drawn by learned chances.

    Layer l takes part in a step with probability ``p_l``, ``floor <= p_l <= 1``, ``sum p = share * layers`` of its
    group; the base optimizer gets ``g_l / p_l``, which is right in the mean, and leaves the other layers as they are,
    their momentum and decay too. The gradient of those is neither exchanged nor, after ``begin_update()``, computed. A
    layer is a matrix with the vectors that follow it; vectors before the first matrix always take part. All workers
    draw the same.

    The chances lower ``sum ||g_l||^2 / p_l``, whose best are proportional to ``||g_l||``: mirror descent (the exact
    update of the paper was not at hand), ``p_l = p_l * exp(rate * Z_l / p_l * ||g_l||^2 / (p_l^2 * m))``, with ``m =
    (sum Z_l / p_l * ||g_l|| / S)^2``, and the nearest point of the capped simplex, ``clip(c * p, floor, 1)``.

    `JointSparLARS` is the same around `LARS`, which normalises the weighted gradient layer by layer.

    Args:
        params: Tensors, or groups of them, which may override the base's arguments; the order of all says what follows.
        lr: Learning rate of the base optimizer.
        workers: Workers on this process; None is 1. See `lbt.optim.workers.LocalGradients`.
        base: Its name and arguments; None is ``{"name": "sgd"}``, or LARS.
        share: Of the layers that take part in a step, in the mean; 1 is the base optimizer.
        floor: Smallest probability.
        rate: Of the mirror descent; 0 leaves the chances equal.
        seed: Of the draws.
        maximize: Go up the gradient.

    Raises:
        ValueError: A bad argument, by its name and value; complex or sparse parameters; pieces of layers.
    """

    default_base: ClassVar[dict[str, Any]] = {"name": "sgd"}
    mark = "places"
    heavy_ball = False  # a layer at rest keeps its buffer
    layers_by_place = True  # a layer is known by what stands beside it

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        workers: int | None = None,
        base: dict | None = None,
        share: float = 0.5,
        floor: float = 0.1,
        rate: float = 0.1,
        seed: int = 0,
        maximize: bool = False,
    ):
        check_number("share", share, open_low=True)
        check_number("floor", floor, open_low=True)
        check("share", share, share <= 1, "> 0 and at most 1")
        check("floor", floor, floor <= share, "> 0 and at most the share")
        check_number("rate", rate)
        check("seed", seed, isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0, "a whole number >= 0")
        groups = groups_of(params)
        inner = build_base(groups, lr, self.default_base if base is None else dict(base), maximize)
        own = {"share": share, "floor": floor, "rate": rate, "seed": seed, "draws": 0}
        super().__init__(inner, {"workers": workers, "maximize": maximize, **own})
        self.keep(groups)

    def keep(self, groups: list[dict[str, Any]]) -> None:
        """Keep where parameters stand among all, which the base optimizer may have put into other groups."""
        known = sum(len(group.get("places", ())) for group in self.param_groups)
        given = [member[1] if isinstance(member, tuple) else member for group in groups for member in group["params"]]
        place = {param: known + number for number, param in enumerate(given)}
        for group in self.param_groups:
            self.check_workers(group)
            if "places" not in group:
                group["places"] = [place[param] for param in group["params"]]

    def row_count(self) -> int:
        """Rows of collected gradients: their sum is what is exchanged."""
        return 1

    def row_of(self, worker: int) -> int:
        """The row of a worker."""
        return 0

    # --- drawing

    def layers(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The layers that are drawn, and the vectors before the first one."""
        placed = [pair for group in self.param_groups for pair in zip(group["places"], group["params"], strict=True)]
        params = [param for _, param in sorted(placed, key=itemgetter(0))]
        return layers_of(params), leading_vectors(params)

    def chances(self) -> list[float]:
        """The probabilities of the layers; the first group keeps them."""
        group, count = self.param_groups[0], len(self.layers()[0])
        if len(group.get("chances", [])) != count:
            group["chances"] = [group["share"]] * count
        return group["chances"]

    def drawn(self) -> list[bool]:
        """Which layers take part in the step about to be made."""
        group = self.param_groups[0]
        chances = torch.tensor(self.chances(), dtype=torch.float64, device="cpu")
        generator = torch.Generator("cpu").manual_seed(group["seed"] * 1_000_003 + group["draws"])
        return (torch.rand(len(chances), generator=generator, dtype=torch.float64, device="cpu") < chances).tolist()

    def begin_update(self) -> None:
        """Have autograd leave the layers out that will not take part; called before the forward pass.

        `step` has them require a gradient again.
        """
        self._require_again()
        for layer, taken in zip(self.layers()[0], self.drawn(), strict=True):
            self._resting += [param for param in layer if param.requires_grad and not taken]
        for param in self._resting:
            param.requires_grad_(False)

    def _require_again(self) -> None:
        for param in self.__dict__.get("_resting", []):
            param.requires_grad_(True)
        self._resting: list[Tensor] = []

    def trust_ratios(self) -> dict[Tensor, Tensor]:
        """Trust ratios of the last step, as the base optimizer tells them; 0 of the layers that took no part in it."""
        told = self.inner.trust_ratios() if hasattr(self.inner, "trust_ratios") else {}
        return {**told, **{param: param.new_zeros(()) for param in self.__dict__.get("_rested", [])}}

    # --- the step

    @torch.compiler.disable  # who is drawn is new in each step
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Exchange the gradients of the layers that take part, and take the base optimizer's step with them.

        Args:
            closure: Re-evaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, else None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.begin_collected()
        exchange, group = self.exchange(), self.param_groups[0]
        (layers, always), taken = self.layers(), self.drawn()
        drawn = [pair for pair, ok in zip(zip(layers, self.chances(), strict=True), taken, strict=True) if ok]
        chance_of = dict.fromkeys(always, 1.0) | {param: chance for layer, chance in drawn for param in layer}
        given: dict[Tensor, Tensor] = {}
        lengths: dict[Tensor, Tensor] = {}
        for index in range(len(self.param_groups)):
            for found in self.collected(index, exchange):
                found = found.only([param in chance_of for param in found.layers])
                if not found.layers:
                    continue
                pieces = found.views(exchange.mean(found.rows))
                if group["share"] < 1 and group["rate"]:
                    lengths |= dict(zip(found.layers, torch._foreach_norm(pieces, 2, dtype=torch.float64), strict=True))
                torch._foreach_mul_(pieces, [1 / chance_of[param] for param in found.layers])
                given |= dict(zip(found.layers, pieces, strict=True))
        self._rested = [param for layer in layers for param in layer if param not in chance_of]
        self._learn(layers, taken, lengths)
        self.step_with(given)
        self._require_again()
        self.end_collected(exchange)
        return loss

    def _learn(self, layers: list[list[Tensor]], taken: list[bool], lengths: dict[Tensor, Tensor]) -> None:
        """Count the draw and move the chances; waits for the device, because the host draws."""
        group = self.param_groups[0]
        group["draws"] = group["draws"] + 1
        if not lengths:
            return
        first = next(iter(lengths.values()))
        asked = dict(
            zip(lengths, torch.stack([one.to(first.device) for one in lengths.values()]).tolist(), strict=True)
        )
        norms = [
            math.hypot(*(asked.get(param, 0.0) for param in layer)) if ok else 0.0
            for layer, ok in zip(layers, taken, strict=True)
        ]
        total = group["share"] * len(layers)
        if all(map(math.isfinite, norms)) and any(norms):
            group["chances"] = descend(group["chances"], norms, total, group["floor"], group["rate"])


class JointSparLARS(JointSpar):
    """JointSpar around LARS, which normalises the weighted gradient layer by layer; see `JointSpar`."""

    default_base: ClassVar[dict[str, Any]] = {"name": "lars"}


def layers_of(params: Sequence[Tensor]) -> list[list[Tensor]]:
    """Matrices, each with the vectors that follow it."""
    layers: list[list[Tensor]] = []
    for param in params:
        if param.ndim > 1:
            layers.append([param])
        elif layers:
            layers[-1].append(param)
    return layers


def leading_vectors(params: Sequence[Tensor]) -> list[Tensor]:
    """Vectors before the first matrix."""
    first = next((place for place, param in enumerate(params) if param.ndim > 1), len(params))
    return list(params[:first])


def descend(chances: Sequence[float], norms: Sequence[float], total: float, floor: float, rate: float) -> list[float]:
    """The chances after a step of mirror descent on ``sum norms^2 / chances``.

    Args:
        chances: Before.
        norms: Of the gradients of the layers drawn, 0 of the others.
        total: What they add up to, S.
        floor: The smallest.
        rate: Of the descent.
    """
    mean = sum(norm / p for norm, p in zip(norms, chances, strict=True)) / total
    steps = [min(STRONGEST, rate / p * (norm / (p * mean)) ** 2) for norm, p in zip(norms, chances, strict=True)]
    return capped([p * math.exp(step) for p, step in zip(chances, steps, strict=True)], total, floor)


def capped(weights: Sequence[float], total: float, floor: float) -> list[float]:
    """The point ``clip(c * weights, floor, 1)`` with the sum ``total``: the nearest in relative entropy."""
    low, high = 0.0, 1 / min(weights)
    for _ in range(100):
        middle = (low + high) / 2
        if sum(min(1.0, max(floor, middle * weight)) for weight in weights) < total:
            low = middle
        else:
            high = middle
    return [min(1.0, max(floor, high * weight)) for weight in weights]


OPTIMIZERS = {"jointspar": JointSpar, "jointspar_lars": JointSparLARS}
