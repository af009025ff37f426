"""The rules once more, from the formulas, in NumPy float64: what the optimizers are compared with."""

import numpy as np

SHAPES = ((4, 3, 3, 3), (5, 7), (6,), (1,))


def problem(steps=16, seed=0, shapes=SHAPES):
    """Initial weights, gradients of each step, and a changing learning rate; now and then a norm is zero."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) * rng.uniform(0.1, 3) for shape in shapes] for _ in range(steps)]
    weights[min(1, len(shapes) - 1)][:] = 0
    for t, tensor in ((steps // 4, 0), (steps // 3, -1)):
        gradients[t][tensor][:] = 0
    rates = [0.5 * (1 + np.cos(np.pi * t / steps)) * (t + 1) / steps + 0.05 for t in range(steps)]
    return weights, gradients, rates


def micro_batches(steps=16, seed=0, shapes=SHAPES, count=3):
    """Gradients by micro-batch: ``[step][parameter][micro-batch]``, with a signal in common."""
    rng = np.random.default_rng(1000 + seed)
    signals = problem(steps, seed, shapes)[1]
    return [[[g + rng.normal(size=g.shape) for _ in range(count)] for g in grads] for grads in signals]


def phi(t, alpha, lam, delay_steps, floor):
    shifted = t + 1 if delay_steps is None else t - delay_steps
    return 1 / (alpha + np.exp(lam * shifted)) + floor


def lars(weights, gradients, rates, *, momentum=0.9, weight_decay=5e-4, eta=1e-3, eps=0.0, denominator="sum",
         momentum_placement="inside", nesterov=False, exclude_1d=True, norm_clamp=None, maximize=False,
         of_rate=lambda t: 1.0, of_ratio=lambda t: 1.0, clip=False, spreads=None):  # fmt: skip
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
                if spreads is not None:  # CLARS: mean_i ||g_i||
                    ng = spreads[t][i]
                if norm_clamp is not None:
                    nw, ng = min(nw, norm_clamp), min(ng, norm_clamp)
                below = ng + {"sum": weight_decay * nw, "joint": 0.0, "bare": weight_decay}[denominator] + eps
                ratio = (eta * nw / below if nw > 0 and ng > 0 else 1.0) * of_ratio(t)
                if clip:  # LARC
                    ratio = min(ratio / rate, 1.0)
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


def larc(weights, gradients, rates, *, momentum_placement="outside", **lars_args):
    return lars(weights, gradients, rates, momentum_placement=momentum_placement, clip=True, **lars_args)


def clars(weights, gradients, rates, *, shares, **lars_args):
    """`gradients[t][i]` is the list of parameter i's gradients on the micro-batches."""
    whole = [[sum(s * g for s, g in zip(shares, parts, strict=True)) for parts in step] for step in gradients]
    mean_norms = [
        [sum(s * np.sqrt((g * g).sum()) for s, g in zip(shares, parts, strict=True)) for parts in step]
        for step in gradients
    ]
    return lars(weights, whole, rates, spreads=mean_norms, **lars_args)


def sam(weights, gradients, rates, *, pull, rho=0.05, adaptive=False, momentum=0.9, weight_decay=0.0):
    """SAM around torch's Nesterov; the gradient of step t at the point x is ``gradients[t] + pull * x``."""
    out = [w.copy() for w in weights]
    buffers = [np.zeros_like(w) for w in weights]
    for grads, rate in zip(gradients, rates, strict=True):
        here = [g + pull * w for g, w in zip(grads, out, strict=True)]
        if adaptive:
            scales = [abs(w) + 0.01 if w.ndim > 1 else 1.0 for w in out]
            length = np.sqrt(sum(((t * g) ** 2).sum() for t, g in zip(scales, here, strict=True)))
            climbed = [w + rho * t**2 * g / length for w, t, g in zip(out, scales, here, strict=True)]
        else:
            length = np.sqrt(sum((g**2).sum() for g in here))
            climbed = [w + rho * g / length for w, g in zip(out, here, strict=True)]
        for i, (g, w) in enumerate(zip(grads, climbed, strict=True)):
            d = g + pull * w + weight_decay * out[i]
            buffers[i] = momentum * buffers[i] + d
            out[i] = out[i] - rate * (d + momentum * buffers[i])
    return out


def sm3(weights, gradients, rates, *, momentum=0.9, weight_decay=0.0, eps=1e-30):
    """By index, as the paper's Algorithm SM3-II reads: each weight is covered by its row, its column, ..."""
    out = [w.copy() for w in weights]
    averages = [np.zeros_like(w) for w in weights]
    covers = [[np.zeros(n) for n in w.shape] for w in weights]
    for grads, rate in zip(gradients, rates, strict=True):
        for i, g in enumerate(grads):
            fresh = [np.zeros_like(cover) for cover in covers[i]]
            nu = np.zeros_like(g)
            for index in np.ndindex(*g.shape):
                nu[index] = min(covers[i][r][j] for r, j in enumerate(index)) + g[index] ** 2
                for r, j in enumerate(index):
                    fresh[r][j] = max(fresh[r][j], nu[index])
            covers[i] = fresh
            averages[i] = momentum * averages[i] + (1 - momentum) * g / np.sqrt(nu + eps)
            decay = weight_decay if g.ndim > 1 else 0.0
            out[i] = out[i] - rate * (averages[i] + decay * out[i])
    return out


