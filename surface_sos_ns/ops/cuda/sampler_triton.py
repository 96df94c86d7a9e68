"""Importance sampling of rays by the cached fields, and look-ups in grids, as Triton kernels for CUDA.

The counterpart in torch, with the same formulas, is in `sampling/`. A program of `edges_kernel` samples one ray. Lane i
of its vectors is the i-th edge of the ray's coarse intervals, and the interval that begins there; lanes are padded to a
power of two, those beyond the last interval have weight 0. An inverse of the cumulative distribution is a maximum over
the edges that it has reached and a minimum over the others.

Nothing synchronises with the host or reads a number on it, and launches depend on shapes only. Indices are clipped
before they are converted to integers, so that NaN reads a valid cell.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from surface_sos_ns.ops.cuda.triton_support import OPTIONS, THREADS, on_device_of
from surface_sos_ns.sampling.candidates import MIN_DISPARITY_DISTANCE
from surface_sos_ns.sampling.field_cache import MIN_TRANSMITTANCE
from surface_sos_ns.sampling.importance import UNIFORM_SHARE

_DRAWS_AT_ONCE = 16  # each is compared with all edges

_MIN_DISPARITY_DISTANCE = tl.constexpr(MIN_DISPARITY_DISTANCE)
_MIN_TRANSMITTANCE = tl.constexpr(MIN_TRANSMITTANCE)
_UNIFORM_SHARE = tl.constexpr(UNIFORM_SHARE)
_INFINITY = tl.constexpr(float("inf"))


# ------------------------------------------------------------------ look-ups


@triton.jit
def _clip(x, top):  # type: ignore[no-untyped-def]
    """x clipped to [0, top]; NaN becomes 0, as converting it to an integer would be undefined."""
    x = tl.where(x > 0.0, x, 0.0)
    return tl.where(x < top, x, top)


@triton.jit
def _neighbours(x, n):  # type: ignore[no-untyped-def]
    """Indices of the cell centres on either side of x in [-1, 1], and the fraction of the way to the upper one."""
    top = (n - 1).to(tl.float32)
    at = _clip((x + 1.0) * (0.5 * n) - 0.5, top)
    lower = at.to(tl.int32)
    return lower, tl.minimum(lower + 1, n - 1), at - lower.to(tl.float32)


@triton.jit
def _along_z(grid, row, lower, upper, fraction, needed):  # type: ignore[no-untyped-def]
    a = tl.load(grid + row + lower, mask=needed, other=0.0)
    return a + (tl.load(grid + row + upper, mask=needed, other=0.0) - a) * fraction


@triton.jit
def _trilinear(grid, x, y, z, n, needed):  # type: ignore[no-untyped-def]
    """Trilinear value of a grid (n, n, n) over [-1, 1]^3, constant beyond the outermost centres; 0 if not needed."""
    i0, i1, fx = _neighbours(x, n)
    j0, j1, fy = _neighbours(y, n)
    k0, k1, fz = _neighbours(z, n)
    a = _along_z(grid, (i0 * n + j0) * n, k0, k1, fz, needed)
    b = _along_z(grid, (i0 * n + j1) * n, k0, k1, fz, needed)
    c = _along_z(grid, (i1 * n + j0) * n, k0, k1, fz, needed)
    d = _along_z(grid, (i1 * n + j1) * n, k0, k1, fz, needed)
    a += (b - a) * fy
    c += (d - c) * fy
    return a + (c - a) * fx


@triton.jit
def _cell(x, n):  # type: ignore[no-untyped-def]
    """Index of the cell that contains x in [-1, 1]."""
    return _clip((x + 1.0) * (0.5 * n), (n - 1).to(tl.float32)).to(tl.int32)


@triton.jit(do_not_specialize=["n", "count"])
def look_up_kernel(grid, points, values, scale, n, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """`field_cache.look_up` for BLOCK points; `scale` is the inverse of the extent."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    exists = at < tl.minimum(count - first, BLOCK).to(tl.int32)
    points += first * 3
    x = tl.load(points + at * 3, mask=exists, other=0.0) * scale
    y = tl.load(points + at * 3 + 1, mask=exists, other=0.0) * scale
    z = tl.load(points + at * 3 + 2, mask=exists, other=0.0) * scale
    tl.store(values + first + at, _trilinear(grid, x, y, z, n, exists), mask=exists)


# ------------------------------------------------------------------ samples of a ray


