"""Importance sampling of rays by the cached fields, and the lists of samples to evaluate, in one pass over the rays.

The counterpart in torch, with the same formulas, is `sampling/ray_samples.py`. A ray's coarse intervals are looked up
in the cached fields in chunks of constant length, in vectorised loops, until little transmittance is left. Look-ups at
the samples are done for a batch of rays at once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from surface_sos_ns.ops.cpu.simd import exp, sigmoid, truncate
from surface_sos_ns.ops.cpu.threads import parallel
from surface_sos_ns.sampling.candidates import MIN_DISPARITY_DISTANCE

_MIN_DISPARITY_DISTANCE = np.float32(MIN_DISPARITY_DISTANCE)
_CHUNK = 32  # coarse intervals between two checks of the transmittance
_BATCH = 32  # rays whose samples are looked up together; threads take whole batches
_BLOCK = 1024  # points of a look-up per piece of work
_MIDDLE, _OPACITY, _IN_SPHERE, _GATE, _X, _Y, _Z, _PHI = (_CHUNK * i for i in range(8))  # in a chunk's scratch
_SCRATCH = 9 * _CHUNK
_NEAR, _IN_HULL, _BACKGROUND = 1, 2, 4  # bits of a sample's mark: the lists of `Samples` that it is in
# Without "nnan", which assumes that there are no NaN: `_clip` has to map them to a valid cell.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"contract", "nsz", "arcp"},
    "error_model": "numpy",
}


@njit(**_OPTIONS)
def _clip(x, top):  # type: ignore[no-untyped-def]
    """x clipped to [0, top]; NaN becomes 0."""
    x = x if x > np.float32(0.0) else np.float32(0.0)
    return x if x < top else top


@njit(**_OPTIONS)
def _cell(x, y, z, half, n):  # type: ignore[no-untyped-def]
    """Flat index of the cell of [-1, 1]^3 that contains (x, y, z); half is n / 2."""
    top = np.float32(n - 1)
    i = truncate(_clip((x + np.float32(1.0)) * half, top))
    j = truncate(_clip((y + np.float32(1.0)) * half, top))
    k = truncate(_clip((z + np.float32(1.0)) * half, top))
    return (i * np.int32(n) + j) * np.int32(n) + k


@njit(**_OPTIONS)
def _cell_and_fraction(x, half, n):  # type: ignore[no-untyped-def]
    """Index of the cell centre below x in [-1, 1], and the fraction of the way to the next one."""
    at = _clip((x + np.float32(1.0)) * half - np.float32(0.5), np.float32(n - 1))
    below = min(truncate(at), np.int32(n - 2))
    return below, at - np.float32(below)


@njit(**_OPTIONS)
def _trilinear(grid, corner, n, fx, fy, fz):  # type: ignore[no-untyped-def]
    """Trilinear interpolation in a flat grid; `corner` is the lowest of the eight cell centres."""
    n, one = np.uint64(n), np.uint64(1)  # numba checks only signed indices for being negative
    at00 = np.uint64(corner)
    at01, at10 = at00 + n, at00 + n * n
    at11 = at10 + n
    a = grid[at00] + (grid[at00 + one] - grid[at00]) * fz
    b = grid[at01] + (grid[at01 + one] - grid[at01]) * fz
    c = grid[at10] + (grid[at10 + one] - grid[at10]) * fz
    d = grid[at11] + (grid[at11 + one] - grid[at11]) * fz
    a = a + (b - a) * fy
    c = c + (d - c) * fy
    return a + (c - a) * fx


@njit(**_OPTIONS)
def _contraction_scale(x, y, z, shrink):  # type: ignore[no-untyped-def]
    """Factor from a point to its place in the contracted grid, in [-1, 1]: `contract(shrink * p) / 2 = factor * p`."""
    norm = np.sqrt(x * x + y * y + z * z) * shrink
    norm = norm if norm > np.float32(1.0) else np.float32(1.0)
    return shrink * (np.float32(1.0) - np.float32(0.5) / norm) / norm


@njit(**_OPTIONS)
def _look_up(first, last, points, scale, grid, n, values):  # type: ignore[no-untyped-def]
    half = np.float32(0.5 * n)
    corners = np.empty(_BLOCK, np.int32)
    fraction = np.empty((3, _BLOCK), np.float32)
    for start in range(first * _BLOCK, min(last * _BLOCK, points.shape[0]), _BLOCK):
        part, out = points[start : start + _BLOCK], values[start : start + _BLOCK]
        for p in range(part.shape[0]):
            i, fraction[0, p] = _cell_and_fraction(part[p, 0] * scale, half, n)
            j, fraction[1, p] = _cell_and_fraction(part[p, 1] * scale, half, n)
            k, fraction[2, p] = _cell_and_fraction(part[p, 2] * scale, half, n)
            corners[p] = (i * np.int32(n) + j) * np.int32(n) + k
        for p in range(part.shape[0]):
            out[p] = _trilinear(grid, corners[p], n, fraction[0, p], fraction[1, p], fraction[2, p])


@njit(**_OPTIONS)
def _candidates(origin, direction, fractions, before, within, near_fraction, far, edges):  # type: ignore[no-untyped-def]
    """`candidate_edges` of one ray. Where `edges` is longer, the rest repeats the last edge: intervals of length 0."""
    one, least = np.float32(1.0), np.float32(1e-3)
    ox, oy, oz = origin[0], origin[1], origin[2]
    dx, dy, dz = direction[0], direction[1], direction[2]
    middle = -(ox * dx + oy * dy + oz * dz)
    mx, my, mz = ox + middle * dx, oy + middle * dy, oz + middle * dz
    half = np.sqrt(max(one - (mx * mx + my * my + mz * mz), np.float32(0.09)))
    enter, leave = middle - half, middle + half
    near = max(near_fraction * enter, np.float32(1e-2))
    enter = max(enter, near + least)
    leave = max(leave, enter + least)
    beyond = before + within
    for i in range(before):
        edges[i] = near + (enter - near) * fractions[i]
    part, out = fractions[before:beyond], edges[before:beyond]
    for i in range(part.shape[0]):
        out[i] = enter + (leave - enter) * part[i]
    shift = max(_MIN_DISPARITY_DISTANCE - leave, np.float32(0.0))
    start, end = one / (leave + shift), one / (max(np.float32(2.0) * leave, far) + shift)
    part, out = fractions[beyond:], edges[beyond : fractions.shape[0]]
    for i in range(part.shape[0]):
        out[i] = one / (start * (one - part[i]) + end * part[i]) - shift
    edges[fractions.shape[0] :] = edges[fractions.shape[0] - 1]


@njit(**_OPTIONS)
def _look_up_on_ray(origin, direction, t, grid, n):  # type: ignore[no-untyped-def]
    """Trilinear value of a grid over [-1, 1]^3 at distance t along a ray."""
    half = np.float32(0.5 * n)
    i, fx = _cell_and_fraction(origin[0] + direction[0] * t, half, n)
    j, fy = _cell_and_fraction(origin[1] + direction[1] * t, half, n)
    k, fz = _cell_and_fraction(origin[2] + direction[2] * t, half, n)
    return _trilinear(grid, (i * np.int32(n) + j) * np.int32(n) + k, n, fx, fy, fz)


@njit(**_OPTIONS)
def _look_up_chunk(origin, direction, distances, grid, n, corners, scratch, values):  # type: ignore[no-untyped-def]
    """The same at _CHUNK distances. `values` may be another part of `scratch`."""
    half = np.float32(0.5 * n)
    ox, oy, oz = origin[0], origin[1], origin[2]
    dx, dy, dz = direction[0], direction[1], direction[2]
    for i in range(_CHUNK):
        t = distances[i]
        a, scratch[_X + i] = _cell_and_fraction(ox + dx * t, half, n)
        b, scratch[_Y + i] = _cell_and_fraction(oy + dy * t, half, n)
        c, scratch[_Z + i] = _cell_and_fraction(oz + dz * t, half, n)
        corners[i] = (a * np.int32(n) + b) * np.int32(n) + c
    for i in range(_CHUNK):
        values[i] = _trilinear(grid, corners[i], n, scratch[_X + i], scratch[_Y + i], scratch[_Z + i])


@njit(**_OPTIONS)
def _interval_weights(  # type: ignore[no-untyped-def]
    origin, direction, edges, before, within, fields, cells, scratch, weights,
):  # fmt: skip
    """`FieldCache.interval_weights` of one ray; returns their sum.

    Chunks end where the intervals enter and leave the object sphere: the foreground's grids are needed inside only.
    """
    density, sdf, gate, d, shrink, n, slope, gate_splits, background_only, min_transmittance = fields
    one, half, nothing = np.float32(1.0), np.float32(0.5), np.float32(0.0)
    ox, oy, oz = origin[0], origin[1], origin[2]
    dx, dy, dz = direction[0], direction[1], direction[2]
    cells_half = np.float32(0.5 * d)
    middle, gates = scratch[_MIDDLE : _MIDDLE + _CHUNK], scratch[_GATE : _GATE + _CHUNK]
    phi = scratch[_PHI + 1 : _PHI + 1 + _CHUNK]
    light, total = 1.0, 0.0
    first, count = 0, weights.shape[0]
    while first < count:
        if light < min_transmittance:
            weights[first:] = nothing
            break
        stop = before if first < before else (before + within if first < before + within else count)
        size = min(_CHUNK, stop - first)
        t0, t1 = edges[first : first + _CHUNK], edges[first + 1 : first + 1 + _CHUNK]
        hits = np.int32(0)
        for i in range(_CHUNK):
            t = half * (t0[i] + t1[i])
            middle[i] = t
            x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
            hit = x * x + y * y + z * z < one
            scratch[_IN_SPHERE + i] = one if hit else nothing
            hits += np.int32(hit) & np.int32(i < size)
            s = _contraction_scale(x, y, z, shrink)
            cells[i] = _cell(x * s, y * s, z * s, cells_half, d)
        for i in range(_CHUNK):
            scratch[_OPACITY + i] = density[np.uint32(cells[i])]
        for i in range(_CHUNK):
            scratch[_OPACITY + i] = one - exp(scratch[_OPACITY + i] * (t0[i] - t1[i]))
        if hits > 0 and not background_only:
            scratch[_PHI] = sigmoid(_look_up_on_ray(origin, direction, t0[0], sdf, n) * slope)
            _look_up_chunk(origin, direction, t1, sdf, n, cells, scratch, phi)
            for i in range(_CHUNK):
                phi[i] = sigmoid(phi[i] * slope)
            _look_up_chunk(origin, direction, middle, gate, n, cells, scratch, gates)
            for i in range(_CHUNK):
                inside_gate = gates[i] * scratch[_IN_SPHERE + i]
                outer = scratch[_PHI + i]
                surface = (outer - scratch[_PHI + 1 + i]) / max(outer, np.float32(1e-6))
                surface = inside_gate * min(max(surface, nothing), one)
                opacity = scratch[_OPACITY + i]
                opacity = opacity * (one - inside_gate) if gate_splits else opacity
                scratch[_OPACITY + i] = one - (one - opacity) * (one - surface)
        for i in range(size):
            opacity = scratch[_OPACITY + i]
            share = light * opacity if light >= min_transmittance else 0.0
            light *= 1.0 - opacity
            weights[first + i] = np.float32(share)
            total += share
        first += size
    return total


@njit(**_OPTIONS)
def _draw_edges(  # type: ignore[no-untyped-def]
    edges, weights, total, uniform_share, jitter, shares, cumulative, targets, stratum, last_below, drawn,
):  # fmt: skip
    """`draw_edges` of one ray. Weights are padded by a zero on either side; an empty jitter means midpoints of strata.

    A merge of the draws with the cumulative distribution would be one mispredicted branch after another. Instead the
    stratum that a value of the distribution falls into gives the number of draws below it, without a branch.
    """
    count, draws = shares.shape[0], drawn.shape[0]
    scale = np.float32((1.0 - uniform_share) / max(total, 1e-5))
    least = np.float32(uniform_share / count)
    half, quarter = np.float32(0.5), np.float32(0.25)
    for i in range(count):
        shares[i] = scale * (half * weights[i + 1] + quarter * (weights[i] + weights[i + 2])) + least
    reached = 0.0
    cumulative[0] = 0.0
    for i in range(count):
        reached += shares[i]
        cumulative[i + 1] = reached
    for k in range(draws):
        last_below[k] = 0
        u = (np.float32(k) + (jitter[k] if jitter.shape[0] > 0 else half)) / np.float32(draws)
        targets[k] = min(u, np.float32(1.0 - 1e-5)) * reached
    last_below[draws] = 0
    per_share = draws / reached
    for i in range(count):
        stratum[i] = truncate(_clip(cumulative[i] * per_share, draws - 1.0))
    for i in range(1, count):
        k = np.uint32(stratum[i])
        last_below[k + np.uint32(targets[k] < cumulative[i])] = i
    step = 1
    for k in range(draws):
        step = max(step, last_below[k] + 1)
        low = cumulative[step - 1]
        share = (targets[k] - low) / max(cumulative[step] - low, 1e-8 * reached)
        start = edges[step - 1]
        drawn[k] = start + (edges[step] - start) * np.float32(min(max(share, 0.0), 1.0))


@njit(**_OPTIONS)
def _make_scratch(count, draws):  # type: ignore[no-untyped-def]
    """Scratch arrays of `_ray_edges`, for `count` coarse intervals."""
    return (
        np.empty(count + 1 + _CHUNK, np.float32),
        np.zeros(count + 2, np.float32),
        np.empty(_CHUNK, np.int32),
        np.empty(_SCRATCH, np.float32),
        np.empty(count, np.float32),
        np.empty(count + 1, np.float64),
        np.empty(draws, np.float64),
        np.empty(count, np.int32),
        np.empty(draws + 1, np.int32),
    )


@njit(**_OPTIONS)
def _ray_edges(  # type: ignore[no-untyped-def]
    origin, direction, candidates, fields, uniform_share, jitter, scratch_arrays, drawn,
):  # fmt: skip
    """Edges of the sample intervals of one ray: candidates, weights, draws."""
    fractions, before, within, near_fraction, far = candidates
    edges, weights, cells, scratch, shares, cumulative, targets, stratum, last_below = scratch_arrays
    _candidates(origin, direction, fractions, before, within, near_fraction, far, edges)
    total = _interval_weights(origin, direction, edges, before, within, fields, cells, scratch, weights[1:-1])
    _draw_edges(edges, weights, total, uniform_share, jitter, shares, cumulative, targets, stratum, last_below, drawn)


@njit(**_OPTIONS)
def _edges(first, last, origins, directions, candidates, fields, uniform_share, jitter, drawn):  # type: ignore[no-untyped-def]
    scratch_arrays = _make_scratch(candidates[0].shape[0] - 1, drawn.shape[1])
    for r in range(first, last):
        own = jitter[min(r, jitter.shape[0] - 1)]
        _ray_edges(origins[r], directions[r], candidates, fields, uniform_share, own, scratch_arrays, drawn[r])


@njit(**_OPTIONS)
def _samples(  # type: ignore[no-untyped-def]
    first, last, origins, directions, candidates, fields, uniform_share, jitter, grids, found, marks, counts,
):  # fmt: skip
    """Samples of the batches of rays first..last, their marks, and the number of each mark per ray."""
    _, sdf, _, _, _, n, _, _, background_only, _ = fields
    probability, hull, m, margin, min_hull, max_crop, foreground_only = grids
    drawn, middle, interval, points, crop = found
    one = np.float32(1.0)
    rays, size = middle.shape[0], middle.shape[1]
    cells_half, look_half = np.float32(0.5 * n), np.float32(0.5 * m)
    scratch_arrays = _make_scratch(candidates[0].shape[0] - 1, size + 1)
    capacity = _BATCH * size
    inside, cells, corners = np.empty(capacity, np.int64), np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    at, squared = np.empty((3, capacity), np.float32), np.empty(capacity, np.float32)
    distance, labelled = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    for start in range(first * _BATCH, min(last * _BATCH, rays), _BATCH):
        stop = min(start + _BATCH, rays)
        for r in range(start, stop):
            own = jitter[min(r, jitter.shape[0] - 1)]
            t = drawn[r]
            _ray_edges(origins[r], directions[r], candidates, fields, uniform_share, own, scratch_arrays, t)
            for s in range(size):
                p, along = r * size + s, np.float32(0.5) * (t[s] + t[s + 1])
                middle[r, s], interval[r, s] = along, t[s + 1] - t[s]
                points[p, 0] = origins[r, 0] + directions[r, 0] * along
                points[p, 1] = origins[r, 1] + directions[r, 1] * along
                points[p, 2] = origins[r, 2] + directions[r, 2] * along
        # Look-ups in the grids over the object cube, only for the samples in it.
        base, count = start * size, 0
        for p in range(base, stop * size):
            x, y, z = points[p, 0], points[p, 1], points[p, 2]
            crop[p], marks[p] = np.float32(0.0), 0
            inside[count], at[0, count], at[1, count], at[2, count] = p, x, y, z
            count += (abs(x) <= one) & (abs(y) <= one) & (abs(z) <= one)
        for q in range(count):
            x, y, z = at[0, q], at[1, q], at[2, q]
            cells[q] = _cell(x, y, z, cells_half, n)
            squared[q] = x * x + y * y + z * z
            i, at[0, q] = _cell_and_fraction(x, look_half, m)
            j, at[1, q] = _cell_and_fraction(y, look_half, m)
            k, at[2, q] = _cell_and_fraction(z, look_half, m)
            corners[q] = (i * np.int32(m) + j) * np.int32(m) + k
        for q in range(count):
            crop[inside[q]] = _trilinear(probability, corners[q], m, at[0, q], at[1, q], at[2, q])
        if not background_only:
            for q in range(count):
                distance[q] = sdf[np.uint32(cells[q])]
            if hull.shape[0] > 0:
                for q in range(count):
                    labelled[q] = _trilinear(hull, corners[q], m, at[0, q], at[1, q], at[2, q])
            else:
                for q in range(count):
                    labelled[q] = min_hull
            for q in range(count):
                near = (distance[q] < margin) & (squared[q] < one)
                marks[inside[q]] = near * _NEAR + (labelled[q] > min_hull) * _IN_HULL
        for r in range(start, stop):
            near_count, hull_count, behind = 0, 0, 0
            end = size  # alpha does not depend on later samples
            if foreground_only:
                end = 0
                for s in range(size):
                    p = r * size + s
                    if hull.shape[0] > 0 and marks[p] != _NEAR | _IN_HULL:
                        marks[p] &= ~_NEAR
                    if marks[p] & _NEAR:
                        end = s + 1
                for s in range(end, size):
                    marks[r * size + s] = 0
            for s in range(end):
                p = r * size + s
                if crop[p] < max_crop and not (foreground_only and s + 1 == end):
                    marks[p] |= _BACKGROUND
                    behind += 1
                near_count += (marks[p] & _NEAR) > 0
                hull_count += (marks[p] & _IN_HULL) > 0
            counts[0, r], counts[1, r], counts[2, r] = near_count, hull_count, behind


@njit(**_OPTIONS)
def _list_marked(first, last, size, marks, ends, near, labelled, behind):  # type: ignore[no-untyped-def]
    """List the positions of marked samples; `ends` are the running sums of the counts."""
    a = ends[0, first - 1] if first > 0 else 0
    b = ends[1, first - 1] if first > 0 else 0
    c = ends[2, first - 1] if first > 0 else 0
    for p in range(first * size, last * size):
        mark = marks[p]
        if mark & _NEAR:
            near[a] = p
            a += 1
        if mark & _IN_HULL:
            labelled[b] = p
            b += 1
        if mark & _BACKGROUND:
            behind[c] = p
            c += 1


@njit(**_OPTIONS)
def _live(first, last, origins, directions, candidates, sdf, n, margin, live):  # type: ignore[no-untyped-def]
    """Whether rays pass near the object; see `ray_samples.live_rays`."""
    fractions, before, within, near_fraction, far = candidates
    one, half = np.float32(1.0), np.float32(0.5)
    padded = (fractions.shape[0] - 1 + _CHUNK - 1) // _CHUNK * _CHUNK
    edges = np.empty(padded + 1, np.float32)
    cells, scratch = np.empty(_CHUNK, np.int32), np.empty(_SCRATCH, np.float32)
    values = np.empty(_CHUNK + 1, np.float32)
    for r in range(first, last):
        live[r] = False
        ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        t = -(ox * dx + oy * dy + oz * dz)
        x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
        if x * x + y * y + z * z >= one:
            continue
        _candidates(origins[r], directions[r], fractions, before, within, near_fraction, far, edges)
        for start in range(0, padded, _CHUNK):
            t0, t1 = edges[start : start + _CHUNK], edges[start + 1 : start + 1 + _CHUNK]
            count = np.int32(0)
            for i in range(_CHUNK):
                t = half * (t0[i] + t1[i])
                x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
                bound = one + half * (t1[i] - t0[i])
                touches = x * x + y * y + z * z < bound * bound
                scratch[_IN_SPHERE + i] = one if touches else np.float32(0.0)
                count += np.int32(touches)
            if count == 0:
                continue
            _look_up_chunk(origins[r], directions[r], t0, sdf, n, cells, scratch, values[:_CHUNK])
            values[_CHUNK] = _look_up_on_ray(origins[r], directions[r], t1[_CHUNK - 1], sdf, n)
            count = np.int32(0)
            for i in range(_CHUNK):
                threshold = margin + half * (t1[i] - t0[i])
                close = min(values[i], values[i + 1]) < threshold
                count += np.int32(close) * np.int32(scratch[_IN_SPHERE + i])
            if count > 0:
                live[r] = True
                break


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _flat_grid(grid: Tensor) -> tuple[NDArray[np.float32], int]:
    """An (N, N, N) grid as a flat array, and N.

    Raises:
        ValueError: it is no cube, or N is not in 2 .. 1024.
    """
    n = grid.shape[0]
    if grid.shape != (n, n, n) or not 2 <= n <= 1024:
        raise ValueError(f"a grid of (N, N, N) with N from 2 to 1024 is needed, got {tuple(grid.shape)}")
    return _array(grid).reshape(-1), n


@functools.lru_cache(maxsize=8)
def _fractions(counts: tuple[int, int, int]) -> NDArray[np.float32]:
    parts = [torch.linspace(0, 1, count + 1) for count in counts]
    return torch.cat([parts[0][:-1], parts[1][:-1], parts[2]]).numpy()


def _rays(origins: Tensor, directions: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if origins.ndim != 2 or origins.shape[1] != 3 or directions.shape != origins.shape:
        raise ValueError(f"rays must be two of (R, 3), got {tuple(origins.shape)} and {tuple(directions.shape)}")
    return _array(origins), _array(directions)


def _candidate_arguments(counts: tuple[int, int, int], near_fraction: float, far: float) -> tuple[Any, ...]:
    return _fractions(counts), counts[0], counts[1], np.float32(near_fraction), np.float32(far)


def look_up(grid: Tensor, points: Tensor, extent: float) -> Tensor:
    """See `field_cache.look_up`; without gradient.

    Raises:
        ValueError: a gradient is asked for, or the grid is no cube.
    """
    if torch.is_grad_enabled() and (points.requires_grad or grid.requires_grad):
        raise ValueError("the compiled look-up has no gradient")
    flat, n = _flat_grid(grid)
    at = _array(points.reshape(-1, 3))
    values = torch.empty(at.shape[0])
    blocks = (at.shape[0] + _BLOCK - 1) // _BLOCK
    parallel(_look_up, blocks, at, np.float32(1.0 / extent), flat, n, values.numpy(), grain=4)
    return values.reshape(points.shape[:-1])


def live_rays(
    sdf: Tensor,
    origins: Tensor,
    directions: Tensor,
    counts: tuple[int, int, int],
    near_fraction: float,
    far: float,
    margin: float,
) -> Tensor:
    """See `ray_samples.live_rays`; `margin` is that of `ray_samples.live_margin`."""
    flat, n = _flat_grid(sdf)
    o, d = _rays(origins, directions)
    live = torch.empty(o.shape[0], dtype=torch.bool)
    candidates = _candidate_arguments(counts, near_fraction, far)
    parallel(_live, o.shape[0], o, d, candidates, flat, n, np.float32(margin), live.numpy(), grain=256)
    return live.nonzero()[:, 0]


class RayCall:
    """The common arguments of the samplers below, as the kernels take them: rays, candidates, cached fields, draws.

    Args:
        origins, directions: (R, 3), object frame.
        caches: density (D, D, D); sdf and gate, (N, N, N) each.
        counts, near_fraction, far: of `candidate_edges`.
        gate_splits: `FieldCache.splits`.
        sharpness, contraction_radius, background_only, min_transmittance: of `FieldCache.interval_weights`.
        samples, uniform_share: of `draw_edges`.
        jitter: (R, samples + 1) in [0, 1), position of each draw within its stratum; None for the midpoints.

    Raises:
        ValueError: shapes do not fit.
    """

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        caches: Sequence[Tensor],
        counts: tuple[int, int, int],
        near_fraction: float,
        far: float,
        sharpness: float,
        contraction_radius: float,
        gate_splits: bool,
        background_only: bool,
        min_transmittance: float,
        samples: int,
        uniform_share: float,
        jitter: Tensor | None,
    ):
        self.samples = samples
        self.origins, self.directions = _rays(origins, directions)
        self.count = self.origins.shape[0]
        (density, d), (sdf, n), (gate, k) = (_flat_grid(grid) for grid in caches)
        if n != k:
            raise ValueError(f"the cached SDF and gate must be of one size, got {n} and {k}")
        if jitter is not None and jitter.shape != (self.count, samples + 1):
            raise ValueError(f"jitter must be {(self.count, samples + 1)}, got {tuple(jitter.shape)}")
        slope, shrink = np.float32(min(sharpness, 0.5 * n)), np.float32(1.0 / contraction_radius)
        self.arguments = (
            self.origins,
            self.directions,
            _candidate_arguments(counts, near_fraction, far),
            (
                density,
                sdf,
                gate,
                d,
                shrink,
                n,
                slope,
                gate_splits,
                background_only,
                min_transmittance,
            ),
            uniform_share,
            np.empty((1, 0), np.float32) if jitter is None else _array(jitter),
        )
        self.edges = torch.empty(self.count, samples + 1)


def sample_edges(call: RayCall) -> Tensor:
    """Edges (R, S + 1) of the sample intervals."""
    parallel(_edges, call.count, *call.arguments, call.edges.numpy(), grain=64)
    return call.edges


def sample_rays(
    call: RayCall,
    probability: Tensor,
    hull: Tensor | None,
    margin: float,
    min_hull: float,
    max_crop: float,
    foreground_only: bool,
) -> tuple[Tensor, ...]:
    """The fields of `ray_samples.Samples` without `rays`.

    Args:
        call: rays and how to draw their samples.
        probability, hull: (M, M, M) over the object cube.
        margin: largest SDF of `near_surface`.
        min_hull: least probability of `in_hull`.
        max_crop: largest m^P of `background`.
        foreground_only: list only samples that the object's alpha depends on; see `SamplePlan`.

    Raises:
        ValueError: a grid is no cube, or they are not of the same size.
    """
    rays, size = call.count, call.samples
    crop_grid, m = _flat_grid(probability)
    hull_grid, k = (np.empty(0, np.float32), m) if hull is None else _flat_grid(hull)
    if k != m:
        raise ValueError(f"m^P and the hull must be of one size, got {m} and {k}")
    middle, interval = torch.empty(rays, size), torch.empty(rays, size)
    points, crop = torch.empty(rays * size, 3), torch.empty(rays * size)
    marks, counts = np.empty(rays * size, np.uint8), np.empty((3, rays), np.int64)
    limits = (np.float32(margin), np.float32(min_hull), np.float32(max_crop))
    grids = (crop_grid, hull_grid, m, *limits, foreground_only)
    found = (call.edges, middle, interval, points, crop)
    batches = (rays + _BATCH - 1) // _BATCH
    parallel(
        _samples, batches, *call.arguments, grids, tuple(tensor.numpy() for tensor in found), marks, counts, grain=4
    )
    ends = counts.cumsum(1)
    totals = ends[:, -1] if rays else np.zeros(3, np.int64)
    lists = [torch.empty(int(total), dtype=torch.int64) for total in totals]
    parallel(_list_marked, rays, size, marks, ends, *(chosen.numpy() for chosen in lists), grain=2048)
    return (*found, *lists)
