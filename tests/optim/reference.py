"""The rules once more, from the formulas, in NumPy float64: what the optimizers are compared with."""

import numpy as np

SHAPES = ((4, 3, 3, 3), (5, 7), (6,), (1,))


def problem(steps=16, seed=0, shapes=SHAPES):
    """Initial weights, gradients of each step, and a changing learning rate."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) * rng.uniform(0.1, 3) for shape in shapes] for _ in range(steps)]
    rates = [0.5 * (1 + np.cos(np.pi * t / steps)) * (t + 1) / steps + 0.05 for t in range(steps)]
    return weights, gradients, rates


def phi(t, alpha, lam, delay_steps, floor):
    shifted = t + 1 if delay_steps is None else t - delay_steps
    return 1 / (alpha + np.exp(lam * shifted)) + floor


def lars(weights, gradients, rates, *, momentum=0.9, weight_decay=5e-4, eta=1e-3, eps=0.0, denominator="sum",
         momentum_placement="inside", nesterov=False, exclude_1d=True, norm_clamp=None, maximize=False,
         of_rate=lambda t: 1.0, of_ratio=lambda t: 1.0):  # fmt: skip
    out = [w.copy() for w in weights]
    buffers = [np.zeros_like(w) for w in weights]
    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True)):
        rate = rate * of_rate(t)
        for i, g in enumerate(grads):
            w, g = out[i], -g if maximize else g
            if exclude_1d and w.ndim <= 1:
                direction, ratio = g, 1.0
            else:
                direction = g + weight_decay * w
                nw = np.sqrt((w * w).sum())
                ng = np.sqrt(((direction if denominator == "joint" else g) ** 2).sum())
                if norm_clamp is not None:
                    nw, ng = min(nw, norm_clamp), min(ng, norm_clamp)
                below = ng + {"sum": weight_decay * nw, "joint": 0.0, "bare": weight_decay}[denominator] + eps
                ratio = (eta * nw / below if nw > 0 and ng > 0 else 1.0) * of_ratio(t)
            if momentum_placement == "inside":
                added = rate * ratio * direction
                buffers[i] = momentum * buffers[i] + added
                out[i] = w - (momentum * buffers[i] + added if nesterov else buffers[i])
            else:
                added = ratio * direction
                buffers[i] = momentum * buffers[i] + added
                out[i] = w - rate * (momentum * buffers[i] + added if nesterov else buffers[i])
    return out


def tvlars(weights, gradients, rates, *, alpha=1.0, lam=1e-3, delay_steps=0, floor=0.0, phi_scope="all", **lars_args):
    def factor(t):
        return phi(t, alpha, lam, delay_steps, floor)

    where = "of_rate" if phi_scope == "all" else "of_ratio"
    return lars(weights, gradients, rates, **{where: factor}, **lars_args)


def lamb(weights, gradients, rates, *, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, bias_correction=True,
         exclude_1d=False, ratio_clip=None, grad_clip=None, norm_clamp=None, adapt=True, maximize=False):  # fmt: skip
    out = [w.copy() for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    b1, b2 = betas
    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        whole = np.sqrt(sum((g * g).sum() for g in grads))
        clip = 1.0 if grad_clip is None else min(1.0, grad_clip / whole)
        for i, g in enumerate(grads):
            w, g = out[i], clip * (-g if maximize else g)
            first[i] = b1 * first[i] + (1 - b1) * g
            second[i] = b2 * second[i] + (1 - b2) * g * g
            m_hat = first[i] / (1 - b1**t) if bias_correction else first[i]
            v_hat = second[i] / (1 - b2**t) if bias_correction else second[i]
            u = m_hat / (np.sqrt(v_hat) + eps)
            excluded = exclude_1d and w.ndim <= 1
            if not excluded:
                u = u + weight_decay * w
            nw, nu = np.sqrt((w * w).sum()), np.sqrt((u * u).sum())
            if norm_clamp is not None:
                nw = min(nw, norm_clamp)
            ratio = nw / nu if nw > 0 and nu > 0 else 1.0
            if ratio_clip is not None:
                ratio = min(ratio, ratio_clip)
            out[i] = w - rate * (1.0 if excluded or not adapt else ratio) * u
    return out
