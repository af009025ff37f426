"""The Triton kernels. One program handles one chunk of one tensor, which it finds by the tables of a `Plan`.

Shared arguments: ``table`` (int64 ``[rows, n]``) has the addresses of the tensors, a row each for parameters,
gradients and states; ``owner`` (``[chunks]``) the tensor of a chunk; ``first`` (``[n + 1]``) the first chunk of a
tensor, ``numel`` (``[n]``) its size; ``hyper`` (float64) the constants of the trust ratio, which the first ``adapted``
tensors have, and from `RULE` on those of the rule. ``TYPE`` is what is stored, ``ACC`` what is computed in. There are
no atomics: a step is reproducible bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lbt.optim.triton.plan import TRUST

RULE = tl.constexpr(TRUST)


@triton.jit
def _find(owner, first, numel, CHUNK: tl.constexpr):
    """This program's tensor, where its chunk starts, and how many elements that has."""
    chunk = tl.program_id(0)
    tensor = tl.load(owner + chunk)
    start = (chunk - tl.load(first + tensor)) * CHUNK
    return tensor, start, tl.minimum(tl.load(numel + tensor) - start, CHUNK).to(tl.int32)


@triton.jit
def _address(table, row, n, tensor, start, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = tl.load(table + row * n + tensor).to(tl.pointer_type(TYPE))
    if ALIGNED:  # to 16 bytes: without this Triton moves one element at a time
        pointer = tl.multiple_of(pointer, 16)
    return pointer + start


@triton.jit
def _read(pointer, at, size, WHOLE: tl.constexpr, ACC: tl.constexpr):
    if WHOLE:
        return tl.load(pointer + at).to(ACC)
    else:
        return tl.load(pointer + at, mask=at < size, other=0.0).to(ACC)


@triton.jit
def _write(pointer, at, value, size, WHOLE: tl.constexpr):
    if WHOLE:
        tl.store(pointer + at, value)
    else:
        tl.store(pointer + at, value, mask=at < size)


@triton.jit
def _square_sum(x):
    x = x.to(tl.float64)  # in float32 squares over- and underflow
    return tl.sum(x * x)


@triton.jit
def _square_chunk(
    w, g, hyper, sums, chunks, size,
    WEIGHTS: tl.constexpr, JOINT: tl.constexpr, WHOLE: tl.constexpr, CHUNK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, CHUNK)
    y = _read(g, at, size, WHOLE, ACC)
    if WEIGHTS:
        x = _read(w, at, size, WHOLE, ACC)
        tl.store(sums + tl.program_id(0), _square_sum(x))
        if JOINT:
            y += tl.load(hyper + RULE + 2).to(ACC) * x
    tl.store(sums + chunks + tl.program_id(0), _square_sum(y))


@triton.jit
def square(
    table, owner, first, numel, hyper, sums, n, chunks, WEIGHTS: tl.constexpr, JOINT: tl.constexpr,
    CHUNK: tl.constexpr, TYPE: tl.constexpr, ACC: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Sums of squares by chunk, ``sums[0]`` of the weights, ``sums[1]`` of gradients (``JOINT``: with decay)."""
    tensor, start, size = _find(owner, first, numel, CHUNK)
    w = _address(table, 0, n, tensor, start, TYPE, ALIGNED)
    g = _address(table, 1, n, tensor, start, TYPE, ALIGNED)
    if size == CHUNK:
        _square_chunk(w, g, hyper, sums, chunks, size, WEIGHTS, JOINT, True, CHUNK, ACC)
    else:
        _square_chunk(w, g, hyper, sums, chunks, size, WEIGHTS, JOINT, False, CHUNK, ACC)


@triton.jit
def _norm(sums, begin, end, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(sums + at, mask=at < end, other=0.0)
    return tl.sqrt(tl.sum(total))


@triton.jit
def norms(sums, first, found, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Norms ``found`` (``[n]``) of tensors from ``sums`` (``[chunks]``), added in a fixed order."""
    tensor = tl.program_id(0)
    begin, end = tl.load(first + tensor), tl.load(first + tensor + 1)
    tl.store(found + tensor, _norm(sums, begin, end, BLOCK))


@triton.jit
def trust(sums, first, hyper, ratios, chunks, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Trust ratios (``[adapted]``) from the sums of squares of weights and updates, ``sums`` (``[2, chunks]``)."""
    tensor = tl.program_id(0)
    begin, end = tl.load(first + tensor), tl.load(first + tensor + 1)
    weight = _norm(sums, begin, end, BLOCK)
    other = _norm(sums + chunks, begin, end, BLOCK)
    eta, of_weight, added = tl.load(hyper), tl.load(hyper + 1), tl.load(hyper + 2)
    clamp, clamp_other, clip = tl.load(hyper + 3), tl.load(hyper + 4), tl.load(hyper + 5)
    weight = tl.where(weight > clamp, clamp, weight)  # NaN stays, as in torch.clamp
    other = tl.where(other > clamp_other, clamp_other, other)
    valid = (weight > 0) & (other > 0)
    ratio = tl.where(valid, eta * weight / tl.where(valid, other + of_weight * weight + added, 1.0), 1.0)
    tl.store(ratios + tensor, tl.where(ratio > clip, clip, ratio))


@triton.jit
def _lars_chunk(
    w, g, b, mu, decay, scale, rate, size, MOMENTUM: tl.constexpr, INSIDE: tl.constexpr, NESTEROV: tl.constexpr,
    MAXIMIZE: tl.constexpr, WHOLE: tl.constexpr, CHUNK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, CHUNK)
    x = _read(w, at, size, WHOLE, ACC)
    step = _read(g, at, size, WHOLE, ACC)
    if MAXIMIZE:
        step = -step
    step = scale * (step + decay * x)
    if MOMENTUM:
        y = mu * _read(b, at, size, WHOLE, ACC) + step
        _write(b, at, y, size, WHOLE)
        if NESTEROV:
            step += mu * y
        else:
            step = y
    if not INSIDE:
        step = rate * step
    _write(w, at, x - step, size, WHOLE)


@triton.jit
def lars(
    table, owner, first, numel, hyper, scales, rate, n, adapted,
    MOMENTUM: tl.constexpr, INSIDE: tl.constexpr, NESTEROV: tl.constexpr, MAXIMIZE: tl.constexpr,
    CHUNK: tl.constexpr, TYPE: tl.constexpr, ACC: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """LARS's update of weights and buffers; ``scales`` (``[adapted]``) are the trust ratios, ``rate`` is 0-dim."""
    tensor, start, size = _find(owner, first, numel, CHUNK)
    w = _address(table, 0, n, tensor, start, TYPE, ALIGNED)
    g = _address(table, 1, n, tensor, start, TYPE, ALIGNED)
    b = w
    if MOMENTUM:
        b = _address(table, 2, n, tensor, start, TYPE, ALIGNED)
    mu = tl.load(hyper + RULE).to(ACC)
    decay = tl.where(tensor < adapted, tl.load(hyper + RULE + 1).to(ACC), 0.0)
    scale = tl.load(scales + tensor, mask=tensor < adapted, other=1.0).to(ACC)
    lr = tl.load(rate).to(ACC)
    if INSIDE:
        scale *= lr
    if size == CHUNK:
        _lars_chunk(w, g, b, mu, decay, scale, lr, size, MOMENTUM, INSIDE, NESTEROV, MAXIMIZE, True, CHUNK, ACC)
    else:
        _lars_chunk(w, g, b, mu, decay, scale, lr, size, MOMENTUM, INSIDE, NESTEROV, MAXIMIZE, False, CHUNK, ACC)


@triton.jit
def _direction(x, m, v, eps, decay, first_by, second_by):
    return m * first_by / (tl.sqrt(v) * second_by + eps) + decay * x


@triton.jit
def _moments_chunk(
    w, g, m, v, sums, chunks, hyper, sign, decay, first_by, second_by, size,
    WHOLE: tl.constexpr, CHUNK: tl.constexpr, TYPE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, CHUNK)
    x = _read(w, at, size, WHOLE, ACC)
    grad = sign * _read(g, at, size, WHOLE, ACC)
    mean = _read(m, at, size, WHOLE, ACC)
    mean += tl.load(hyper + RULE).to(ACC) * (grad - mean)
    old, new = tl.load(hyper + RULE + 1).to(ACC), tl.load(hyper + RULE + 2).to(ACC)
    square = old * _read(v, at, size, WHOLE, ACC) + new * grad * grad
    mean, square = mean.to(TYPE), square.to(TYPE)  # `lamb` takes the direction from what is stored
    _write(m, at, mean, size, WHOLE)
    _write(v, at, square, size, WHOLE)
    eps = tl.load(hyper + RULE + 3).to(ACC)
    u = _direction(x, mean.to(ACC), square.to(ACC), eps, decay, first_by, second_by)
    if not WHOLE:
        u = tl.where(at < size, u, 0.0)  # 0 / (0 + eps) for eps = 0
    tl.store(sums + tl.program_id(0), _square_sum(x))
    tl.store(sums + chunks + tl.program_id(0), _square_sum(u))


@triton.jit
def moments(
    table, owner, first, numel, hyper, sums, clip, first_by, second_by, n, chunks, decayed, CLIP: tl.constexpr,
    MAXIMIZE: tl.constexpr, CHUNK: tl.constexpr, TYPE: tl.constexpr, ACC: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """LAMB's moments, and sums of squares by chunk of the weights and of the update."""
    tensor, start, size = _find(owner, first, numel, CHUNK)
    w = _address(table, 0, n, tensor, start, TYPE, ALIGNED)
    g = _address(table, 1, n, tensor, start, TYPE, ALIGNED)
    m = _address(table, 2, n, tensor, start, TYPE, ALIGNED)
    v = _address(table, 3, n, tensor, start, TYPE, ALIGNED)
    sign = tl.full([], -1.0 if MAXIMIZE else 1.0, ACC)
    if CLIP:
        sign *= tl.load(clip).to(ACC)
    decay = tl.where(tensor < decayed, tl.load(hyper + RULE + 4).to(ACC), 0.0)
    by1, by2 = tl.load(first_by).to(ACC), tl.load(second_by).to(ACC)
    if size == CHUNK:
        _moments_chunk(w, g, m, v, sums, chunks, hyper, sign, decay, by1, by2, size, True, CHUNK, TYPE, ACC)
    else:
        _moments_chunk(w, g, m, v, sums, chunks, hyper, sign, decay, by1, by2, size, False, CHUNK, TYPE, ACC)


@triton.jit
def _lamb_chunk(
    w, m, v, eps, decay, first_by, second_by, rate, size, WHOLE: tl.constexpr, CHUNK: tl.constexpr, ACC: tl.constexpr
):
    at = tl.arange(0, CHUNK)
    x, mean = _read(w, at, size, WHOLE, ACC), _read(m, at, size, WHOLE, ACC)
    u = _direction(x, mean, _read(v, at, size, WHOLE, ACC), eps, decay, first_by, second_by)
    _write(w, at, x - rate * u, size, WHOLE)


@triton.jit
def lamb(
    table, owner, first, numel, hyper, scales, rate, first_by, second_by, n, adapted, decayed,
    CHUNK: tl.constexpr, TYPE: tl.constexpr, ACC: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """LAMB's update of the weights from the moments; ``scales`` (``[adapted]``) are the trust ratios."""
    tensor, start, size = _find(owner, first, numel, CHUNK)
    w = _address(table, 0, n, tensor, start, TYPE, ALIGNED)
    m = _address(table, 2, n, tensor, start, TYPE, ALIGNED)
    v = _address(table, 3, n, tensor, start, TYPE, ALIGNED)
    eps = tl.load(hyper + RULE + 3).to(ACC)
    decay = tl.where(tensor < decayed, tl.load(hyper + RULE + 4).to(ACC), 0.0)
    by1, by2 = tl.load(first_by).to(ACC), tl.load(second_by).to(ACC)
    lr = tl.load(rate).to(ACC) * tl.load(scales + tensor, mask=tensor < adapted, other=1.0).to(ACC)
    if size == CHUNK:
        _lamb_chunk(w, m, v, eps, decay, by1, by2, lr, size, True, CHUNK, ACC)
    else:
        _lamb_chunk(w, m, v, eps, decay, by1, by2, lr, size, False, CHUNK, ACC)
