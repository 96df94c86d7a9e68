"""Opacities, blending of both layers and sums along rays (eq. 3-7): one pass forward, one backward.

What is computed, and what the arguments mean, is in `rendering/composite.py`. A ray is processed from near to far, and
for its gradients from far to near: the backward accumulates what lies behind a sample and never divides by a
transmittance, so that gradients are exact for opacities of 1 as well. Cheap values are recomputed in the backward.
Inputs are kept as the arrays that the kernels read, since unpacking saved tensors takes as long as a small kernel.
Tensors are all float32 or all float64.

Names: `by_x` is the incoming gradient of the loss by output x, `grad_x` the one that is returned for input x. `_f` is
the foreground, `_b` the background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from surface_sos_ns.ops.cpu.simd import exp
from surface_sos_ns.ops.cpu.threads import parallel

_BLOCK = 512  # samples per partial sum, whatever the number of threads
_MIN_BLOCKS = 16  # per piece of work
_MIN_RAYS = 256  # per piece of work
_FAST = {"contract", "reassoc", "nsz", "arcp"}  # without those that assume that there are no NaN: NaN has to propagate
_ZERO, _HALF, _ONE, _TWO, _THIRD = (np.float32(x) for x in (0.0, 0.5, 1.0, 2.0, 1.0 / 3.0))
_DTYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
_MIN_NORM = np.float32(1e-12)  # as torch.nn.functional.normalize


def _arrays(*tensors: Tensor) -> list[NDArray[np.floating[Any]]]:
    """Contiguous arrays of float tensors.

    Raises:
        TypeError: they are not all float32, or all float64, on the CPU.
    """
    kind = tensors[0].dtype
    if kind not in _DTYPES.values() or any(t.dtype != kind or not t.is_cpu for t in tensors):
        found = ", ".join(f"{t.dtype} on {t.device}" for t in tensors)
        raise TypeError(f"compiled rendering needs float32 (or float64) alike and on the CPU, got {found}")
    return [t.detach().contiguous().numpy() for t in tensors]


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


@njit(cache=True, nogil=True)
def _is_ascending(index, limit):  # type: ignore[no-untyped-def]
    """Whether positions ascend strictly from 0 or more to less than `limit`."""
    fine = True
    previous = -1
    for i in range(index.shape[0]):
        fine &= index[i] > previous
        previous = index[i]
    return fine and previous < limit


def _checked_positions(index: Tensor, entries: int, limit: int) -> NDArray[np.int64]:
    """The positions of a list as an array, after checks: kernels would read and write out of bounds.

    Raises:
        ValueError: another type or number than `entries`, not ascending, or not in [0, limit).
    """
    _check(index.dtype == torch.int64 and index.is_cpu, "positions of samples are int64 on the CPU")
    array: NDArray[np.int64] = index.contiguous().numpy()
    _check(array.shape == (entries,), f"{entries} values need as many positions, got {tuple(array.shape)}")
    _check(_is_ascending(array, limit), f"positions of samples must ascend and lie in [0, {limit})")
    return array


# ------------------------------------------------------------------ opacity of sections


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _surface_opacity(first, last, sdf, normal, direction, interval, index, sharpness, anneal, opacity, unit):  # type: ignore[no-untyped-def]
    """Opacity (eq. 6) and unit normals of sections, block by block."""
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
            scale = _ONE / max(np.sqrt(x * x + y * y + z * z), _MIN_NORM)
            unit[n, 0], unit[n, 1], unit[n, 2] = x * scale, y * scale, z * scale
        for n in range(start, stop):
            # 1 - Phi(next) / Phi(previous) = (1 - e^-drop) / (1 + e^(b f_next)), without the underflow of both Phi
            after = exp(sharpness * sdf[n] - _HALF * drop[n - start])
            opacity[n] = (_ONE - exp(-drop[n - start])) / (_ONE + after)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _surface_opacity_backward(  # type: ignore[no-untyped-def]
    first, last, sdf, normal, direction, interval, index, sharpness, anneal, by_opacity, by_unit,
    grad_sdf, grad_normal, grad_sharpness,
):  # fmt: skip
    """Gradients of `_surface_opacity`; that of the sharpness as one partial sum per block."""
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
            cosine_slope = (_HALF * (_ONE - anneal) if cosine < _ONE else _ZERO) + (anneal if cosine < _ZERO else _ZERO)
            slope[n - start] = -cosine_slope * length[i] * sharpness
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
        # A loop of its own: in one that also writes to arrays, the order of the sum would depend on their addresses
        # (LLVM checks at run time whether they overlap, and does not vectorise if so).
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
                scale = _ONE / max(size, _MIN_NORM)
                along = _ZERO * size
                if size >= _MIN_NORM:
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
        where = np.empty(0, np.int64) if index is None else _checked_positions(index, count, limit)
        _check(values[1].shape == (count, 3), f"normals must be ({count}, 3), got {tuple(normal.shape)}")
        _check(values[2].shape == (len(lengths), 3), f"directions must be ({len(lengths)}, 3)")
        _check(index is not None or limit == count, f"{count} samples need as many intervals, got {limit}")
        inputs = (*values, where, b.reshape(-1)[0], b.dtype.type(anneal))
        opacity, unit = sdf.new_empty(count), sdf.new_empty(count, 3)
        blocks = -(-count // _BLOCK)
        parallel(_surface_opacity, blocks, *inputs, opacity.numpy(), unit.numpy(), grain=_MIN_BLOCKS)
        ctx.set_materialize_grads(False)
        ctx.inputs = inputs
        ctx.shape = sharpness.shape
        return opacity, unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_opacity: Tensor | None, by_unit: Tensor | None) -> Any:
        count, kind = ctx.inputs[0].shape[0], _DTYPES[ctx.inputs[0].dtype]
        if by_opacity is None:
            by_opacity = torch.zeros(count, dtype=kind)
        if by_unit is None:
            by_unit = torch.empty(0, 3, dtype=kind)
        grad_sdf, grad_normal = torch.empty(count, dtype=kind), torch.empty(count, 3, dtype=kind)
        blocks = -(-count // _BLOCK)
        sums = torch.empty(blocks, dtype=kind)
        outputs = (x.numpy() for x in (grad_sdf, grad_normal, sums))
        parallel(
            _surface_opacity_backward, blocks, *ctx.inputs, *_arrays(by_opacity, by_unit), *outputs, grain=_MIN_BLOCKS
        )
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
    result: tuple[Tensor, Tensor] = _SurfaceOpacity.apply(sdf, normal, directions, interval, sharpness, anneal, index)
    return result


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _density_opacity(first, last, density, crop, interval, index, factor, result):  # type: ignore[no-untyped-def]
    """Opacities; or if `factor` has an entry per sample, `factor` times their derivative by the density."""
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
        where = np.empty(0, np.int64) if index is None else _checked_positions(index, count, limit)
        _check(crop.numel() == limit, f"crop and interval must be alike, got {crop.numel()} and {limit}")
        _check(index is not None or limit == count, f"{count} samples need as many intervals, got {limit}")
        opacity = density.new_empty(count)
        *values, none = _arrays(density, crop.reshape(-1), interval.reshape(-1), density[:0])
        parallel(_density_opacity, -(-count // _BLOCK), *values, where, none, opacity.numpy(), grain=_MIN_BLOCKS)
        ctx.inputs = (*values, where)
        return opacity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_opacity: Tensor) -> Any:
        grad = by_opacity.new_empty(by_opacity.shape)
        blocks = -(-len(by_opacity) // _BLOCK)
        parallel(_density_opacity, blocks, *ctx.inputs, *_arrays(by_opacity), grad.numpy(), grain=_MIN_BLOCKS)
        return grad, None, None, None


def density_section_opacity(density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None) -> Tensor:
    """See `rendering.composite.density_section_opacity`."""
    result: Tensor = _DensityOpacity.apply(density, crop, interval, index)
    return result


# ------------------------------------------------------------------ weights along rays


@njit(cache=True, nogil=True)
def _lower_bound(index, value):  # type: ignore[no-untyped-def]
    """Number of entries of an ascending list that are less than `value`."""
    low, high = 0, index.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if index[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _unpack(values, index, at, start, row):  # type: ignore[no-untyped-def]
    """Unpack a list's values of one ray to a row of its samples, 0 elsewhere.

    `at` is the first entry of the ray, `start` the position of its first sample. Returns the next ray's first entry.
    """
    row[:] = 0
    while at < index.shape[0] and index[at] < start + row.shape[0]:
        row[index[at] - start] = values[at]
        at += 1
    return at


@njit(cache=True, nogil=True)
def _pack(row, index, at, start, values):  # type: ignore[no-untyped-def]
    """The inverse of `_unpack`."""
    while at < index.shape[0] and index[at] < start + row.shape[0]:
        values[at] = row[index[at] - start]
        at += 1
    return at


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _ray_weights(  # type: ignore[no-untyped-def]
    first, last, opacity_f, near, opacity_b, background, gate, inside, edges, to_object, crop,
    weights_f, weights_b, background_only, growth_scale, sums,
):  # fmt: skip
    """Weights (eq. 3, 5, 7), growth scale, and the sums alpha, accumulation, depth, distortion, ray by ray."""
    samples = edges.shape[1] - 1
    at_near, at_background = _lower_bound(near, first * samples), _lower_bound(background, first * samples)
    at_gate = _lower_bound(inside, first * samples)
    row = np.zeros((3, samples), edges.dtype)
    zero = row[0, 0]
    row_f, row_b, row_gate = row[0], row[1], row[2]
    for ray in range(first, last):
        start = ray * samples
        at_near = _unpack(opacity_f, near, at_near, start, row_f)
        at_background = _unpack(opacity_b, background, at_background, start, row_b)
        at_gate = _unpack(gate, inside, at_gate, start, row_gate)
        object_distance, free = to_object[ray], _ONE - crop[ray]
        light = background_light = zero + _ONE
        alpha = accumulation = depth = distortion = before = moment = middle = zero
        edge = edges[ray, 0]
        normalised = edge / (edge + object_distance)
        for s in range(samples):
            next_edge = edges[ray, s + 1]
            next_normalised = next_edge / (next_edge + object_distance)
            middle = _HALF * (edge + next_edge)
            closeness = middle / object_distance
            growth_scale[ray, s] = min(closeness * closeness, _ONE) * free
            f, b = row_gate[s] * row_f[s], (_ONE - row_gate[s]) * row_b[s]
            w_f, w_b = light * f, light * (_ONE - f) * b
            light *= (_ONE - f) * (_ONE - b)
            weights_f[ray, s], weights_b[ray, s] = w_f, w_b
            alpha += w_f
            accumulation += w_f + w_b
            depth += (w_f + w_b) * middle
            a = background_light * row_b[s]
            background_light *= _ONE - row_b[s]
            background_only[ray, s] = a
            m = _HALF * (normalised + next_normalised)
            distortion += _TWO * a * (m * before - moment) + _THIRD * a * a * (next_normalised - normalised)
            before += a
            moment += a * m
            edge, normalised = next_edge, next_normalised
        sums[0, ray], sums[1, ray], sums[2, ray] = alpha, accumulation, depth + light * middle
        sums[3, ray] = distortion


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _ray_weights_backward(  # type: ignore[no-untyped-def]
    first, last, opacity_f, near, opacity_b, background, gate, inside, edges, to_object, growth_scale,
    by_foreground, by_background, by_background_only, by_alpha, by_accumulation, by_depth, by_distortion,
    grad_f, grad_b, grad_gate,
):  # fmt: skip
    """Gradients of `_ray_weights` for both opacities and the gate, ray by ray."""
    samples = edges.shape[1] - 1
    at_near, at_background = _lower_bound(near, first * samples), _lower_bound(background, first * samples)
    at_inside = _lower_bound(inside, first * samples)
    row = np.zeros((9, samples), edges.dtype)
    zero = row[0, 0]
    row_f, row_b, row_gate = row[0], row[1], row[2]
    lights, background_lights, middles, befores, moments = row[3], row[4], row[5], row[6], row[7]
    lengths = row[8]
    for ray in range(first, last):
        start = ray * samples
        _unpack(opacity_f, near, at_near, start, row_f)
        _unpack(opacity_b, background, at_background, start, row_b)
        _unpack(gate, inside, at_inside, start, row_gate)
        object_distance = to_object[ray]
        light = background_light = zero + _ONE
        before = moment = zero
        edge = edges[ray, 0]
        normalised = edge / (edge + object_distance)
        for s in range(samples):
            next_edge = edges[ray, s + 1]
            next_normalised = next_edge / (next_edge + object_distance)
            m = _HALF * (normalised + next_normalised)
            f, b = row_gate[s] * row_f[s], (_ONE - row_gate[s]) * row_b[s]
            lights[s], background_lights[s], middles[s], lengths[s] = (
                light,
                background_light,
                m,
                next_normalised - normalised,
            )
            befores[s], moments[s] = before, moment
            light *= (_ONE - f) * (_ONE - b)
            a = background_light * row_b[s]
            background_light *= _ONE - row_b[s]
            before += a
            moment += a * m
            normalised, edge = next_normalised, next_edge
        # Gradients of the loss by the light that passes sample s: of both layers, and of the background alone.
        last_middle = _HALF * (edges[ray, samples - 1] + edges[ray, samples])
        by_light, by_background_light = by_depth[ray] * last_middle, zero
        behind = moment_behind = zero
        for k in range(samples):
            s = samples - 1 - k
            middle = _HALF * (edges[ray, s] + edges[ray, s + 1])
            g_b = by_background[ray, s] + by_accumulation[ray] + by_depth[ray] * middle
            g_f = by_foreground[ray, s] + by_alpha[ray] + by_accumulation[ray] + by_depth[ray] * middle
            opaque_f, opaque_b, split = row_f[s], row_b[s], row_gate[s]
            f, b = split * opaque_f, (_ONE - split) * opaque_b
            d_f = lights[s] * (g_f - g_b * b - by_light * (_ONE - b))
            d_b = lights[s] * (_ONE - f) * (g_b - by_light)
            by_light = g_f * f + (_ONE - f) * (g_b * b + by_light * (_ONE - b))
            m, background_light = middles[s], background_lights[s]
            a = background_light * opaque_b
            between = m * befores[s] - moments[s] + moment_behind - m * behind
            g_a = by_background_only[ray, s] + by_distortion[ray] * _TWO * (between + _THIRD * a * lengths[s])
            behind += a
            moment_behind += a * m
            g = (_ONE - split) * d_b + background_light * (g_a - by_background_light)
            by_background_light = g_a * opaque_b + by_background_light * (_ONE - opaque_b)
            row_f[s] = split * d_f
            row_gate[s] = opaque_f * d_f - opaque_b * d_b
            growth = growth_scale[ray, s]
            row_b[s] = g * (_ONE if g > _ZERO else growth)  # as `scale_growth`
        at_near = _pack(row_f, near, at_near, start, grad_f)
        at_background = _pack(row_b, background, at_background, start, grad_b)
        at_inside = _pack(row_gate, inside, at_inside, start, grad_gate)


def _check_per_ray(rays: int, tensors: dict[str, Tensor]) -> None:
    """Check that named tensors have one value per ray."""
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
        _check_per_ray(rays, {"to_object": to_object, "crop": crop})
        f, b, g, *geometry = _arrays(opacity_f, opacity_b, gate, edges, to_object, crop)
        at_f, at_b, at_g = (
            _checked_positions(i, len(x), rays * samples) for i, x in ((near, f), (background, b), (inside, g))
        )
        weights = [edges.new_empty(rays, samples) for _ in range(4)]
        sums = np.empty((4, rays), f.dtype)
        results = (*(w.numpy() for w in weights), sums)
        parallel(_ray_weights, rays, f, at_f, b, at_b, g, at_g, *geometry, *results, grain=_MIN_RAYS)
        ctx.inputs = (f, at_f, b, at_b, g, at_g, *geometry[:2], results[3])
        ctx.mark_non_differentiable(weights[3])
        return (*weights, *(torch.from_numpy(row) for row in sums))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_f: Tensor, by_b: Tensor, by_background_only: Tensor, _: Any, *by_sums: Tensor) -> Any:
        f, _, b, _, g, *_ = ctx.inputs
        grads = [by_f.new_empty(len(x)) for x in (f, b, g)]
        outputs = (x.numpy() for x in grads)
        rays = by_f.shape[0]
        parallel(
            _ray_weights_backward,
            rays,
            *ctx.inputs,
            *_arrays(by_f, by_b, by_background_only, *by_sums),
            *outputs,
            grain=_MIN_RAYS,
        )
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
    result: tuple[Tensor, ...] = _Weights.apply(
        opacity_f, near, opacity_b, background, gate, inside, edges, to_object, crop
    )
    return result


# ------------------------------------------------------------------ colours along rays


@njit(cache=True, nogil=True)
def _seen(index, weights, others, threshold, chosen, positions):  # type: ignore[no-untyped-def]
    """Fill `chosen` and `positions`; returns the number of samples above the threshold."""
    count = 0
    for n in range(index.shape[0]):
        i = index[n]
        chosen[count], positions[count] = n, i  # overwritten by the next one unless the count increases
        count += (weights[i] > threshold) | (others[i] > threshold)
    return count


def seen_samples(index: Tensor, threshold: float, weights: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `sampling.selection.seen_samples`."""
    first, second = _arrays(weights, weights if others is None else others)
    _check(first.shape == second.shape, f"weights must be alike, got {first.shape} and {second.shape}")
    where = _checked_positions(index, index.shape[0], first.size)
    chosen, positions = index.new_empty(index.shape), index.new_empty(index.shape)
    limit = first.dtype.type(threshold)
    count = _seen(where, first.reshape(-1), second.reshape(-1), limit, chosen.numpy(), positions.numpy())
    return chosen[:count], positions[:count]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _ray_colours(  # type: ignore[no-untyped-def]
    first, last, weights_f, weights_b, background_only, rgb_f, seen_f, rgb_b, seen_b, unit, near, min_opacity,
    foreground, background, both, normal,
):  # fmt: skip
    """Colours (eq. 7) of both layers, their sum, the clean plate and normals, ray by ray."""
    samples, zero = background_only.shape[1], min_opacity - min_opacity
    all_f, all_b = weights_f.reshape(-1), weights_b.reshape(-1)
    all_background_only = background_only.reshape(-1)
    at_f, at_b = _lower_bound(seen_f, first * samples), _lower_bound(seen_b, first * samples)
    at_near = _lower_bound(near, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        r = g = b = zero
        while at_f < seen_f.shape[0] and seen_f[at_f] < stop:
            w = all_f[seen_f[at_f]]
            r, g, b = r + w * rgb_f[at_f, 0], g + w * rgb_f[at_f, 1], b + w * rgb_f[at_f, 2]
            at_f += 1
        foreground[ray, 0], foreground[ray, 1], foreground[ray, 2] = r, g, b
        plate_r = plate_g = plate_b = plate_opacity = zero
        while at_b < seen_b.shape[0] and seen_b[at_b] < stop:
            w, v = all_b[seen_b[at_b]], all_background_only[seen_b[at_b]]
            x, y, z = rgb_b[at_b, 0], rgb_b[at_b, 1], rgb_b[at_b, 2]
            r, g, b = r + w * x, g + w * y, b + w * z
            plate_r, plate_g, plate_b = plate_r + v * x, plate_g + v * y, plate_b + v * z
            at_b += 1
        both[ray, 0], both[ray, 1], both[ray, 2] = r, g, b
        for s in range(samples):
            plate_opacity += background_only[ray, s]
        fill = _ONE / max(plate_opacity, min_opacity)
        background[ray, 0], background[ray, 1], background[ray, 2] = plate_r * fill, plate_g * fill, plate_b * fill
        x = y = z = zero
        while at_near < near.shape[0] and near[at_near] < stop:
            w = all_f[near[at_near]]
            x, y, z = x + w * unit[at_near, 0], y + w * unit[at_near, 1], z + w * unit[at_near, 2]
            at_near += 1
        normal[ray, 0], normal[ray, 1], normal[ray, 2] = x, y, z


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _ray_colours_backward(  # type: ignore[no-untyped-def]
    first, last, weights_f, weights_b, background_only, rgb_f, seen_f, rgb_b, seen_b, unit, near, min_opacity,
    growth_scale, background, by_foreground, by_background, by_both, by_normal,
    grad_weights_f, grad_weights_b, grad_background_only, grad_rgb_f, grad_rgb_b, grad_unit,
):  # fmt: skip
    """Gradients of `_ray_colours` for weights, colours and normals, ray by ray."""
    samples, with_normal, zero = background_only.shape[1], by_normal.shape[0] > 0, min_opacity - min_opacity
    all_f, all_b, all_background_only, all_growth_scale = (
        weights_f.reshape(-1), weights_b.reshape(-1), background_only.reshape(-1), growth_scale.reshape(-1),
    )  # fmt: skip
    grad_all_f, grad_all_b, grad_all_background_only = (
        grad_weights_f.reshape(-1), grad_weights_b.reshape(-1), grad_background_only.reshape(-1),
    )  # fmt: skip
    at_f, at_b = _lower_bound(seen_f, first * samples), _lower_bound(seen_b, first * samples)
    at_near = _lower_bound(near, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        plate_opacity = zero
        for s in range(samples):
            plate_opacity += background_only[ray, s]
        fill = _ONE / max(plate_opacity, min_opacity)
        p, q, t = by_background[ray, 0] * fill, by_background[ray, 1] * fill, by_background[ray, 2] * fill
        by_plate_opacity = zero
        if plate_opacity >= min_opacity:
            by_plate_opacity = -(p * background[ray, 0] + q * background[ray, 1] + t * background[ray, 2])
        grad_weights_f[ray, :] = zero
        grad_weights_b[ray, :] = zero
        grad_background_only[ray, :] = by_plate_opacity
        u, v, w = by_both[ray, 0], by_both[ray, 1], by_both[ray, 2]
        while at_b < seen_b.shape[0] and seen_b[at_b] < stop:
            i = seen_b[at_b]
            x, y, z = rgb_b[at_b, 0], rgb_b[at_b, 1], rgb_b[at_b, 2]
            grad_all_b[i] = u * x + v * y + w * z
            grad_all_background_only[i] += p * x + q * y + t * z
            in_ray, in_plate = all_b[i] * all_growth_scale[i], all_background_only[i] * all_growth_scale[i]
            grad_rgb_b[at_b, 0] = in_ray * u + in_plate * p
            grad_rgb_b[at_b, 1] = in_ray * v + in_plate * q
            grad_rgb_b[at_b, 2] = in_ray * w + in_plate * t
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
        background_only: Tensor,
        growth_scale: Tensor,
        rgb_f: Tensor,
        seen_f: Tensor,
        rgb_b: Tensor,
        seen_b: Tensor,
        unit: Tensor,
        near: Tensor,
        min_opacity: float,
    ) -> Any:
        rays, samples = background_only.shape
        _check(
            weights_f.shape == weights_b.shape == growth_scale.shape == background_only.shape,
            f"weights and growth_scale must all be ({rays}, {samples})",
        )
        for colours in (rgb_f, rgb_b, unit):
            _check(colours.shape[1:] == (3,), f"colours and normals must be (N, 3), got {tuple(colours.shape)}")
        *weights, growth, f, b, n = _arrays(weights_f, weights_b, background_only, growth_scale, rgb_f, rgb_b, unit)
        at_f, at_b, at_n = (
            _checked_positions(i, len(x), rays * samples) for i, x in ((seen_f, f), (seen_b, b), (near, n))
        )
        results = [background_only.new_empty(rays, 3) for _ in range(4)]
        outputs = [x.numpy() for x in results]
        inputs = (*weights, f, at_f, b, at_b, n, at_n, f.dtype.type(min_opacity))
        parallel(_ray_colours, rays, *inputs, *outputs, grain=_MIN_RAYS)
        ctx.set_materialize_grads(False)
        ctx.inputs = (*inputs, growth, outputs[1])
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_results: Tensor | None) -> Any:
        weights_f, weights_b, background_only, f, _, b, _, unit, *_ = ctx.inputs
        kind = _DTYPES[background_only.dtype]
        *by_colours, by_normal = by_results
        zeros = torch.zeros(background_only.shape[0], 3, dtype=kind)
        upstream = [*(zeros if g is None else g for g in by_colours), zeros[:0] if by_normal is None else by_normal]
        grads = [torch.empty(x.shape, dtype=kind) for x in (weights_f, weights_b, background_only, f, b, unit)]
        outputs = (x.numpy() for x in grads)
        parallel(
            _ray_colours_backward, background_only.shape[0], *ctx.inputs, *_arrays(*upstream), *outputs, grain=_MIN_RAYS
        )
        by_unit = None if by_normal is None else grads[5]
        return grads[0], grads[1], grads[2], None, grads[3], None, grads[4], None, by_unit, None, None


