"""Opacities, the blending of both layers and sums along rays, compiled: one pass forward, one backward.

A ray is walked near to far and, for its gradients, far to near. The backward carries what lies behind a sample, so
nothing is ever divided by the light that a sample lets through: opacities of exactly 1 have exact gradients. What is
cheap is computed again in the backward instead of being stored; what is stored are the arrays that the kernels read,
since unpacking saved tensors takes as long as a small kernel. Tensors are float32 or float64, all alike. Twins in plain
torch, and what the arguments mean, are in `rendering/composite.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from surface_sos_ns.ops.cpu.simd import exp
from surface_sos_ns.ops.cpu.threads import parallel

_BLOCK = 512  # samples that are summed together, whatever the number of threads
_BLOCKS = 16  # fewer are not worth a piece of their own
_RAYS = 256  # nor are fewer rays
_FAST = {"contract", "reassoc", "nsz", "arcp"}  # not those that assume there are no NaN: they must come out again
_ZERO, _HALF, _ONE, _TWO, _THIRD = (np.float32(x) for x in (0.0, 0.5, 1.0, 2.0, 1.0 / 3.0))
_KINDS = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
_SHORTEST = np.float32(1e-12)  # vector that is normalised, as in torch


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Contiguous arrays of float tensors.

    Raises:
        TypeError: they are not all float32, or all float64, on the CPU.
    """
    kind = tensors[0].dtype
    if kind not in _KINDS.values() or any(t.dtype != kind or not t.is_cpu for t in tensors):
        found = ", ".join(f"{t.dtype} on {t.device}" for t in tensors)
        raise TypeError(f"compiled rendering needs float32 (or float64) alike and on the CPU, got {found}")
    return [t.detach().contiguous().numpy() for t in tensors]


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


@njit(cache=True, nogil=True)
def _ascends(index, limit):
    fine = True
    previous = -1
    for i in range(index.shape[0]):
        fine &= index[i] > previous
        previous = index[i]
    return fine and previous < limit


def _list(index: Tensor, entries: int, limit: int) -> np.ndarray:
    """The array of a list's positions; compiled code reads and writes there, so they are looked at first."""
    _check(index.dtype == torch.int64 and index.is_cpu, "positions of samples are int64 on the CPU")
    array: np.ndarray = index.contiguous().numpy()
    _check(array.shape == (entries,), f"{entries} values need as many positions, got {tuple(array.shape)}")
    _check(_ascends(array, limit), f"positions of samples must ascend and lie in [0, {limit})")
    return array


