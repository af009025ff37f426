"""Normalized SGD with momentum: a plug-in, which `lbt.yaml` lists."""

import torch


class NSGD(torch.optim.Optimizer):
    """Every update has the length `lr` (Cutkosky and Mehta 2020, arXiv 2002.03305): w <- w - lr * m / ||m||."""

    def __init__(self, params, lr: float, *, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """Makes one update; `m` is the moving average of the gradient of all weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = []
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            averages = [self.state[weight].setdefault("average", torch.zeros_like(weight)) for weight in weights]
            torch._foreach_lerp_(averages, [weight.grad for weight in weights], 1 - group["momentum"])
            moving.append((group["lr"], weights, averages))
        averages = [average for _, _, of_group in moving for average in of_group]
        if averages:
            length = torch.stack(torch._foreach_norm(averages)).norm().clamp_min(1e-12)
            for lr, weights, averages in moving:
                torch._foreach_sub_(weights, torch._foreach_mul(averages, lr / length))
        return loss


OPTIMIZERS = {"nsgd": NSGD}