def composite_colours(
    weights_f: Tensor,
    weights_b: Tensor,
    background_only: Tensor,
    growth_scale: Tensor,
    rgb_f: Tensor,
    seen_f: Tensor,
    rgb_b: Tensor,
    seen_b: Tensor,
    unit: Tensor,
    near: Tensor,
    min_opacity: float,
) -> tuple[Tensor, ...]:
    """See `rendering.composite.composite_colours`."""
    result: tuple[Tensor, ...] = _Colours.apply(
        weights_f, weights_b, background_only, growth_scale, rgb_f, seen_f, rgb_b, seen_b, unit, near, min_opacity
    )
    return result


# ------------------------------------------------------------------ other values along rays


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _accumulate(first, last, weights, values, index, result):  # type: ignore[no-untyped-def]
    """Weighted sums of C channels, ray by ray."""
    samples, channels = weights.shape[1], values.shape[1]
    flat = weights.reshape(-1)
    at = _lower_bound(index, first * samples)
    for ray in range(first, last):
        stop = (ray + 1) * samples
        result[ray, :] = _ZERO
        while at < index.shape[0] and index[at] < stop:
            weight = flat[index[at]]
            for c in range(channels):
                result[ray, c] += weight * values[at, c]
            at += 1


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _accumulate_backward(first, last, weights, index, by_result, grad_values):  # type: ignore[no-untyped-def]
    """Gradient of `_accumulate` for the values."""
    samples, channels = weights.shape[1], by_result.shape[1]
    flat = weights.reshape(-1)
    at = _lower_bound(index, first * samples)
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
        at = _checked_positions(index, len(v), w.size)
        result = values.new_empty(len(w), values.shape[1])
        parallel(_accumulate, len(w), w, v, at, result.numpy(), grain=_MIN_RAYS)
        ctx.inputs, ctx.shape = (w, at), values.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_result: Tensor) -> Any:
        w, at = ctx.inputs
        grad = by_result.new_empty(ctx.shape)
        parallel(_accumulate_backward, len(w), w, at, *_arrays(by_result), grad.numpy(), grain=_MIN_RAYS)
        return None, grad, None


def accumulate_detached(weights: Tensor, values: Tensor, index: Tensor) -> Tensor:
    """See `rendering.composite.accumulate_detached`."""
    columns = values[:, None] if values.ndim == 1 else values
    found = _Accumulate.apply(weights.detach(), columns, index)
    result: Tensor = found[:, 0] if values.ndim == 1 else found
    return result