@triton.jit
def _edge(i, near, enter, leave, BEFORE: tl.constexpr, WITHIN: tl.constexpr, BEYOND: tl.constexpr, far):  # type: ignore[no-untyped-def]
    """The i-th edge of `candidate_edges`; the last one for any i beyond it."""
    i = tl.minimum(i, BEFORE + WITHIN + BEYOND).to(tl.float32)
    first = near + (enter - near) * (i / (BEFORE if BEFORE > 0 else 1))
    middle = enter + (leave - enter) * ((i - BEFORE) / (WITHIN if WITHIN > 0 else 1))
    shift = tl.maximum(-leave + _MIN_DISPARITY_DISTANCE, 0.0)
    start, end = 1.0 / (leave + shift), 1.0 / (tl.maximum(2.0 * leave, far) + shift)
    fraction = tl.maximum(i - (BEFORE + WITHIN), 0.0) / (BEYOND if BEYOND > 0 else 1)
    last = 1.0 / ((1.0 - fraction) * start + fraction * end) - shift
    return tl.where(i < BEFORE, first, tl.where(i < BEFORE + WITHIN, middle, last))


@triton.jit
def _latest(last, one_before, next_last, next_one_before):  # type: ignore[no-untyped-def]
    """The last two of numbers that are not negative, from those of two parts; -1 where a part has only one."""
    return next_last, tl.where(next_one_before < 0.0, last, next_one_before)


@triton.jit
def _previous(x, first):  # type: ignore[no-untyped-def]
    """x of the lane before, which is not negative; `first` in the first lane."""
    _, found = tl.associative_scan((x, tl.full(x.shape, -1.0, tl.float32)), 0, _latest)
    return tl.where(found < 0.0, first, found)