# ------------------------------------------------------------------ opacity of one section of a ray


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _surface_opacity(first, last, sdf, normal, direction, interval, index, sharpness, anneal, opacity, unit):
    listed, samples = index.shape[0] > 0, interval.shape[1]
    length = interval.reshape(-1)
    drop = np.empty(_BLOCK, sdf.dtype)
    ray, begin = 0, 0
    for block in range(first, last):
        start, stop = block * _BLOCK, min(sdf.shape[0], (block + 1) * _BLOCK)
        for n in range(start, stop):
            i = index[n] if listed else n
            if not begin <= i < begin + samples:
                ray = i // samples
                begin = ray * samples
            x, y, z = normal[n, 0], normal[n, 1], normal[n, 2]
            cosine = x * direction[ray, 0] + y * direction[ray, 1] + z * direction[ray, 2]
            entering = max(_HALF - _HALF * cosine, _ZERO) * (_ONE - anneal) + max(-cosine, _ZERO) * anneal
            drop[n - start] = entering * length[i] * sharpness
            scale = _ONE / max(np.sqrt(x * x + y * y + z * z), _SHORTEST)
            unit[n, 0], unit[n, 1], unit[n, 2] = x * scale, y * scale, z * scale
        for n in range(start, stop):
            # 1 - Phi(next) / Phi(previous) = (1 - e^-drop) / (1 + e^next): neither Phi can vanish from it
            after = exp(sharpness * sdf[n] - _HALF * drop[n - start])
            opacity[n] = (_ONE - exp(-drop[n - start])) / (_ONE + after)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _surface_opacity_backward(
    first, last, sdf, normal, direction, interval, index, sharpness, anneal, by_opacity, by_unit,
    grad_sdf, grad_normal, grad_sharpness,
):  # fmt: skip
    listed, samples, with_unit = index.shape[0] > 0, interval.shape[1], by_unit.shape[0] > 0
    length = interval.reshape(-1)
    drop, slope, by_sharpness = np.empty(_BLOCK, sdf.dtype), np.empty(_BLOCK, sdf.dtype), np.empty(_BLOCK, sdf.dtype)
    ray, begin = 0, 0
    for block in range(first, last):
        start, stop = block * _BLOCK, min(sdf.shape[0], (block + 1) * _BLOCK)
        for n in range(start, stop):
            i = index[n] if listed else n
            if not begin <= i < begin + samples:
                ray = i // samples
                begin = ray * samples
            x, y, z = normal[n, 0], normal[n, 1], normal[n, 2]
            cosine = x * direction[ray, 0] + y * direction[ray, 1] + z * direction[ray, 2]
            entering = max(_HALF - _HALF * cosine, _ZERO) * (_ONE - anneal) + max(-cosine, _ZERO) * anneal
            drop[n - start] = entering * length[i]
            turning = (_HALF * (_ONE - anneal) if cosine < _ONE else _ZERO) + (anneal if cosine < _ZERO else _ZERO)
            slope[n - start] = -turning * length[i] * sharpness
        for n in range(start, stop):
            per_sharpness = drop[n - start]
            left = exp(-sharpness * per_sharpness)
            after = exp(sharpness * (sdf[n] - _HALF * per_sharpness))
            inside = _ONE / (_ONE + after)
            by_next = by_opacity[n] * inside * inside * after * (left - _ONE)
            by_drop = by_opacity[n] * inside * left - _HALF * by_next
            grad_sdf[n] = by_next * sharpness
            by_sharpness[n - start] = by_next * sdf[n] + by_drop * per_sharpness
            slope[n - start] *= by_drop
        # In a loop that writes to arrays the order of a sum would depend on where they lie: the compiler asks at run
        # time whether they might overlap, and takes one sample at a time if so.
        total = _ZERO * sharpness
        for k in range(stop - start):
            total += by_sharpness[k]
        grad_sharpness[block] = total
        for n in range(start, stop):
            i = index[n] if listed else n
            if not begin <= i < begin + samples:
                ray = i // samples
                begin = ray * samples
            by_cosine = slope[n - start]
            gx, gy, gz = by_cosine * direction[ray, 0], by_cosine * direction[ray, 1], by_cosine * direction[ray, 2]
            if with_unit:
                x, y, z = normal[n, 0], normal[n, 1], normal[n, 2]
                size = np.sqrt(x * x + y * y + z * z)
                scale = _ONE / max(size, _SHORTEST)
                along = _ZERO * size
                if size >= _SHORTEST:
                    along = (by_unit[n, 0] * x + by_unit[n, 1] * y + by_unit[n, 2] * z) * scale * scale
                gx += (by_unit[n, 0] - along * x) * scale
                gy += (by_unit[n, 1] - along * y) * scale
                gz += (by_unit[n, 2] - along * z) * scale
            grad_normal[n, 0], grad_normal[n, 1], grad_normal[n, 2] = gx, gy, gz


