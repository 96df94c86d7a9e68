"""Opacities, blending of both layers and sums along rays (eq. 3-7) as Triton kernels for CUDA.

What is computed, and what the arguments mean, is in `rendering/composite.py`; here all R x S samples have values. A
program handles a tile: a block of rays with all their samples. S is a constant of the compiled kernel and padded to a
power of two; a padded sample has opacity 0 and lies behind all others. What depends on the samples before or behind is
a scan along the tile's second axis, so that time is linear in S. The backward recomputes the forward, and scans from
far to near what lies behind a sample instead of dividing by a transmittance: gradients are exact for opacities of 1.

The last section launches the kernels, which synchronise with nothing and read nothing on the host; `composite.py`
makes operators of that.

Names: `by_x` is the incoming gradient of the loss by output x (None: there is none), `grad_x` the one that is returned
for input x. `_f` is the foreground, `_b` the background. `at` are the positions of samples, ray * S + sample.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from surface_sos_ns.ops.cuda.triton_support import OPTIONS, on_device_of
from surface_sos_ns.rendering.composite import MIN_BACKGROUND_OPACITY

_TILE = 512  # samples of a program, or all of a ray where it has more
_MIN_OPACITY = tl.constexpr(MIN_BACKGROUND_OPACITY)
_MIN_NORM = tl.constexpr(1e-12)  # as torch.nn.functional.normalize
_MAX_EXPONENT = tl.constexpr(80.0)  # its exponential is finite


# ------------------------------------------------------------------ tiles


@triton.jit
def _tile(rays, SAMPLES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rays (BLOCK,) of a program, which of them exist, positions (BLOCK, PADDED), and which of these are samples."""
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.arange(0, PADDED)
    exists = ray < rays
    return ray, exists, (ray * SAMPLES)[:, None] + sample[None, :], exists[:, None] & (sample < SAMPLES)[None, :]


@triton.jit
def _vectors(pointer, at, valid):  # type: ignore[no-untyped-def]
    """Components of 3-vectors."""
    x = tl.load(pointer + at * 3, mask=valid, other=0.0)
    y = tl.load(pointer + at * 3 + 1, mask=valid, other=0.0)
    z = tl.load(pointer + at * 3 + 2, mask=valid, other=0.0)
    return x, y, z


@triton.jit
def _store_vectors(pointer, at, valid, x, y, z):  # type: ignore[no-untyped-def]
    tl.store(pointer + at * 3, x, mask=valid)
    tl.store(pointer + at * 3 + 1, y, mask=valid)
    tl.store(pointer + at * 3 + 2, z, mask=valid)


@triton.jit
def _gradient(pointer, at, valid, like):  # type: ignore[no-untyped-def]
    """An incoming gradient, of the shape of `like`; zeros where there is none."""
    found = tl.zeros(like.shape, tl.float32)
    if pointer is not None:
        found = tl.load(pointer + at, mask=valid, other=0.0)
    return found


@triton.jit
def _relu(x):  # type: ignore[no-untyped-def]
    return tl.where(x < 0.0, 0.0, x)  # unlike tl.maximum, it keeps NaN


# ------------------------------------------------------------------ scans along rays


@triton.jit
def _multiply(before_1, own_1, before_2, own_2):  # type: ignore[no-untyped-def]
    """Join two runs of samples, each given as the product of all but its last factor, and that factor."""
    return before_1 * own_1 * before_2, own_2


@triton.jit
def _before(factors):  # type: ignore[no-untyped-def]
    """Product of the factors of all nearer samples."""
    before, _ = tl.associative_scan((tl.full(factors.shape, 1.0, tl.float32), factors), 1, _multiply)
    return before


@triton.jit
def _compose(add_1, times_1, own_add_1, own_times_1, add_2, times_2, own_add_2, own_times_2):  # type: ignore[no-untyped-def]
    """Join two runs of maps `x -> add + times * x`, each given as the composition of all but its last, and that one."""
    add_1, times_1 = own_add_1 + own_times_1 * add_1, own_times_1 * times_1
    return add_2 + times_2 * add_1, times_2 * times_1, own_add_2, own_times_2


@triton.jit
def _behind(add, times, end):  # type: ignore[no-untyped-def]
    """Result x_s of the maps of all farther samples: `x_s = add_{s+1} + times_{s+1} x_{s+1}`, from `end` on."""
    none, one = tl.zeros(add.shape, tl.float32), tl.full(add.shape, 1.0, tl.float32)
    add, times, _, _ = tl.associative_scan((none, one, add, times), 1, _compose, reverse=True)
    return add + times * end