@triton.jit(do_not_specialize=["d", "n"])
def edges_kernel(  # type: ignore[no-untyped-def]
    origins,
    directions,
    density,
    sdf,
    gate,
    sharpness,
    jitter,
    drawn,
    d,
    n,
    near_fraction,
    far,
    shrink,
    BEFORE: tl.constexpr,
    WITHIN: tl.constexpr,
    BEYOND: tl.constexpr,
    LANES: tl.constexpr,
    DRAWS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    JITTERED: tl.constexpr,
    SPLITS: tl.constexpr,
    BACKGROUND_ONLY: tl.constexpr,
):
    """`ray_samples.sample_edges` of one ray. `shrink` is the inverse of the contraction radius."""
    INTERVALS: tl.constexpr = BEFORE + WITHIN + BEYOND
    ray = tl.program_id(0).to(tl.int64)
    ox, oy, oz = tl.load(origins + ray * 3), tl.load(origins + ray * 3 + 1), tl.load(origins + ray * 3 + 2)
    dx, dy, dz = tl.load(directions + ray * 3), tl.load(directions + ray * 3 + 1), tl.load(directions + ray * 3 + 2)

    # candidate intervals
    closest = -(ox * dx + oy * dy + oz * dz)
    mx, my, mz = ox + closest * dx, oy + closest * dy, oz + closest * dz
    half = tl.sqrt_rn(tl.maximum(1.0 - (mx * mx + my * my + mz * mz), 0.09))
    near = tl.maximum(near_fraction * (closest - half), 1e-2)
    enter = tl.maximum(closest - half, near + 1e-3)
    leave = tl.maximum(closest + half, enter + 1e-3)
    lane = tl.arange(0, LANES)
    is_edge, is_interval = lane <= INTERVALS, lane < INTERVALS
    t0 = _edge(lane, near, enter, leave, BEFORE, WITHIN, BEYOND, far)
    t1 = _edge(lane + 1, near, enter, leave, BEFORE, WITHIN, BEYOND, far)

    # their weights in the cached fields
    t = 0.5 * (t0 + t1)
    x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
    squared = x * x + y * y + z * z
    norm = tl.maximum(tl.sqrt_rn(squared) * shrink, 1.0)
    contracted = shrink * (1.0 - 0.5 / norm) / norm  # into [-1, 1]^3
    cell = (_cell(x * contracted, d) * d + _cell(y * contracted, d)) * d + _cell(z * contracted, d)
    opacity = 1.0 - tl.exp(tl.load(density + cell, mask=is_interval, other=0.0) * (t0 - t1))
    if not BACKGROUND_ONLY:
        inside = is_interval & (squared < 1.0)
        slope = tl.minimum(tl.load(sharpness), 0.5 * n)
        phi0 = tl.sigmoid(slope * _trilinear(sdf, ox + dx * t0, oy + dy * t0, oz + dz * t0, n, inside))
        phi1 = tl.sigmoid(slope * _trilinear(sdf, ox + dx * t1, oy + dy * t1, oz + dz * t1, n, inside))
        surface = tl.minimum(tl.maximum((phi0 - phi1) / tl.maximum(phi0, 1e-6), 0.0), 1.0)
        split = _trilinear(gate, x, y, z, n, inside)  # 0 outside the sphere
        if SPLITS:
            opacity *= 1.0 - split
        opacity = 1.0 - (1.0 - opacity) * (1.0 - surface * split)
    opacity = tl.where(is_interval, opacity, 0.0)
    light = _previous(tl.cumprod(1.0 - opacity, 0), 1.0)
    weight = tl.where(light >= _MIN_TRANSMITTANCE, light * opacity, 0.0)

    # Cumulative distribution at the edges. Blurred weights are w/2 + (its neighbours)/4: summed over the intervals
    # before an edge, they are those intervals' weights but for a quarter of what the blur moves over both ends.
    outermost = tl.sum(tl.where(lane == 0, weight, 0.0), 0)
    before = tl.cumsum(weight, 0) - weight + 0.25 * (weight - _previous(weight, 0.0) - outermost)
    total = tl.maximum(tl.sum(weight, 0), 1e-5)
    cdf = before / total * (1.0 - _UNIFORM_SHARE) + lane.to(tl.float32) * (_UNIFORM_SHARE / INTERVALS)
    cdf /= tl.sum(tl.where(lane == INTERVALS, cdf, 0.0), 0)

    # draws
    for first in range(0, DRAWS, AT_ONCE):
        draw = first + tl.arange(0, AT_ONCE)
        position = tl.full((AT_ONCE,), 0.5, tl.float32)
        if JITTERED:
            position = tl.load(jitter + ray * DRAWS + draw, mask=draw < DRAWS, other=0.0)
        u = tl.minimum((draw.to(tl.float32) + position) / DRAWS, 1.0 - 1e-5)
        reached = cdf[None, :] <= u[:, None]
        below, above = reached & is_edge[None, :], (~reached) & is_edge[None, :]
        low, start = tl.max(tl.where(below, cdf[None, :], 0.0), 1), tl.max(tl.where(below, t0[None, :], 0.0), 1)
        high = tl.min(tl.where(above, cdf[None, :], 1.0), 1)
        end = tl.min(tl.where(above, t0[None, :], _INFINITY), 1)
        share = tl.minimum(tl.maximum((u - low) / tl.maximum(high - low, 1e-8), 0.0), 1.0)
        distance = tl.minimum(start + (end - start) * share, end)  # rounding must not make them decrease
        tl.store(drawn + ray * DRAWS + draw, distance, mask=draw < DRAWS)


@triton.jit
def _point(origins, directions, ray, t, axis: tl.constexpr, exists):  # type: ignore[no-untyped-def]
    start = tl.load(origins + ray * 3 + axis, mask=exists, other=0.0)
    return start + tl.load(directions + ray * 3 + axis, mask=exists, other=0.0) * t


