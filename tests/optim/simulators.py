"""The rules for several workers in NumPy, float64, from their formulas: whole vectors, one worker after the other."""

import numpy as np


def problem(workers, seed=0, shapes=((4, 6), (7,), (3, 5)), steps=50):
    """Weights, gradients[step][worker][layer] and rates[step] that change."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape) for shape in shapes]
    gradients = [[[rng.standard_normal(s) + 0.3 for s in shapes] for _ in range(workers)] for _ in range(steps)]
    rates = [float(0.02 * (1 + 0.5 * np.sin(t))) for t in range(steps)]
    return weights, gradients, rates


def flat(tensors):
    return np.concatenate([np.ravel(t) for t in tensors])


def sign(x):
    return np.where(np.signbit(x), -1.0, 1.0)


class SignMean:
    """Error-compensated mean of n vectors by signs: a scale for each piece, servers for n chunks."""

    def __init__(self, lengths, workers, mask):
        size = sum(lengths)
        self.mask, self.errors, self.server = mask, np.zeros((workers, size)), np.zeros(size)
        ends = np.cumsum(lengths)
        self.pieces = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        chunk = -(-size // (8 * workers)) * 8
        self.parts = [piece[piece // chunk == j] for piece in self.pieces for j in range(workers)]

    def compress(self, y, pieces):
        out = np.zeros_like(y)
        for piece in pieces:
            count = self.mask[piece].sum()
            if len(piece) and count:
                out[piece] = np.linalg.norm(y[piece]) / np.sqrt(count) * sign(y[piece])
        return out * self.mask

    def __call__(self, vectors):
        sent = []
        for i, vector in enumerate(vectors):
            y = (vector + self.errors[i]) * self.mask
            sent.append(self.compress(y, self.pieces))
            self.errors[i] = y - sent[i]
        z = np.mean(sent, axis=0) * self.mask + self.server
        received = self.compress(z, self.parts)
        self.server = z - received
        return received


def onebit_adam(weights, gradients, rates, *, freeze_steps, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Final weights."""
    w, (b1, b2) = flat(weights), betas
    m, v, mean = np.zeros_like(w), np.zeros_like(w), None
    for t, (local, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = [flat(one) for one in local]
        if t <= freeze_steps:
            m, v = b1 * m + (1 - b1) * np.mean(g, axis=0), b2 * v + (1 - b2) * np.mean(g, axis=0) ** 2
        else:
            mean = mean or SignMean([layer.size for layer in weights], len(g), (v != 0).astype(float))
            m = mean([b1 * m + (1 - b1) * one for one in g])
        corrected = m / (1 - b1**t) / (np.sqrt(v / (1 - b2 ** min(t, freeze_steps))) + eps)
        w = w - lr * (corrected + weight_decay * w)
    return w


def onebit_lamb(
    weights, gradients, rates, *, freeze_steps, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, ratio=(0.01, 10.0),
    factor=(0.5, 4.0), change=0.1,
):  # fmt: skip
    """Final weights."""
    w, (b1, b2) = [layer.copy() for layer in weights], betas
    layers = range(len(w))
    m, v = [np.zeros_like(x) for x in w], [np.zeros_like(x) for x in w]
    c, last, mean = [None] * len(w), [1.0] * len(w), None
    for t, (local, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        if t <= freeze_steps:
            for k in layers:
                g = np.mean([one[k] for one in local], axis=0)
                m[k], v[k] = b1 * m[k] + (1 - b1) * g, b2 * v[k] + (1 - b2) * g**2
                u = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps) + weight_decay * w[k]
                r = np.clip(np.linalg.norm(w[k]) / np.linalg.norm(u), *ratio)
                c[k] = r if c[k] is None else 0.9 * c[k] + 0.1 * r
                w[k] = w[k] - lr * r * u
            continue
        if mean is None:
            rms = np.array([np.sqrt(np.sum(x**2) / max(1, np.count_nonzero(y))) for x, y in zip(m, v, strict=True)])
            scale = np.concatenate([np.full(x.size, rms.mean() / one) for x, one in zip(m, rms, strict=True)])
            fresh = [x.copy() for x in v]
            mean = SignMean([flat(m).size], len(local), (flat(v) != 0).astype(float))
        before = flat(m)
        now = mean([(b1 * before + (1 - b1) * flat(one)) * scale for one in local]) / scale
        g = np.split((now - b1 * before) / (1 - b1), np.cumsum([x.size for x in w])[:-1])
        now = np.split(now, np.cumsum([x.size for x in w])[:-1])
        for k in layers:
            m[k] = now[k].reshape(w[k].shape)
            fresh[k] = b2 * fresh[k] + (1 - b2) * g[k].reshape(w[k].shape) ** 2
            frozen = np.sqrt(v[k] / (1 - b2**freeze_steps)) + eps
            plain = m[k] / (1 - b1**t) / frozen
            u = plain + weight_decay * w[k]
            f = np.max((frozen / (np.sqrt(fresh[k] / (1 - b2**t)) + eps))[v[k] > 0])
            if weight_decay:
                q = min(1.0, np.linalg.norm(plain) / np.linalg.norm(u))
                f = f * q + 1 - q
            f = np.clip(np.clip(f, *factor), last[k] * (1 - change), last[k] * (1 + change))
            last[k] = f
            w[k] = w[k] - lr * c[k] * f * u
    return flat(w)


def slamb(
    weights, gradients, rates, *, chunks, k, beta3=0.99, average_steps=50, below=0, betas=(0.9, 0.999), eps=1e-6,
    weight_decay=0.01,
):  # fmt: skip
    """Final weights of each worker, ``[n, d]``; `chunks` gives a layer's places that are exchanged in turn."""
    n, (b1, b2), count = len(gradients[0]), betas, round(1 / k)
    w = [[layer.copy() for layer in weights] for _ in range(n)]
    m, v = ([[np.zeros_like(layer) for layer in weights] for _ in range(n)] for _ in range(2))
    age = [np.zeros(layer.size) for layer in weights]
    for t, (local, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        for j, layer in enumerate(weights):
            parts = count if layer.ndim > 1 and layer.size >= below else 1
            chosen = np.zeros(layer.size, bool)
            chosen[chunks(layer.size, parts, (t - 1) % parts)] = True
            for i in range(n):
                m[i][j], v[i][j] = b1 * m[i][j] + (1 - b1) * local[i][j], b2 * v[i][j] + (1 - b2) * local[i][j] ** 2
            shape, mean = layer.shape, np.mean([one[j] for one in m], axis=0)
            age[j] = np.where(chosen, 0, age[j] + 1)
            s = (beta3 ** age[j]).reshape(shape)
            for i in range(n):
                m[i][j] = np.where(chosen.reshape(shape), mean, m[i][j])
                u = m[i][j] / (1 - b1**t) / (np.sqrt(v[i][j] / (1 - b2**t)) + eps) + weight_decay * w[i][j]
                r = []
                for some in (chosen, ~chosen):
                    top, bottom = np.linalg.norm(w[i][j].ravel()[some]), np.linalg.norm(u.ravel()[some])
                    r.append(top / bottom if top > 0 and bottom > 0 else 1.0)
                both = s * r[0] + (1 - s) * r[1]
                both = np.clip(both, 0.01, 1000) if parts > 1 else both
                w[i][j] = w[i][j] - (s * lr + (1 - s) * lr / np.sqrt(n)) * both * u
            if t % average_steps == 0:
                mean = np.mean([one[j] for one in w], axis=0)
                for i in range(n):
                    w[i][j] = mean
    return np.array([flat(one) for one in w])


def agvm(weights, gradients, rates, *, interval, warmup_steps=0, decay=0.97, momentum=0.9):
    """Final weights of heavy ball with each layer as a module, and the factors."""
    n = len(gradients[0])
    w, buffers, factors = [x.copy() for x in weights], [np.zeros_like(x) for x in weights], [1.0] * len(weights)
    for t, (local, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        if t > warmup_steps and (t - warmup_steps) % interval == 0:
            d = []
            for k in range(len(w)):
                a, b = (
                    np.mean([one[k].ravel() for one in half], axis=0) for half in (local[: n // 2], local[n // 2 :])
                )
                d.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            f = [np.sqrt(np.clip((d[0] + 1e-6) / (one + 1e-6), 0.5, 10)) for one in d]
            factors = [decay * old + (1 - decay) * new for old, new in zip(factors, f, strict=True)]
        for k in range(len(w)):
            buffers[k] = momentum * buffers[k] + np.mean([one[k] for one in local], axis=0)
            w[k] = w[k] - lr * factors[k] * buffers[k]
    return flat(w), factors