# ------------------------------------------------------------------ opacity of sections


@triton.jit
def _entering(cosine, anneal):  # type: ignore[no-untyped-def]
    """Minus the annealed cosine (see `neus_opacity`)."""
    return _relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + _relu(-cosine) * anneal


@triton.jit
def _after_section(sdf, drop, sharpness):  # type: ignore[no-untyped-def]
    """exp(b f) at the section's far end, where `drop` is by how much b f falls through it; large ones are cut off."""
    exponent = sharpness * sdf - 0.5 * drop
    return tl.exp(tl.where(exponent > _MAX_EXPONENT, _MAX_EXPONENT, exponent))


@triton.jit
def _inverse_norm(x, y, z):  # type: ignore[no-untyped-def]
    """1 / |v|, and |v|; short vectors are treated as by `torch.nn.functional.normalize`."""
    size = tl.sqrt(x * x + y * y + z * z)
    return 1.0 / tl.where(size < _MIN_NORM, _MIN_NORM, size), size


@triton.jit(do_not_specialize=["rays"])
def _section_opacity(  # type: ignore[no-untyped-def]
    sdf,
    normal,
    directions,
    interval,
    sharpness,
    anneal,
    opacity,
    unit,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Opacity (eq. 6) and unit normals of sections."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    b, annealed = tl.load(sharpness), tl.load(anneal)
    x, y, z = _vectors(normal, at, valid)
    u, v, w = _vectors(directions, ray, exists)
    cosine = x * u[:, None] + y * v[:, None] + z * w[:, None]
    f, length = tl.load(sdf + at, mask=valid, other=0.0), tl.load(interval + at, mask=valid, other=0.0)
    drop = _entering(cosine, annealed) * length * b
    # 1 - Phi(next) / Phi(previous) = (1 - e^-drop) / (1 + e^(b f_next)), without the underflow of both Phi
    tl.store(opacity + at, (1.0 - tl.exp(-drop)) / (1.0 + _after_section(f, drop, b)), mask=valid)
    scale, _ = _inverse_norm(x, y, z)
    _store_vectors(unit, at, valid, x * scale, y * scale, z * scale)


@triton.jit(do_not_specialize=["rays"])
def _section_opacity_backward(  # type: ignore[no-untyped-def]
    sdf,
    normal,
    directions,
    interval,
    sharpness,
    anneal,
    by_opacity,
    by_unit,
    grad_sdf,
    grad_normal,
    grad_directions,
    grad_sharpness,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `_section_opacity`; that of the sharpness as one partial sum per program."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    b, annealed = tl.load(sharpness), tl.load(anneal)
    x, y, z = _vectors(normal, at, valid)
    u, v, w = _vectors(directions, ray, exists)
    u, v, w = u[:, None], v[:, None], w[:, None]
    cosine = x * u + y * v + z * w
    f, length = tl.load(sdf + at, mask=valid, other=0.0), tl.load(interval + at, mask=valid, other=0.0)
    per_sharpness = _entering(cosine, annealed) * length
    drop = per_sharpness * b
    left, after = tl.exp(-drop), _after_section(f, drop, b)
    inside = 1.0 / (1.0 + after)
    g = _gradient(by_opacity, at, valid, cosine)
    by_next = g * (inside * after) * inside * (left - 1.0)  # by b f at the section's far end
    by_drop = g * inside * left - 0.5 * by_next
    tl.store(grad_sdf + at, by_next * b, mask=valid)
    by_sharpness = by_next * f + by_drop * per_sharpness
    tl.store(grad_sharpness + tl.program_id(0), tl.sum(tl.sum(by_sharpness, 1), 0))
    slope = tl.where(cosine < 1.0, 0.5 * (1.0 - annealed), 0.0) + tl.where(cosine < 0.0, annealed, 0.0)
    by_cosine = -slope * length * b * by_drop
    gx, gy, gz = by_cosine * u, by_cosine * v, by_cosine * w
    if by_unit is not None:
        p, q, t = _vectors(by_unit, at, valid)
        scale, size = _inverse_norm(x, y, z)
        along = tl.where(size < _MIN_NORM, 0.0, (p * x + q * y + t * z) * scale * scale)
        gx, gy, gz = gx + (p - along * x) * scale, gy + (q - along * y) * scale, gz + (t - along * z) * scale
    _store_vectors(grad_normal, at, valid, gx, gy, gz)
    if grad_directions is not None:
        dx, dy, dz = tl.sum(by_cosine * x, 1), tl.sum(by_cosine * y, 1), tl.sum(by_cosine * z, 1)
        _store_vectors(grad_directions, ray, exists, dx, dy, dz)


@triton.jit(do_not_specialize=["count"])
def _density_opacity(density, crop, interval, by_opacity, result, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Opacities; or with an incoming gradient, that times their derivative by the density."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < count
    d, length = tl.load(density + at, mask=valid, other=0.0), tl.load(interval + at, mask=valid, other=0.0)
    free = (1.0 - tl.load(crop + at, mask=valid, other=0.0)) * length
    left = tl.exp(-d * free)
    if by_opacity is None:
        tl.store(result + at, 1.0 - left, mask=valid)
    else:
        tl.store(result + at, tl.load(by_opacity + at, mask=valid, other=0.0) * free * left, mask=valid)


# ------------------------------------------------------------------ weights along rays


@triton.jit
def _edges_of(edges, ray, exists, at, valid, object_distance):  # type: ignore[no-untyped-def]
    """Of sections: middle, and middle and length in normalised distance t / (t + to_object)."""
    place = at + ray[:, None]  # a ray has one edge more than it has samples
    near, far = tl.load(edges + place, mask=valid, other=0.0), tl.load(edges + place + 1, mask=valid, other=0.0)
    first, second = near / (near + object_distance), far / (far + object_distance)
    return 0.5 * (near + far), 0.5 * (first + second), second - first


@triton.jit
def _growth_scale(middle, object_distance, crop):  # type: ignore[no-untyped-def]
    """See `background_growth_scale`."""
    closeness = middle / object_distance
    return tl.minimum(closeness * closeness, 1.0) * (1.0 - crop)


@triton.jit(do_not_specialize=["rays"])
def _ray_weights(  # type: ignore[no-untyped-def]
    opacity_f,
    opacity_b,
    gate,
    edges,
    to_object,
    crop,
    weights_f,
    weights_b,
    background_only,
    growth_scale,
    alpha,
    accumulation,
    depth,
    distortion,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weights (eq. 3, 5, 7), growth scale, and the sums along rays."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    object_distance = tl.load(to_object + ray, mask=exists, other=1.0)[:, None]
    middle, m, length = _edges_of(edges, ray, exists, at, valid, object_distance)
    cropped = tl.load(crop + ray, mask=exists, other=0.0)[:, None]
    tl.store(growth_scale + at, _growth_scale(middle, object_distance, cropped), mask=valid)

    split = tl.load(gate + at, mask=valid, other=0.0)
    opaque_b = tl.load(opacity_b + at, mask=valid, other=0.0)
    f, b = split * tl.load(opacity_f + at, mask=valid, other=0.0), (1.0 - split) * opaque_b
    through = (1.0 - f) * (1.0 - b)
    light = _before(through)
    w_f, w_b = light * f, light * (1.0 - f) * b
    tl.store(weights_f + at, w_f, mask=valid)
    tl.store(weights_b + at, w_b, mask=valid)
    last = (tl.arange(0, PADDED) == SAMPLES - 1)[None, :]
    left = tl.where(last, light * through, 0.0)  # behind the last sample, at which it counts
    tl.store(alpha + ray, tl.sum(w_f, 1), mask=exists)
    tl.store(accumulation + ray, tl.sum(w_f + w_b, 1), mask=exists)
    tl.store(depth + ray, tl.sum((w_f + w_b + left) * middle, 1), mask=exists)

    a = _before(1.0 - opaque_b) * opaque_b
    tl.store(background_only + at, a, mask=valid)
    before, moment = tl.cumsum(a, 1) - a, tl.cumsum(a * m, 1) - a * m
    between = 2.0 * a * (m * before - moment) + a * a * length / 3.0
    tl.store(distortion + ray, tl.sum(between, 1), mask=exists)


@triton.jit(do_not_specialize=["rays"])
def _ray_weights_backward(  # type: ignore[no-untyped-def]
    opacity_f,
    opacity_b,
    gate,
    edges,
    to_object,
    crop,
    by_foreground,
    by_background,
    by_background_only,
    by_alpha,
    by_accumulation,
    by_depth,
    by_distortion,
    grad_f,
    grad_b,
    grad_gate,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `_ray_weights` for both opacities and the gate."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    object_distance = tl.load(to_object + ray, mask=exists, other=1.0)
    cropped = tl.load(crop + ray, mask=exists, other=0.0)[:, None]
    to_alpha = _gradient(by_alpha, ray, exists, object_distance)[:, None]
    to_accumulation = _gradient(by_accumulation, ray, exists, object_distance)[:, None]
    to_depth = _gradient(by_depth, ray, exists, object_distance)[:, None]
    to_distortion = _gradient(by_distortion, ray, exists, object_distance)[:, None]
    object_distance = object_distance[:, None]
    middle, m, length = _edges_of(edges, ray, exists, at, valid, object_distance)

    split = tl.load(gate + at, mask=valid, other=0.0)
    opaque_f = tl.load(opacity_f + at, mask=valid, other=0.0)
    opaque_b = tl.load(opacity_b + at, mask=valid, other=0.0)
    f, b = split * opaque_f, (1.0 - split) * opaque_b
    through = (1.0 - f) * (1.0 - b)
    light = _before(through)
    g_both = to_accumulation + to_depth * middle
    g_f = _gradient(by_foreground, at, valid, f) + to_alpha + g_both
    g_b = _gradient(by_background, at, valid, f) + g_both
    # gradient of the loss by the light that passes a sample
    last_middle = tl.sum(tl.where((tl.arange(0, PADDED) == SAMPLES - 1)[None, :], middle, 0.0), 1)[:, None]
    by_light = _behind(g_f * f + (1.0 - f) * g_b * b, through, to_depth * last_middle)
    d_f = light * (g_f - g_b * b - by_light * (1.0 - b))
    d_b = light * (1.0 - f) * (g_b - by_light)

    # the same for the background alone, with the distortion of its weights
    through_b = 1.0 - opaque_b
    light_b = _before(through_b)
    a = light_b * opaque_b
    before, moment = tl.cumsum(a, 1) - a, tl.cumsum(a * m, 1) - a * m
    behind = tl.cumsum(a, 1, reverse=True) - a
    moment_behind = tl.cumsum(a * m, 1, reverse=True) - a * m
    distance = m * before - moment + moment_behind - m * behind
    g_a = _gradient(by_background_only, at, valid, a) + to_distortion * 2.0 * (distance + a * length / 3.0)
    by_light_b = _behind(g_a * opaque_b, through_b, 0.0)
    g = (1.0 - split) * d_b + light_b * (g_a - by_light_b)

    tl.store(grad_f + at, split * d_f, mask=valid)
    tl.store(grad_gate + at, opaque_f * d_f - opaque_b * d_b, mask=valid)
    scale = _growth_scale(middle, object_distance, cropped)
    tl.store(grad_b + at, tl.where(g > 0.0, g, g * scale), mask=valid)  # as `scale_growth`


# ------------------------------------------------------------------ colours along rays


@triton.jit(do_not_specialize=["rays"])
def _ray_colours(  # type: ignore[no-untyped-def]
    weights_f,
    weights_b,
    background_only,
    rgb_f,
    rgb_b,
    unit,
    foreground,
    background,
    both,
    normal,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Colours (eq. 7) of both layers, their sum, the clean plate and normals."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    w_f, w_b = tl.load(weights_f + at, mask=valid, other=0.0), tl.load(weights_b + at, mask=valid, other=0.0)
    a = tl.load(background_only + at, mask=valid, other=0.0)
    opacity = tl.sum(a, 1)
    fill = 1.0 / tl.where(opacity < _MIN_OPACITY, _MIN_OPACITY, opacity)
    for c in tl.static_range(3):
        value_b = tl.load(rgb_b + at * 3 + c, mask=valid, other=0.0)
        value_unit = tl.load(unit + at * 3 + c, mask=valid, other=0.0)
        front = tl.sum(w_f * tl.load(rgb_f + at * 3 + c, mask=valid, other=0.0), 1)
        tl.store(foreground + ray * 3 + c, front, mask=exists)
        tl.store(background + ray * 3 + c, tl.sum(a * value_b, 1) * fill, mask=exists)
        tl.store(both + ray * 3 + c, front + tl.sum(w_b * value_b, 1), mask=exists)
        tl.store(normal + ray * 3 + c, tl.sum(w_f * value_unit, 1), mask=exists)


@triton.jit(do_not_specialize=["rays"])
def _ray_colours_backward(  # type: ignore[no-untyped-def]
    weights_f,
    weights_b,
    background_only,
    growth_scale,
    rgb_f,
    rgb_b,
    unit,
    by_foreground,
    by_background,
    by_both,
    by_normal,
    grad_weights_f,
    grad_weights_b,
    grad_background_only,
    grad_rgb_f,
    grad_rgb_b,
    grad_unit,
    rays,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `_ray_colours` for weights, colours and normals."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    w_f, w_b = tl.load(weights_f + at, mask=valid, other=0.0), tl.load(weights_b + at, mask=valid, other=0.0)
    a = tl.load(background_only + at, mask=valid, other=0.0)
    growth = tl.load(growth_scale + at, mask=valid, other=0.0)
    opacity = tl.sum(a, 1)
    fill = 1.0 / tl.where(opacity < _MIN_OPACITY, _MIN_OPACITY, opacity)
    to_f = tl.zeros((BLOCK, PADDED), tl.float32)
    to_b = tl.zeros((BLOCK, PADDED), tl.float32)
    to_a = tl.zeros((BLOCK, PADDED), tl.float32)
    to_opacity = tl.zeros((BLOCK,), tl.float32)
    for c in tl.static_range(3):
        value_f = tl.load(rgb_f + at * 3 + c, mask=valid, other=0.0)
        value_b = tl.load(rgb_b + at * 3 + c, mask=valid, other=0.0)
        value_unit = tl.load(unit + at * 3 + c, mask=valid, other=0.0)
        g_both = _gradient(by_both, ray * 3 + c, exists, opacity)
        g_f = (g_both + _gradient(by_foreground, ray * 3 + c, exists, opacity))[:, None]
        g_plate = _gradient(by_background, ray * 3 + c, exists, opacity) * fill  # by the sum before the division
        g_normal = _gradient(by_normal, ray * 3 + c, exists, opacity)[:, None]
        to_opacity -= g_plate * tl.sum(a * value_b, 1) * fill
        g_both, g_plate = g_both[:, None], g_plate[:, None]
        to_f += g_f * value_f + g_normal * value_unit
        to_b += g_both * value_b
        to_a += g_plate * value_b
        tl.store(grad_rgb_f + at * 3 + c, w_f * g_f, mask=valid)
        tl.store(grad_rgb_b + at * 3 + c, (w_b * g_both + a * g_plate) * growth, mask=valid)
        tl.store(grad_unit + at * 3 + c, w_f * g_normal, mask=valid)
    to_a += tl.where(opacity < _MIN_OPACITY, 0.0, to_opacity)[:, None]
    tl.store(grad_weights_f + at, to_f, mask=valid)
    tl.store(grad_weights_b + at, to_b, mask=valid)
    tl.store(grad_background_only + at, to_a, mask=valid)


@triton.jit(do_not_specialize=["rays", "channels"])
def _accumulate(  # type: ignore[no-untyped-def]
    weights,
    values,
    result,
    rays,
    channels,
    SAMPLES: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weighted sums of one channel, which is the slower axis of the launch grid."""
    ray, exists, at, valid = _tile(rays, SAMPLES, PADDED, BLOCK)
    channel = tl.program_id(1)
    w = tl.load(weights + at, mask=valid, other=0.0)
    value = tl.load(values + at * channels + channel, mask=valid, other=0.0)
    tl.store(result + ray * channels + channel, tl.sum(w * value, 1), mask=exists)


# ------------------------------------------------------------------ launches


def _sizes(samples: int) -> dict[str, Any]:
    """Constants of the kernels for rays of S samples."""
    padded = max(2, triton.next_power_of_2(samples))
    return {"SAMPLES": samples, "PADDED": padded, "BLOCK": max(1, _TILE // padded), **OPTIONS}


def _launch(kernel: Any, interval: Tensor, *arguments: Any, channels: int = 1) -> None:
    """Launch a kernel on all tiles of (R, S) samples; not at all if there are none."""
    rays, samples = interval.shape
    sizes = _sizes(samples)
    if rays and channels:
        with on_device_of(interval):
            kernel[(triton.cdiv(rays, sizes["BLOCK"]), channels)](*arguments, **sizes)


def section_opacity(
    sdf: Tensor, normal: Tensor, directions: Tensor, interval: Tensor, sharpness: Tensor, anneal: Tensor
) -> tuple[Tensor, Tensor]:
    """Opacity (R * S,) and unit normals (R * S, 3); directions are (R, 3), `interval` is (R, S)."""
    opacity, unit = torch.empty_like(sdf), torch.empty_like(normal)
    inputs = (sdf, normal, directions, interval, sharpness, anneal)
    _launch(_section_opacity, interval, *inputs, opacity, unit, len(interval))
    return opacity, unit


def section_opacity_backward(
    sdf: Tensor,
    normal: Tensor,
    directions: Tensor,
    interval: Tensor,
    sharpness: Tensor,
    anneal: Tensor,
    by_opacity: Tensor | None,
    by_unit: Tensor | None,
    to_directions: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to SDF, normals, directions (0 of them if they need none) and sharpness."""
    grad_sdf, grad_normal = torch.empty_like(sdf), torch.empty_like(normal)
    grad_directions = torch.empty_like(directions if to_directions else directions[:0])
    rays, samples = interval.shape
    sums = sdf.new_empty(triton.cdiv(rays, _sizes(samples)["BLOCK"]))
    inputs = (sdf, normal, directions, interval, sharpness, anneal, by_opacity, by_unit)
    outputs = (grad_sdf, grad_normal, grad_directions if to_directions else None, sums)
    _launch(_section_opacity_backward, interval, *inputs, *outputs, rays)
    return grad_sdf, grad_normal, grad_directions, sums.sum()


def density_opacity(density: Tensor, crop: Tensor, interval: Tensor, by_opacity: Tensor | None = None) -> Tensor:
    """Opacity (N,), or with its gradient that of the density; all are (N,)."""
    result, count = torch.empty_like(density), density.shape[0]
    if count:
        with on_device_of(density):
            _density_opacity[(triton.cdiv(count, _TILE),)](
                density, crop, interval, by_opacity, result, count, BLOCK=_TILE, **OPTIONS
            )
    return result


def ray_weights(
    opacity_f: Tensor, opacity_b: Tensor, gate: Tensor, edges: Tensor, to_object: Tensor, crop: Tensor
) -> tuple[Tensor, ...]:
    """What `RayWeights` holds, from (R, S) opacities of both layers and gate."""
    weights = tuple(torch.empty_like(opacity_f) for _ in range(4))
    sums = tuple(torch.empty_like(to_object) for _ in range(4))
    inputs = (opacity_f, opacity_b, gate, edges, to_object, crop)
    _launch(_ray_weights, opacity_f, *inputs, *weights, *sums, len(opacity_f))
    return *weights, *sums


def ray_weights_backward(
    opacity_f: Tensor,
    opacity_b: Tensor,
    gate: Tensor,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
    *by_outputs: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to both opacities and the gate; incoming ones in the order of `RayWeights`, without `growth_scale`."""
    grads = (torch.empty_like(opacity_f), torch.empty_like(opacity_f), torch.empty_like(opacity_f))
    inputs = (opacity_f, opacity_b, gate, edges, to_object, crop)
    _launch(_ray_weights_backward, opacity_f, *inputs, *by_outputs, *grads, len(opacity_f))
    return grads


def ray_colours(
    weights_f: Tensor, weights_b: Tensor, background_only: Tensor, rgb_f: Tensor, rgb_b: Tensor, unit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `RayColours` holds, from weights (R, S) and colours and normals (R, S, 3)."""
    shape = (len(weights_f), 3)
    results = (rgb_f.new_empty(shape), rgb_f.new_empty(shape), rgb_f.new_empty(shape), rgb_f.new_empty(shape))
    inputs = (weights_f, weights_b, background_only, rgb_f, rgb_b, unit)
    _launch(_ray_colours, weights_f, *inputs, *results, len(weights_f))
    return results


def ray_colours_backward(
    weights_f: Tensor,
    weights_b: Tensor,
    background_only: Tensor,
    growth_scale: Tensor,
    rgb_f: Tensor,
    rgb_b: Tensor,
    unit: Tensor,
    *by_outputs: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients to the three weights, both colours and the normals."""
    inputs = (weights_f, weights_b, background_only, growth_scale, rgb_f, rgb_b, unit)
    grads = tuple(torch.empty_like(x) for x in (weights_f, weights_b, background_only, rgb_f, rgb_b, unit))
    _launch(_ray_colours_backward, weights_f, *inputs, *by_outputs, *grads, len(weights_f))
    return grads


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums (R, C) of values (R, S, C)."""
    channels = values.shape[2]
    result = values.new_empty(len(weights), channels)
    _launch(_accumulate, weights, weights, values, result, len(weights), channels, channels=channels)
    return result