@triton.jit(do_not_specialize=["n", "m", "count"])
def samples_kernel(  # type: ignore[no-untyped-def]
    origins,
    directions,
    edges,
    sdf,
    probability,
    hull,
    margin,
    middle,
    interval,
    points,
    crop,
    near,
    in_hull,
    background,
    n,
    m,
    min_hull,
    max_crop,
    count,
    SAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    HULL: tl.constexpr,
    BACKGROUND_ONLY: tl.constexpr,
):
    """What `ray_samples.sample_rays` computes for BLOCK samples from their edges; `margin` points at a number."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = at < count
    ray = at // SAMPLES
    t0 = tl.load(edges + at + ray, mask=exists, other=0.0)  # a ray has one edge more than samples
    t1 = tl.load(edges + at + ray + 1, mask=exists, other=0.0)
    t = 0.5 * (t0 + t1)
    tl.store(middle + at, t, mask=exists)
    tl.store(interval + at, t1 - t0, mask=exists)
    x = _point(origins, directions, ray, t, 0, exists)
    y = _point(origins, directions, ray, t, 1, exists)
    z = _point(origins, directions, ray, t, 2, exists)
    tl.store(points + at * 3, x, mask=exists)
    tl.store(points + at * 3 + 1, y, mask=exists)
    tl.store(points + at * 3 + 2, z, mask=exists)
    in_cube = exists & (tl.abs(x) <= 1.0) & (tl.abs(y) <= 1.0) & (tl.abs(z) <= 1.0)
    cropped = _trilinear(probability, x, y, z, m, in_cube)
    tl.store(crop + at, cropped, mask=exists)
    tl.store(background + at, cropped < max_crop, mask=exists)
    is_near, is_hull = exists & False, exists & False
    if not BACKGROUND_ONLY:
        is_near = exists & (x * x + y * y + z * z < 1.0)
        cell = (_cell(x, n) * n + _cell(y, n)) * n + _cell(z, n)
        is_near = is_near & (tl.load(sdf + cell, mask=is_near, other=0.0) < tl.load(margin))
        if HULL:
            is_hull = _trilinear(hull, x, y, z, m, in_cube) > min_hull
    tl.store(near + at, is_near, mask=exists)
    tl.store(in_hull + at, is_hull, mask=exists)


# ------------------------------------------------------------------ on the host


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """Values (P,) at points (P, 3); contiguous and float32."""
    values = points.new_empty(points.shape[0])
    if values.numel():
        block = 2 * THREADS
        with on_device_of(points):
            look_up_kernel[(triton.cdiv(values.numel(), block),)](
                grid, points, values, 1.0 / extent, grid.shape[0], values.numel(), BLOCK=block, **OPTIONS
            )
    return values


def sample_edges(
    origins: Tensor,
    directions: Tensor,
    density: Tensor,
    sdf: Tensor,
    gate: Tensor,
    sharpness: Tensor,
    jitter: Tensor | None,
    counts: tuple[int, int, int],
    near_fraction: float,
    far: float,
    contraction_radius: float,
    splits: bool,
    background_only: bool,
    draws: int,
) -> Tensor:
    """Edges (R, draws) of the sample intervals. Tensors are contiguous and float32, `sharpness` is ()."""
    drawn = origins.new_empty(origins.shape[0], draws)
    if drawn.numel():
        before, within, beyond = counts
        with on_device_of(origins):
            edges_kernel[(origins.shape[0],)](
                origins,
                directions,
                density,
                sdf,
                gate,
                sharpness,
                drawn if jitter is None else jitter,
                drawn,
                density.shape[0],
                sdf.shape[0],
                near_fraction,
                far,
                1.0 / contraction_radius,
                BEFORE=before,
                WITHIN=within,
                BEYOND=beyond,
                LANES=triton.next_power_of_2(before + within + beyond + 1),
                DRAWS=draws,
                AT_ONCE=_DRAWS_AT_ONCE,
                JITTERED=jitter is not None,
                SPLITS=splits,
                BACKGROUND_ONLY=background_only,
                **OPTIONS,
            )
    return drawn


def place_samples(
    origins: Tensor,
    directions: Tensor,
    edges: Tensor,
    sdf: Tensor,
    probability: Tensor,
    hull: Tensor | None,
    margin: Tensor,
    min_hull: float,
    max_crop: float,
    background_only: bool,
) -> tuple[Tensor, ...]:
    """Middles, lengths, points, crop and the three masks of the samples between edges, as in `ray_samples.Samples`."""
    rays, samples = edges.shape[0], edges.shape[1] - 1
    middle, interval, crop = (
        edges.new_empty(rays, samples),
        edges.new_empty(rays, samples),
        edges.new_empty(rays, samples),
    )
    points = edges.new_empty(rays, samples, 3)
    masks = tuple(torch.empty_like(middle, dtype=torch.bool) for _ in range(3))
    count, block = middle.numel(), 2 * THREADS
    if count:
        with on_device_of(edges):
            samples_kernel[(triton.cdiv(count, block),)](
                origins,
                directions,
                edges,
                sdf,
                probability,
                probability if hull is None else hull,
                margin,
                middle,
                interval,
                points,
                crop,
                *masks,
                sdf.shape[0],
                probability.shape[0],
                min_hull,
                max_crop,
                count,
                SAMPLES=samples,
                BLOCK=block,
                HULL=hull is not None,
                BACKGROUND_ONLY=background_only,
                **OPTIONS,
            )
    return middle, interval, points, crop, *masks
