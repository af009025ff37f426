"""Workers that have weights of their own: which of them the parameters show, and the state that holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lbt.optim.gradients import Gradients, side_by_side, views
from lbt.optim.workers import LocalGradients


class OwnWeights(LocalGradients):
    """Part of an optimizer whose workers have weights of their own.

    The parameters hold those of this process' first worker. With several, ``show_worker(worker)`` puts another one's
    there. ``eval()`` shows the mean over all workers, ``train()`` undoes that; all processes call both.
    """

    def _forget_steps(self) -> None:
        super()._forget_steps()
        self.forget_joined()
        self._shown, self._mean = 0, None

    def begin_with_own_weights(self) -> None:
        """See that gradients are there, and show the first worker's weights."""
        if self._mean is not None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.step between eval() and train(): the parameters show the mean over workers")
        self.begin_collected()
        self.show_worker(0)

    def show_worker(self, worker: int) -> None:
        """Put the weights of a worker of this process into the parameters.

        Args:
            worker: From 0.
        """
        self._keep_shown()
        self.put([(param, held["weights"][worker]) for param, held in self._apart()])
        self._shown = worker

    def _apart(self) -> list[tuple[Tensor, dict[str, Any]]]:
        params = (param for group in self.param_groups for param in group["params"])
        return [(param, self.state[param]) for param in params if "weights" in self.state.get(param, {})]

    @torch.no_grad()
    def _keep_shown(self) -> None:
        """Take over what somebody may have changed of the weights that are shown."""
        self.put([(held["weights"][self._shown], param) for param, held in self._apart()])

    @torch.no_grad()
    def put(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Copy the second of each pair into the first."""
        if pairs:
            into, what = zip(*pairs, strict=True)
            torch._foreach_copy_(list(into), list(what))

    @torch.no_grad()
    def eval(self) -> None:
        """Show the mean of all workers' weights; nothing is counted as sent."""
        exchange = self.exchange()
        if self._mean is not None or exchange.count == 1:
            return
        self.show_worker(0)
        params = [param for group in self.param_groups for param in group["params"]]
        self._mean = [param.clone() for param in params]
        for param in params:
            held = self.state.get(param, {}).get("weights", param.unsqueeze(0))
            param.copy_(exchange.summed(held.sum(0) / exchange.count))

    @torch.no_grad()
    def train(self) -> None:
        """Show the first worker's weights again."""
        if self._mean is not None:
            self.put(list(zip([p for group in self.param_groups for p in group["params"]], self._mean, strict=True)))
            self._mean = None

    def worker_state(self, param: Tensor, held: dict[str, Any]) -> dict[str, Tensor]:
        """What the workers of this process have each for itself."""
        if self.exchange().count == 1:
            return {}
        return {"weights": param.detach().unsqueeze(0)} | super().worker_state(param, held)

    def state_dict(self) -> dict[str, Any]:
        """The state of this process' workers, and of all after `consolidate_state_dict`."""
        return self.whole_state_dict(super().state_dict())

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` gave, and show the first worker's weights.

        Raises:
            ValueError: It is that of another number of workers.
        """
        super().load_state_dict(self.own_state_dict(state_dict))
        self.put([(param, held["weights"][0]) for param, held in self._apart()])
        if self.here == 1:
            for held in self.state.values():
                held.pop("weights", None)

    def weights_of(self, found: Gradients) -> Tensor:
        """The weights of this process' workers, ``[here, d]``; the parameters show the first one's."""
        if self.here == 1:
            return side_by_side([layer.detach() for layer in found.layers]).to(found.rows.dtype).unsqueeze(0)

        def begin(vector: Tensor) -> None:
            pieces = zip(found.layers, views(vector, found.layers), strict=True)
            for layer, piece in pieces:
                if layer in fresh:
                    piece.copy_(layer.detach().expand_as(piece))

        fresh = {layer for layer in found.layers if "weights" not in self.state[layer]}
        return self.joined_state(found, "weights", self.here, None, begin)