def muon(weights, gradients, rates, *, momentum=0.95, nesterov=True, weight_decay=0.01, ns_steps=5,
         scale="match_rms_adamw", rest_lr=1.0, betas=(0.9, 0.95), eps=1e-8, ns_precision="full"):  # fmt: skip
    out = [w.copy() for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i, g in enumerate(grads):
            w = out[i]
            if w.ndim <= 1:
                first[i] = betas[0] * first[i] + (1 - betas[0]) * g
                second[i] = betas[1] * second[i] + (1 - betas[1]) * g * g
                m_hat, v_hat = first[i] / (1 - betas[0] ** t), second[i] / (1 - betas[1] ** t)
                out[i] = w - rest_lr * rate * m_hat / (np.sqrt(v_hat) + eps)
                continue
            first[i] = momentum * first[i] + (1 - momentum) * g
            x = ((1 - momentum) * g + momentum * first[i] if nesterov else first[i]).reshape(len(w), -1)
            rows, columns = x.shape
            x = x / np.linalg.norm(x)
            for _ in range(ns_steps):  # as a function of the singular values
                u, s, v = np.linalg.svd(x, full_matrices=False)
                x = (u * (3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5)) @ v
            size = 0.2 * np.sqrt(max(rows, columns)) if scale == "match_rms_adamw" else np.sqrt(max(1, rows / columns))
            out[i] = w - rate * (size * x.reshape(w.shape) + weight_decay * w)
    return out


def shampoo(weights, gradients, rates, *, momentum=0.9, nesterov=False, betas=(0.999, 0.99), weight_decay=0.0,
            graft="adam", block=512, interval=10, start=10, eps=1e-6, graft_eps=1e-8):  # fmt: skip
    out = [w.copy() for w in weights]
    buffers, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    statistics, roots = {}, {}

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag((values.clip(0) + eps * values[-1]) ** -0.25) @ vectors.T

    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i, g in enumerate(grads):
            w = out[i]
            second[i] = betas[0] * second[i] + (1 - betas[0]) * g * g
            update = g / (np.sqrt(second[i] / (1 - betas[0] ** t)) + graft_eps) if graft == "adam" else g
            if w.ndim > 1:
                matrix = g.reshape(len(g), -1)
                whitened = np.zeros_like(matrix)
                high, wide = (int(np.ceil(n / np.ceil(n / block))) for n in matrix.shape)
                for y in range(0, matrix.shape[0], high):
                    for x in range(0, matrix.shape[1], wide):
                        piece = matrix[y : y + high, x : x + wide]
                        for side, product in (("left", piece @ piece.T), ("right", piece.T @ piece)):
                            key = (i, y, x, side)
                            statistics[key] = betas[1] * statistics.get(key, 0) + (1 - betas[1]) * product
                            if t >= start and (t % interval == 0 or key not in roots):
                                roots[key] = root(statistics[key] / (1 - betas[1] ** t))
                        if t >= start:
                            whitened[y : y + high, x : x + wide] = (
                                roots[i, y, x, "left"] @ piece @ roots[i, y, x, "right"]
                            )
                if t >= start:
                    size = np.linalg.norm(whitened)
                    factor = 1 if graft == "none" or not size else np.linalg.norm(update) / size
                    update = factor * whitened.reshape(w.shape)
                update = update + weight_decay * w
            buffers[i] = momentum * buffers[i] + update
            out[i] = w - rate * (update + momentum * buffers[i] if nesterov else buffers[i])
    return out


def adan(weights, gradients, rates, *, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0):
    """Algorithm 1 of Xie et al. with bias correction; in its symbols the betas are one minus ours."""
    b1, b2, b3 = (1 - beta for beta in betas)
    out = [w.copy() for w in weights]
    m, v, n = ([np.zeros_like(w) for w in weights] for _ in range(3))
    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True)):
        for i, g in enumerate(grads):
            change = g - gradients[t - 1][i] if t else 0 * g
            m[i] = (1 - b1) * m[i] + b1 * g
            v[i] = (1 - b2) * v[i] + b2 * change
            n[i] = (1 - b3) * n[i] + b3 * (g + (1 - b2) * change) ** 2
            m_hat, v_hat, n_hat = (x[i] / (1 - (1 - b) ** (t + 1)) for x, b in ((m, b1), (v, b2), (n, b3)))
            step = rate / (np.sqrt(n_hat) + eps) * (m_hat + (1 - b2) * v_hat)
            out[i] = (out[i] - step) / (1 + weight_decay * rate)
    return out


def schedulefree_sgd(weights, gradients, rates, *, momentum=0.9, weight_decay=0.0, directions=None):
    """Defazio et al., eq. 3 to 5, weighted by the square of the largest rate so far; returns y, the training point."""
    x, z = [w.copy() for w in weights], [w.copy() for w in weights]
    out = [w.copy() for w in weights]
    total = 0.0
    for t, (grads, rate) in enumerate(zip(gradients, rates, strict=True)):
        weight = max(rates[: t + 1]) ** 2
        total += weight
        for i, g in enumerate(grads if directions is None else directions(t, grads)):
            z[i] = z[i] - rate * (g + weight_decay * out[i])
            x[i] = x[i] + weight / total * (z[i] - x[i])
            out[i] = (1 - momentum) * z[i] + momentum * x[i]
    return out


def schedulefree_adamw(weights, gradients, rates, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    second = [np.zeros_like(w) for w in weights]

    def directions(t, grads):
        for i, g in enumerate(grads):
            second[i] = betas[1] * second[i] + (1 - betas[1]) * g * g
            yield g / (np.sqrt(second[i] / (1 - betas[1] ** (t + 1))) + eps)

    return schedulefree_sgd(
        weights, gradients, rates, momentum=betas[0], weight_decay=weight_decay, directions=directions
    )


def lamb(weights, gradients, rates, *, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, bias_correction=True,
         exclude_1d=False, ratio_clip=None, grad_clip=None, norm_clamp=None, unit_ratio=False,
         maximize=False):  # fmt: skip
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
            out[i] = w - rate * (1.0 if excluded or unit_ratio else ratio) * u
    return out
