"""The kernels behind `gpu.py`, in Triton. Imported only where Triton is, and there only when one of them is to run.

A program serves some queries of one head of one image: for them it keeps sums of all channels in float32 and goes
through the levels and their points. What it reads of a place are four whole rows of a head's channels. Programs of the
same queries and other heads run beside each other, as their rows lie beside each other.

Names in capitals are known when a kernel is compiled. Of each tensor come a pointer and the strides of its first three
dimensions (images, queries or tokens, heads); the others lie in one row without gaps. Results are contiguous.
"""
# mypy: disable-error-code=no-untyped-def
# ruff: noqa: N803, PLR0124 (capitals, as said; only what is not a number differs from itself)

import triton
import triton.language as tl

from .gpu import interpreted

TRIED = [(8, 1), (16, 1), (16, 2), (32, 2), (32, 4), (64, 4), (64, 8), (128, 8)]  # queries of a program, warps
CONFIGURATIONS = [(16, 4)] if interpreted() else TRIED
NAN = tl.constexpr(float("nan"))


def _tuned(*key, sums=()):
    """Find the best of the configurations once for each number of channels and places and each type of tensors.

    Trying repeats the call; `sums` are the results that must then start from zero again.
    """
    return triton.autotune([triton.Config({"QUERIES": queries}, num_warps=warps) for queries, warps in CONFIGURATIONS],
                           key=["LEVELS", "POINTS", *key], reset_to_zero=list(sums) or None)


@triton.jit
def _served(heads, QUERIES: tl.constexpr):
    """The queries, the head and the image of this program."""
    program = tl.program_id(0)
    query = (program // heads) * QUERIES + tl.arange(0, QUERIES)
    return query.to(tl.int64), program % heads, tl.program_id(1).to(tl.int64)


@triton.jit
def _level(levels, level):
    """Height, width and first token of a level."""
    return tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)


@triton.jit
def _pair(at, asking):
    """Two numbers that lie side by side, such as a place, for each query that asks."""
    return tl.load(at, asking, 0.0).to(tl.float32), tl.load(at + 1, asking, 0.0).to(tl.float32)


@triton.jit
def _around(x, y, height, width, CENTRE: tl.constexpr):
    """Of places: the token above and left, how far beyond it they lie, and which are not a number.

    A level's width outside, nothing is left to read: farther places come back to there, and so do those that are none.
    """
    nowhere = (x != x) | (y != y)
    x = tl.where(nowhere, -1.0, tl.minimum(tl.maximum(x, -1.0), 2.0)) * width - CENTRE
    y = tl.where(nowhere, -1.0, tl.minimum(tl.maximum(y, -1.0), 2.0)) * height - CENTRE
    left, top = tl.floor(x), tl.floor(y)
    return left.to(tl.int32), top.to(tl.int32), x - left, y - top, nowhere


@triton.jit
def _corner(left, top, across, down, height, width, start, RIGHT: tl.constexpr, BELOW: tl.constexpr):
    """One of four tokens around places: its index, whether it exists, and its shares across and down."""
    column, line = left + RIGHT, top + BELOW
    exists = (column >= 0) & (column < width) & (line >= 0) & (line < height)
    return start + line * width + column, exists, RIGHT * across + (1 - RIGHT) * (1 - across), \
        BELOW * down + (1 - BELOW) * (1 - down)