class _SurfaceOpacity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sdf: Tensor,
        normal: Tensor,
        directions: Tensor,
        interval: Tensor,
        sharpness: Tensor,
        anneal: float,
        index: Tensor | None,
    ) -> Any:
        count = sdf.shape[0]
        lengths = interval[:, None] if index is None else interval
        *values, b = _arrays(sdf, normal, directions, lengths, sharpness)
        limit = lengths.numel()
        where = np.empty(0, np.int64) if index is None else _list(index, count, limit)
        _check(values[1].shape == (count, 3), f"normals must be ({count}, 3), got {tuple(normal.shape)}")
        _check(values[2].shape == (len(lengths), 3), f"directions must be ({len(lengths)}, 3)")
        _check(index is not None or limit == count, f"{count} samples need as many intervals, got {limit}")
        inputs = (*values, where, b.reshape(-1)[0], b.dtype.type(anneal))
        opacity, unit = sdf.new_empty(count), sdf.new_empty(count, 3)
        blocks = -(-count // _BLOCK)
        parallel(_surface_opacity, blocks, *inputs, opacity.numpy(), unit.numpy(), grain=_BLOCKS)
        ctx.set_materialize_grads(False)
        ctx.inputs = inputs
        ctx.shape = sharpness.shape
        return opacity, unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_opacity: Tensor | None, by_unit: Tensor | None) -> Any:
        count, kind = ctx.inputs[0].shape[0], _KINDS[ctx.inputs[0].dtype]
        if by_opacity is None:
            by_opacity = torch.zeros(count, dtype=kind)
        if by_unit is None:
            by_unit = torch.empty(0, 3, dtype=kind)
        grad_sdf, grad_normal = torch.empty(count, dtype=kind), torch.empty(count, 3, dtype=kind)
        blocks = -(-count // _BLOCK)
        sums = torch.empty(blocks, dtype=kind)
        outputs = (x.numpy() for x in (grad_sdf, grad_normal, sums))
        parallel(_surface_opacity_backward, blocks, *ctx.inputs, *_arrays(by_opacity, by_unit), *outputs, grain=_BLOCKS)
        return grad_sdf, grad_normal, None, None, sums.sum().reshape(ctx.shape), None, None


def section_opacity(
    sdf: Tensor,
    normal: Tensor,
    directions: Tensor,
    interval: Tensor,
    sharpness: Tensor,
    anneal: float,
    index: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See `rendering.composite.section_opacity`."""
    return _SurfaceOpacity.apply(sdf, normal, directions, interval, sharpness, anneal, index)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _density_opacity(first, last, density, crop, interval, index, factor, result):
    """Opacities; or with `factor` of one entry a sample their derivative by the density, times it."""
    listed, slope = index.shape[0] > 0, factor.shape[0] > 0
    free = np.empty(_BLOCK, density.dtype)
    for block in range(first, last):
        start, stop = block * _BLOCK, min(density.shape[0], (block + 1) * _BLOCK)
        for n in range(start, stop):
            i = index[n] if listed else n
            free[n - start] = (_ONE - crop[i]) * interval[i]
        if slope:
            for n in range(start, stop):
                result[n] = factor[n] * free[n - start] * exp(-density[n] * free[n - start])
        else:
            for n in range(start, stop):
                result[n] = _ONE - exp(-density[n] * free[n - start])


class _DensityOpacity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None) -> Any:
        count, limit = density.shape[0], interval.numel()
        where = np.empty(0, np.int64) if index is None else _list(index, count, limit)
        _check(crop.numel() == limit, f"crop and interval must be alike, got {crop.numel()} and {limit}")
        _check(index is not None or limit == count, f"{count} samples need as many intervals, got {limit}")
        opacity = density.new_empty(count)
        *values, none = _arrays(density, crop.reshape(-1), interval.reshape(-1), density[:0])
        parallel(_density_opacity, -(-count // _BLOCK), *values, where, none, opacity.numpy(), grain=_BLOCKS)
        ctx.inputs = (*values, where)
        return opacity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_opacity: Tensor) -> Any:
        grad = by_opacity.new_empty(by_opacity.shape)
        blocks = -(-len(by_opacity) // _BLOCK)
        parallel(_density_opacity, blocks, *ctx.inputs, *_arrays(by_opacity), grad.numpy(), grain=_BLOCKS)
        return grad, None, None, None


def density_section_opacity(density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None) -> Tensor:
    """See `rendering.composite.density_section_opacity`."""
    return _DensityOpacity.apply(density, crop, interval, index)


# ------------------------------------------------------------------ weights along rays


@njit(cache=True, nogil=True)
def _position(index, value):
    """How many entries of an ascending list are less than `value`."""
    low, high = 0, index.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if index[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _lay_out(values, index, at, start, row):
    """Put a list's entries of one ray into a row of its samples, 0 elsewhere; returns where the next ray's begin."""
    row[:] = 0
    while at < index.shape[0] and index[at] < start + row.shape[0]:
        row[index[at] - start] = values[at]
        at += 1
    return at


@njit(cache=True, nogil=True)
def _collect(row, index, at, start, values):
    """The reverse: read a list's entries of one ray out of a row of its samples."""
    while at < index.shape[0] and index[at] < start + row.shape[0]:
        values[at] = row[index[at] - start]
        at += 1
    return at


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _weigh(
    first, last, opacity_f, near, opacity_b, background, gate, inside, edges, to_object, crop,
    by_foreground, by_background, by_alone, trust, sums,
):  # fmt: skip
    samples = edges.shape[1] - 1
    at_near, at_background = _position(near, first * samples), _position(background, first * samples)
    at_gate = _position(inside, first * samples)
    row = np.zeros((3, samples), edges.dtype)
    zero = row[0, 0]
    row_f, row_b, row_gate = row[0], row[1], row[2]
    for ray in range(first, last):
        start = ray * samples
        at_near = _lay_out(opacity_f, near, at_near, start, row_f)
        at_background = _lay_out(opacity_b, background, at_background, start, row_b)
        at_gate = _lay_out(gate, inside, at_gate, start, row_gate)
        away, free = to_object[ray], _ONE - crop[ray]
        light = light_alone = zero + _ONE
        alpha = accumulation = depth = spread = before = moment = middle = zero
        edge = edges[ray, 0]
        place = edge / (edge + away)
        for s in range(samples):
            next_edge = edges[ray, s + 1]
            next_place = next_edge / (next_edge + away)
            middle = _HALF * (edge + next_edge)
            closeness = middle / away
            trust[ray, s] = min(closeness * closeness, _ONE) * free
            f, b = row_gate[s] * row_f[s], (_ONE - row_gate[s]) * row_b[s]
            w_f, w_b = light * f, light * (_ONE - f) * b
            light *= (_ONE - f) * (_ONE - b)
            by_foreground[ray, s], by_background[ray, s] = w_f, w_b
            alpha += w_f
            accumulation += w_f + w_b
            depth += (w_f + w_b) * middle
            a = light_alone * row_b[s]
            light_alone *= _ONE - row_b[s]
            by_alone[ray, s] = a
            m = _HALF * (place + next_place)
            spread += _TWO * a * (m * before - moment) + _THIRD * a * a * (next_place - place)
            before += a
            moment += a * m
            edge, place = next_edge, next_place
        sums[0, ray], sums[1, ray], sums[2, ray] = alpha, accumulation, depth + light * middle
        sums[3, ray] = spread


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _weigh_backward(
    first, last, opacity_f, near, opacity_b, background, gate, inside, edges, to_object, trust,
    by_foreground, by_background, by_alone, by_alpha, by_accumulation, by_depth, by_spread,
    grad_f, grad_b, grad_gate,
):  # fmt: skip
    samples = edges.shape[1] - 1
    at_near, at_background = _position(near, first * samples), _position(background, first * samples)
    at_inside = _position(inside, first * samples)
    row = np.zeros((9, samples), edges.dtype)
    zero = row[0, 0]
    row_f, row_b, row_gate = row[0], row[1], row[2]
    lights, lights_alone, places, befores, moments = row[3], row[4], row[5], row[6], row[7]
    lengths = row[8]
    for ray in range(first, last):
        start = ray * samples
        _lay_out(opacity_f, near, at_near, start, row_f)
        _lay_out(opacity_b, background, at_background, start, row_b)
        _lay_out(gate, inside, at_inside, start, row_gate)
        away = to_object[ray]
        light = light_alone = zero + _ONE
        before = moment = zero
        edge = edges[ray, 0]
        place = edge / (edge + away)
        for s in range(samples):
            next_edge = edges[ray, s + 1]
            next_place = next_edge / (next_edge + away)
            m = _HALF * (place + next_place)
            f, b = row_gate[s] * row_f[s], (_ONE - row_gate[s]) * row_b[s]
            lights[s], lights_alone[s], places[s], lengths[s] = light, light_alone, m, next_place - place
            befores[s], moments[s] = before, moment
            light *= (_ONE - f) * (_ONE - b)
            a = light_alone * row_b[s]
            light_alone *= _ONE - row_b[s]
            before += a
            moment += a * m
            place, edge = next_place, next_edge
        # What a unit of light that passes sample s is worth, in both layers and in the background alone.
        last_middle = _HALF * (edges[ray, samples - 1] + edges[ray, samples])
        worth, worth_alone = by_depth[ray] * last_middle, zero
        behind = moment_behind = zero
        for k in range(samples):
            s = samples - 1 - k
            middle = _HALF * (edges[ray, s] + edges[ray, s + 1])
            g_b = by_background[ray, s] + by_accumulation[ray] + by_depth[ray] * middle
            g_f = by_foreground[ray, s] + by_alpha[ray] + by_accumulation[ray] + by_depth[ray] * middle
            opaque_f, opaque_b, label = row_f[s], row_b[s], row_gate[s]
            f, b = label * opaque_f, (_ONE - label) * opaque_b
            d_f = lights[s] * (g_f - g_b * b - worth * (_ONE - b))
            d_b = lights[s] * (_ONE - f) * (g_b - worth)
            worth = g_f * f + (_ONE - f) * (g_b * b + worth * (_ONE - b))
            m, light_alone = places[s], lights_alone[s]
            a = light_alone * opaque_b
            between = m * befores[s] - moments[s] + moment_behind - m * behind
            g_a = by_alone[ray, s] + by_spread[ray] * _TWO * (between + _THIRD * a * lengths[s])
            behind += a
            moment_behind += a * m
            g = (_ONE - label) * d_b + light_alone * (g_a - worth_alone)
            worth_alone = g_a * opaque_b + worth_alone * (_ONE - opaque_b)
            row_f[s] = label * d_f
            row_gate[s] = opaque_f * d_f - opaque_b * d_b
            believed = trust[ray, s]
            row_b[s] = g * (_ONE if g > _ZERO else believed)  # thinning always, growth as far as trusted
        at_near = _collect(row_f, near, at_near, start, grad_f)
        at_background = _collect(row_b, background, at_background, start, grad_b)
        at_inside = _collect(row_gate, inside, at_inside, start, grad_gate)


def _ray_values(rays: int, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        _check(tensor.shape == (rays,), f"{name} must be ({rays},), got {tuple(tensor.shape)}")


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        opacity_f: Tensor,
        near: Tensor,
        opacity_b: Tensor,
        background: Tensor,
        gate: Tensor,
        inside: Tensor,
        edges: Tensor,
        to_object: Tensor,
        crop: Tensor,
    ) -> Any:
        rays, samples = edges.shape[0], edges.shape[1] - 1
        _check(samples >= 1, f"edges must be (R, S + 1) with S >= 1, got {tuple(edges.shape)}")
        _ray_values(rays, {"to_object": to_object, "crop": crop})
        f, b, g, *geometry = _arrays(opacity_f, opacity_b, gate, edges, to_object, crop)
        at_f, at_b, at_g = (_list(i, len(x), rays * samples) for i, x in ((near, f), (background, b), (inside, g)))
        weights = [edges.new_empty(rays, samples) for _ in range(4)]
        sums = np.empty((4, rays), f.dtype)
        results = (*(w.numpy() for w in weights), sums)
        parallel(_weigh, rays, f, at_f, b, at_b, g, at_g, *geometry, *results, grain=_RAYS)
        ctx.inputs = (f, at_f, b, at_b, g, at_g, *geometry[:2], results[3])
        ctx.mark_non_differentiable(weights[3])
        return (*weights, *(torch.from_numpy(row) for row in sums))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_f: Tensor, by_b: Tensor, by_alone: Tensor, _: Any, *by_sums: Tensor) -> Any:
        f, _, b, _, g, *_ = ctx.inputs
        grads = [by_f.new_empty(len(x)) for x in (f, b, g)]
        outputs = (x.numpy() for x in grads)
        rays = by_f.shape[0]
        parallel(_weigh_backward, rays, *ctx.inputs, *_arrays(by_f, by_b, by_alone, *by_sums), *outputs, grain=_RAYS)
        return grads[0], None, grads[1], None, grads[2], None, None, None, None


def composite_weights(
    opacity_f: Tensor,
    near: Tensor,
    opacity_b: Tensor,
    background: Tensor,
    gate: Tensor,
    inside: Tensor,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
) -> tuple[Tensor, ...]:
    """See `rendering.composite.composite_weights`."""
    return _Weights.apply(opacity_f, near, opacity_b, background, gate, inside, edges, to_object, crop)


# ------------------------------------------------------------------ colours along rays


@njit(cache=True, nogil=True)
def _seen(index, weights, others, threshold, places, positions):
    count = 0
    for n in range(index.shape[0]):
        i = index[n]
        places[count], positions[count] = n, i  # overwritten by the next one unless this one counts
        count += (weights[i] > threshold) | (others[i] > threshold)
    return count


def seen_samples(index: Tensor, threshold: float, weights: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `rendering.composite.seen_samples`."""
    first, second = _arrays(weights, weights if others is None else others)
    _check(first.shape == second.shape, f"weights must be alike, got {first.shape} and {second.shape}")
    where = _list(index, index.shape[0], first.size)
    places, positions = index.new_empty(index.shape), index.new_empty(index.shape)
    least = first.dtype.type(threshold)
    count = _seen(where, first.reshape(-1), second.reshape(-1), least, places.numpy(), positions.numpy())
    return places[:count], positions[:count]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _paint(
    first, last, weights_f, weights_b, alone, rgb_f, seen_f, rgb_b, seen_b, unit, near, least,
    foreground, background, both, normal,
):  # fmt: skip
    samples, zero = alone.shape[1], least - least
    all_f, all_b = weights_f.reshape(-1), weights_b.reshape(-1)
    all_alone = alone.reshape(-1)
    at_f, at_b = _position(seen_f, first * samples), _position(seen_b, first * samples)
    at_near = _position(near, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        r = g = b = zero
        while at_f < seen_f.shape[0] and seen_f[at_f] < stop:
            w = all_f[seen_f[at_f]]
            r, g, b = r + w * rgb_f[at_f, 0], g + w * rgb_f[at_f, 1], b + w * rgb_f[at_f, 2]
            at_f += 1
        foreground[ray, 0], foreground[ray, 1], foreground[ray, 2] = r, g, b
        plate_r = plate_g = plate_b = covered = zero
        while at_b < seen_b.shape[0] and seen_b[at_b] < stop:
            w, v = all_b[seen_b[at_b]], all_alone[seen_b[at_b]]
            x, y, z = rgb_b[at_b, 0], rgb_b[at_b, 1], rgb_b[at_b, 2]
            r, g, b = r + w * x, g + w * y, b + w * z
            plate_r, plate_g, plate_b = plate_r + v * x, plate_g + v * y, plate_b + v * z
            at_b += 1
        both[ray, 0], both[ray, 1], both[ray, 2] = r, g, b
        for s in range(samples):
            covered += alone[ray, s]
        fill = _ONE / max(covered, least)
        background[ray, 0], background[ray, 1], background[ray, 2] = plate_r * fill, plate_g * fill, plate_b * fill
        x = y = z = zero
        while at_near < near.shape[0] and near[at_near] < stop:
            w = all_f[near[at_near]]
            x, y, z = x + w * unit[at_near, 0], y + w * unit[at_near, 1], z + w * unit[at_near, 2]
            at_near += 1
        normal[ray, 0], normal[ray, 1], normal[ray, 2] = x, y, z


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _paint_backward(
    first, last, weights_f, weights_b, alone, rgb_f, seen_f, rgb_b, seen_b, unit, near, least, trust, background,
    by_foreground, by_background, by_both, by_normal,
    grad_weights_f, grad_weights_b, grad_alone, grad_rgb_f, grad_rgb_b, grad_unit,
):  # fmt: skip
    samples, with_normal, zero = alone.shape[1], by_normal.shape[0] > 0, least - least
    all_f, all_b, all_alone, all_trust = (
        weights_f.reshape(-1), weights_b.reshape(-1), alone.reshape(-1), trust.reshape(-1),
    )  # fmt: skip
    grad_all_f, grad_all_b, grad_all_alone = (
        grad_weights_f.reshape(-1), grad_weights_b.reshape(-1), grad_alone.reshape(-1),
    )  # fmt: skip
    at_f, at_b = _position(seen_f, first * samples), _position(seen_b, first * samples)
    at_near = _position(near, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        covered = zero
        for s in range(samples):
            covered += alone[ray, s]
        fill = _ONE / max(covered, least)
        p, q, t = by_background[ray, 0] * fill, by_background[ray, 1] * fill, by_background[ray, 2] * fill
        by_cover = zero
        if covered >= least:
            by_cover = -(p * background[ray, 0] + q * background[ray, 1] + t * background[ray, 2])
        grad_weights_f[ray, :] = zero
        grad_weights_b[ray, :] = zero
        grad_alone[ray, :] = by_cover
        u, v, w = by_both[ray, 0], by_both[ray, 1], by_both[ray, 2]
        while at_b < seen_b.shape[0] and seen_b[at_b] < stop:
            i = seen_b[at_b]
            x, y, z = rgb_b[at_b, 0], rgb_b[at_b, 1], rgb_b[at_b, 2]
            grad_all_b[i] = u * x + v * y + w * z
            grad_all_alone[i] += p * x + q * y + t * z
            together, lone = all_b[i] * all_trust[i], all_alone[i] * all_trust[i]
            grad_rgb_b[at_b, 0] = together * u + lone * p
            grad_rgb_b[at_b, 1] = together * v + lone * q
            grad_rgb_b[at_b, 2] = together * w + lone * t
            at_b += 1
        u, v, w = u + by_foreground[ray, 0], v + by_foreground[ray, 1], w + by_foreground[ray, 2]
        while at_f < seen_f.shape[0] and seen_f[at_f] < stop:
            i = seen_f[at_f]
            grad_all_f[i] = u * rgb_f[at_f, 0] + v * rgb_f[at_f, 1] + w * rgb_f[at_f, 2]
            grad_rgb_f[at_f, 0], grad_rgb_f[at_f, 1] = all_f[i] * u, all_f[i] * v
            grad_rgb_f[at_f, 2] = all_f[i] * w
            at_f += 1
        if with_normal:
            u, v, w = by_normal[ray, 0], by_normal[ray, 1], by_normal[ray, 2]
            while at_near < near.shape[0] and near[at_near] < stop:
                i = near[at_near]
                grad_all_f[i] += u * unit[at_near, 0] + v * unit[at_near, 1] + w * unit[at_near, 2]
                grad_unit[at_near, 0], grad_unit[at_near, 1] = all_f[i] * u, all_f[i] * v
                grad_unit[at_near, 2] = all_f[i] * w
                at_near += 1


class _Colours(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weights_f: Tensor,
        weights_b: Tensor,
        alone: Tensor,
        trust: Tensor,
        rgb_f: Tensor,
        seen_f: Tensor,
        rgb_b: Tensor,
        seen_b: Tensor,
        unit: Tensor,
        near: Tensor,
        least: float,
    ) -> Any:
        rays, samples = alone.shape
        _check(
            weights_f.shape == weights_b.shape == trust.shape == alone.shape,
            f"weights and trust must all be ({rays}, {samples})",
        )
        for colours in (rgb_f, rgb_b, unit):
            _check(colours.shape[1:] == (3,), f"colours and normals must be (N, 3), got {tuple(colours.shape)}")
        *weights, believed, f, b, n = _arrays(weights_f, weights_b, alone, trust, rgb_f, rgb_b, unit)
        at_f, at_b, at_n = (_list(i, len(x), rays * samples) for i, x in ((seen_f, f), (seen_b, b), (near, n)))
        results = [alone.new_empty(rays, 3) for _ in range(4)]
        outputs = [x.numpy() for x in results]
        inputs = (*weights, f, at_f, b, at_b, n, at_n, f.dtype.type(least))
        parallel(_paint, rays, *inputs, *outputs, grain=_RAYS)
        ctx.set_materialize_grads(False)
        ctx.inputs = (*inputs, believed, outputs[1])
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_results: Tensor | None) -> Any:
        weights_f, weights_b, alone, f, _, b, _, unit, *_ = ctx.inputs
        kind = _KINDS[alone.dtype]
        *by_colours, by_normal = by_results
        zeros = torch.zeros(alone.shape[0], 3, dtype=kind)
        upstream = [*(zeros if g is None else g for g in by_colours), zeros[:0] if by_normal is None else by_normal]
        grads = [torch.empty(x.shape, dtype=kind) for x in (weights_f, weights_b, alone, f, b, unit)]
        outputs = (x.numpy() for x in grads)
        parallel(_paint_backward, alone.shape[0], *ctx.inputs, *_arrays(*upstream), *outputs, grain=_RAYS)
        by_unit = None if by_normal is None else grads[5]
        return grads[0], grads[1], grads[2], None, grads[3], None, grads[4], None, by_unit, None, None


def composite_colours(
    weights_f: Tensor,
    weights_b: Tensor,
    alone: Tensor,
    trust: Tensor,
    rgb_f: Tensor,
    seen_f: Tensor,
    rgb_b: Tensor,
    seen_b: Tensor,
    unit: Tensor,
    near: Tensor,
    least: float,
) -> tuple[Tensor, ...]:
    """See `rendering.composite.composite_colours`."""
    return _Colours.apply(weights_f, weights_b, alone, trust, rgb_f, seen_f, rgb_b, seen_b, unit, near, least)


# ------------------------------------------------------------------ what surfaces carry


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _accumulate(first, last, weights, values, index, result):
    samples, channels = weights.shape[1], values.shape[1]
    flat = weights.reshape(-1)
    at = _position(index, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        result[ray, :] = _ZERO
        while at < index.shape[0] and index[at] < stop:
            weight = flat[index[at]]
            for c in range(channels):
                result[ray, c] += weight * values[at, c]
            at += 1


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _accumulate_backward(first, last, weights, index, by_result, grad_values):
    samples, channels = weights.shape[1], by_result.shape[1]
    flat = weights.reshape(-1)
    at = _position(index, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        while at < index.shape[0] and index[at] < stop:
            weight = flat[index[at]]
            for c in range(channels):
                grad_values[at, c] = weight * by_result[ray, c]
            at += 1


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, index: Tensor) -> Tensor:
        _check(values.ndim == 2, f"values must be (N,) or (N, C), got {tuple(values.shape)}")
        w, v = _arrays(weights, values)
        at = _list(index, len(v), w.size)
        result = values.new_empty(len(w), values.shape[1])
        parallel(_accumulate, len(w), w, v, at, result.numpy(), grain=_RAYS)
        ctx.inputs, ctx.shape = (w, at), values.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_result: Tensor) -> Any:
        w, at = ctx.inputs
        grad = by_result.new_empty(ctx.shape)
        parallel(_accumulate_backward, len(w), w, at, *_arrays(by_result), grad.numpy(), grain=_RAYS)
        return None, grad, None


def accumulate_detached(weights: Tensor, values: Tensor, index: Tensor) -> Tensor:
    """See `rendering.composite.accumulate_detached`."""
    columns = values[:, None] if values.ndim == 1 else values
    found = _Accumulate.apply(weights.detach(), columns, index)
    return found[:, 0] if values.ndim == 1 else found