@triton.jit
def _read(values, step, channel, here, x, y, height, width, start):
    """Values at places in float32, (queries, channels), and which places are not a number."""
    left, top, across, down, nowhere = _around(x, y, height, width, 0.5)
    read = tl.full(here.shape, 0.0, tl.float32)
    for corner in tl.static_range(4):
        token, exists, wide, tall = _corner(left, top, across, down, height, width, start, corner % 2, corner // 2)
        row = tl.load(values + (token * step)[:, None] + channel[None, :], here & exists[:, None], 0.0)
        read += row.to(tl.float32) * (wide * tall)[:, None]
    return read, nowhere


@_tuned("channels")
@triton.jit
def sample(out, values, v0, v1, v2, places, p0, p1, p2, weights, w0, w1, w2, levels, queries, heads, channels,
           LEVELS: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, QUERIES: tl.constexpr):
    """out (B, Q, M, D): weighted sums of what is read."""
    query, head, image = _served(heads, QUERIES)
    channel, asking = tl.arange(0, CHANNELS), query < queries
    here = asking[:, None] & (channel < channels)[None, :]
    values += image * v0 + head * v2
    place, much = places + image * p0 + query * p1 + head * p2, weights + image * w0 + query * w1 + head * w2
    total = tl.full((QUERIES, CHANNELS), 0.0, tl.float32)
    for level in range(LEVELS):
        height, width, start = _level(levels, level)
        for point in tl.static_range(POINTS):
            at = level * POINTS + point
            x, y = _pair(place + 2 * at, asking)
            read, nowhere = _read(values, v1, channel, here, x, y, height, width, start)
            weight = tl.where(nowhere, NAN, tl.load(much + at, asking, 0.0).to(tl.float32))
            total += read * weight[:, None]
    row = (image * queries + query) * heads + head
    tl.store(out + (row * channels)[:, None] + channel[None, :], total, here)


@_tuned("channels")
@triton.jit
def attend(out, values, v0, v1, v2, offsets, o0, o1, o2, reference, r0, r1, logits, l0, l1, l2, levels, queries, heads,
           channels, LEVELS: tl.constexpr, POINTS: tl.constexpr, SIDES: tl.constexpr, EACH_LEVEL: tl.constexpr,
           PLACES: tl.constexpr, CHANNELS: tl.constexpr, QUERIES: tl.constexpr):
    """out (B, Q, M, D): `sample` at places and weights that follow from a reference, offsets and logits.

    SIDES is 2 of points and 4 of boxes; EACH_LEVEL whether offsets differ from level to level.
    """
    query, head, image = _served(heads, QUERIES)
    channel, asking = tl.arange(0, CHANNELS), query < queries
    here = asking[:, None] & (channel < channels)[None, :]
    values += image * v0 + head * v2
    offset, anchor = offsets + image * o0 + query * o1 + head * o2, reference + image * r0 + query * r1
    logit = logits + image * l0 + query * l1 + head * l2
    entry = tl.arange(0, PLACES)
    there = asking[:, None] & (entry < LEVELS * POINTS)[None, :]
    every = tl.load(logit[:, None] + entry[None, :], there, float("-inf")).to(tl.float32)
    highest = tl.where(asking, tl.max(every, 1), 0.0)
    whole = tl.where(asking, tl.sum(tl.exp(every - highest[:, None]), 1), 1.0)
    total = tl.full((QUERIES, CHANNELS), 0.0, tl.float32)
    for level in range(LEVELS):
        height, width, start = _level(levels, level)
        x0, y0 = _pair(anchor + level * SIDES, asking)
        if SIDES == 4:  # a step of POINTS reaches the side
            wide, tall = _pair(anchor + level * SIDES + 2, asking)
            x_step, y_step = wide * (0.5 / POINTS), tall * (0.5 / POINTS)
        else:           # a step of 1 is a token
            x_step = 1.0 / tl.maximum(width, 1).to(tl.float32)
            y_step = 1.0 / tl.maximum(height, 1).to(tl.float32)
        for point in tl.static_range(POINTS):
            at = level * POINTS + point
            by = offset + 2 * (at if EACH_LEVEL else point)
            right, down = _pair(by, asking)
            read, nowhere = _read(values, v1, channel, here, x0 + right * x_step, y0 + down * y_step, height, width,
                                  start)
            share = tl.exp(tl.load(logit + at, asking, 0.0).to(tl.float32) - highest) / whole
            total += read * tl.where(nowhere, NAN, share)[:, None]
    row = (image * queries + query) * heads + head
    tl.store(out + (row * channels)[:, None] + channel[None, :], total, here)


@_tuned("channels")
@triton.jit
def match(out, keys, k0, k1, k2, places, p0, p1, p2, asked, a0, a1, a2, levels, queries, heads, channels,
          LEVELS: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, QUERIES: tl.constexpr):
    """out (B, Q, M, L * P): products of what is asked with the keys that are read."""
    query, head, image = _served(heads, QUERIES)
    channel, asking = tl.arange(0, CHANNELS), query < queries
    here = asking[:, None] & (channel < channels)[None, :]
    keys += image * k0 + head * k2
    place, ask = places + image * p0 + query * p1 + head * p2, asked + image * a0 + query * a1 + head * a2
    wanted = tl.load(ask[:, None] + channel[None, :], here, 0.0).to(tl.float32)
    row = (image * queries + query) * heads + head
    for level in range(LEVELS):
        height, width, start = _level(levels, level)
        for point in tl.static_range(POINTS):
            at = level * POINTS + point
            x, y = _pair(place + 2 * at, asking)
            read, nowhere = _read(keys, k1, channel, here, x, y, height, width, start)
            answer = tl.where(nowhere, NAN, tl.sum(read * wanted, 1))
            tl.store(out + row * LEVELS * POINTS + at, answer, asking)


@_tuned("channels", sums=["to_values"])
@triton.jit
def sample_backward(to_values, to_places, to_weights, came, c0, c1, c2, values, v0, v1, v2, places, p0, p1, p2,
                    weights, w0, w1, w2, levels, tokens, queries, heads, channels, LEVELS: tl.constexpr,
                    POINTS: tl.constexpr, CHANNELS: tl.constexpr, QUERIES: tl.constexpr):
    """Gradients of `sample` from that of its result, `came` (B, Q, M, D).

    to_values (B, T, M, D) in float32 starts from zero, and every place adds to it; to_places (B, Q, M, L * P * 2) and
    to_weights (B, Q, M, L * P) belong to one program each and are written once.
    """
    query, head, image = _served(heads, QUERIES)
    channel, asking = tl.arange(0, CHANNELS), query < queries
    here = asking[:, None] & (channel < channels)[None, :]
    values += image * v0 + head * v2
    to_values += (image * tokens * heads + head) * channels
    place, much = places + image * p0 + query * p1 + head * p2, weights + image * w0 + query * w1 + head * w2
    gradient = came + image * c0 + query * c1 + head * c2
    back = tl.load(gradient[:, None] + channel[None, :], here, 0.0).to(tl.float32)
    row = ((image * queries + query) * heads + head) * LEVELS * POINTS
    for level in range(LEVELS):
        height, width, start = _level(levels, level)
        for point in tl.static_range(POINTS):
            at = level * POINTS + point
            x, y = _pair(place + 2 * at, asking)
            left, top, across, down, nowhere = _around(x, y, height, width, 0.5)
            weight = tl.where(nowhere, NAN, tl.load(much + at, asking, 0.0).to(tl.float32))
            to_weight, to_x, to_y = tl.where(nowhere, NAN, 0.0), across * 0.0, down * 0.0
            for corner in tl.static_range(4):
                token, exists, wide, tall = _corner(left, top, across, down, height, width, start,
                                                    corner % 2, corner // 2)
                read = here & exists[:, None]
                found = tl.load(values + (token * v1)[:, None] + channel[None, :], read, 0.0).to(tl.float32)
                product = tl.sum(found * back, 1)
                to_weight += product * wide * tall
                to_x += product * tall * (2 * (corner % 2) - 1)
                to_y += product * wide * (2 * (corner // 2) - 1)
                tl.atomic_add(to_values + (token * heads * channels)[:, None] + channel[None, :],
                              back * (weight * wide * tall)[:, None], read, sem="relaxed")
            tl.store(to_weights + row + at, to_weight, asking)
            tl.store(to_places + 2 * (row + at), to_x * weight * width, asking)
            tl.store(to_places + 2 * (row + at) + 1, to_y * weight * height, asking)


@_tuned(sums=["received"])
@triton.jit
def splat(received, places, p0, p1, p2, weights, w0, w1, w2, levels, tokens, queries, heads, LEVELS: tl.constexpr,
          POINTS: tl.constexpr, QUERIES: tl.constexpr):
    """received (B, T) in float32, from zero: what each place gives to the four tokens around it."""
    query, head, image = _served(heads, QUERIES)
    asking = query < queries
    received += image * tokens
    place, much = places + image * p0 + query * p1 + head * p2, weights + image * w0 + query * w1 + head * w2
    for level in range(LEVELS):
        height, width, start = _level(levels, level)
        for point in tl.static_range(POINTS):
            at = level * POINTS + point
            x, y = _pair(place + 2 * at, asking)
            left, top, across, down, nowhere = _around(x, y, height, width, 0.0)
            weight = tl.load(much + at, asking, 0.0).to(tl.float32)
            for corner in tl.static_range(4):
                token, exists, wide, tall = _corner(left, top, across, down, height, width, start,
                                                    corner % 2, corner // 2)
                tl.atomic_add(received + token, weight * wide * tall, asking & exists & (nowhere == 0), sem="relaxed")
