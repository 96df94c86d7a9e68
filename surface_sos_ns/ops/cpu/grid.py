"""The hash grid for CPUs: one gather for features and Jacobian, one scatter for the backward of both.

Levels are the outer loop, so that one level's table stays in a core's cache while all points read it. Points are
processed in blocks, in vectorised steps: entries, values, interpolation. Results have one row per feature, so that
vectors are stored contiguously: rows of all points (1, C, P), or blocked (P / BLOCK, C, BLOCK), as the networks read
them. In the scatter each level belongs to one thread: there are no atomics, and sums do not depend on the number of
threads.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from surface_sos_ns.ops.cpu import simd
from surface_sos_ns.ops.cpu.threads import parallel
from surface_sos_ns.ops.layout import GridLayout

BLOCK = 128
"""Points per block."""
_CHUNK = 2048  # points of one level per piece of work

# How the gradient of the Jacobian is given: none, in full (N, C, 3, B), or as the product of factors (N, C, 1, B) and
# the directions `along` (3, P).
NONE, FULL, PRODUCT = 0, 1, 2


@njit(inline="always")
def _locate(x, first, count, n, entries, hashed, offset, entry, fraction):  # type: ignore[no-untyped-def]
    """Cells of a block of points in one level: entries of the 8 corners, and fractions within the cell.

    `entry` has 11 rows of BLOCK: the table's entries at the corners x + 2 y + 4 z, then the cell's indices along the 3
    axes. `fraction` has 3 rows. Both are flat, so that LLVM sees that their rows do not overlap, and loops run over
    slices that start at 0: a check whether an index is negative would keep LLVM from vectorising.
    """
    scale, last, one = np.float32(n), np.int32(n - 1), np.int32(1)
    for axis in range(3):
        row = x[axis, first : first + count]
        for i in range(count):
            at = min(max(row[i], np.float32(0)), np.float32(1)) * scale
            cell = min(max(simd.truncate(at), np.int32(0)), last)
            fraction[axis * BLOCK + i] = at - np.float32(cell)
            entry[(8 + axis) * BLOCK + i] = cell
    if hashed:
        mask = np.int32(entries - 1)  # the published primes, as int32
        py, pz = np.int32(2654435761 - 2**32), np.int32(805459861)
        for i in range(count):
            x0, y0, z0 = entry[8 * BLOCK + i], entry[9 * BLOCK + i] * py, entry[10 * BLOCK + i] * pz
            x1, y1, z1 = np.int32(x0 + one), np.int32(y0 + py), np.int32(z0 + pz)
            x0, y0, z0 = np.int32(x0), np.int32(y0), np.int32(z0)
            entry[0 * BLOCK + i] = ((x0 ^ y0 ^ z0) & mask) + offset
            entry[1 * BLOCK + i] = ((x1 ^ y0 ^ z0) & mask) + offset
            entry[2 * BLOCK + i] = ((x0 ^ y1 ^ z0) & mask) + offset
            entry[3 * BLOCK + i] = ((x1 ^ y1 ^ z0) & mask) + offset
            entry[4 * BLOCK + i] = ((x0 ^ y0 ^ z1) & mask) + offset
            entry[5 * BLOCK + i] = ((x1 ^ y0 ^ z1) & mask) + offset
            entry[6 * BLOCK + i] = ((x0 ^ y1 ^ z1) & mask) + offset
            entry[7 * BLOCK + i] = ((x1 ^ y1 ^ z1) & mask) + offset
    else:
        row = np.int32(n + 1)
        plane = np.int32(row * row)
        for i in range(count):
            e = np.int32(offset + entry[8 * BLOCK + i] + row * entry[9 * BLOCK + i] + plane * entry[10 * BLOCK + i])
            entry[0 * BLOCK + i] = e
            entry[1 * BLOCK + i] = e + one
            entry[2 * BLOCK + i] = e + row
            entry[3 * BLOCK + i] = e + row + one
            entry[4 * BLOCK + i] = e + plane
            entry[5 * BLOCK + i] = e + plane + one
            entry[6 * BLOCK + i] = e + plane + row
            entry[7 * BLOCK + i] = e + plane + row + one


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _gather(  # type: ignore[no-untyped-def]
    first_item, last_item, x, table, resolutions, entries, hashed, offsets, features, jacobians, with_jacobian,
):  # fmt: skip
    points, width = x.shape[1], table.shape[1]
    chunks = (points + _CHUNK - 1) // _CHUNK
    entry = np.empty(11 * BLOCK, np.int32)
    fraction = np.empty(3 * BLOCK, np.float32)
    values = np.empty(8 * BLOCK * 2, np.float32)
    pairs = values.view(np.float64)  # loads two features of an entry at once
    table_pairs = table.reshape(-1)[: table.size // 2 * 2].view(np.float64)
    for item in range(first_item, last_item):
        level, chunk = item // chunks, item % chunks
        n = resolutions[level]
        scale = np.float32(n)
        for first in range(chunk * _CHUNK, min(points, (chunk + 1) * _CHUNK), BLOCK):
            count = min(BLOCK, points - first)
            block, at = (first // BLOCK, 0) if features.shape[2] == BLOCK else (0, first)
            _locate(x, first, count, n, entries[level], hashed[level], np.int32(offsets[level]), entry, fraction)
            for k in range(width):
                if width % 2 == 1:
                    for i in range(count):
                        for corner in range(8):
                            values[(corner * BLOCK + i) * 2] = table[entry[corner * BLOCK + i], k]
                elif k % 2 == 0:
                    stride, part = np.uint64(width // 2), np.uint64(k // 2)
                    for i in range(count):
                        for corner in range(8):
                            j = np.uint64(entry[corner * BLOCK + i]) * stride + part
                            pairs[corner * BLOCK + i] = table_pairs[j]
                c = level * width + k
                odd = k % 2 if width % 2 == 0 else 0
                to = features[block, c, at : at + count]
                if with_jacobian:
                    along_x = jacobians[block, c, 0, at : at + count]
                    along_y = jacobians[block, c, 1, at : at + count]
                    along_z = jacobians[block, c, 2, at : at + count]
                else:
                    along_x = along_y = along_z = to
                for i in range(count):
                    j = 2 * i + odd
                    fx, fy, fz = fraction[i], fraction[BLOCK + i], fraction[2 * BLOCK + i]
                    v0, v1, v2, v3 = values[j], values[2 * BLOCK + j], values[4 * BLOCK + j], values[6 * BLOCK + j]
                    v4, v5, v6, v7 = (
                        values[8 * BLOCK + j], values[10 * BLOCK + j], values[12 * BLOCK + j], values[14 * BLOCK + j]
                    )  # fmt: skip
                    d00, d10, d01, d11 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
                    a00, a10, a01, a11 = v0 + d00 * fx, v2 + d10 * fx, v4 + d01 * fx, v6 + d11 * fx
                    s0, s1 = a10 - a00, a11 - a01
                    b0, b1 = a00 + s0 * fy, a01 + s1 * fy
                    to[i] = b0 + (b1 - b0) * fz
                    if with_jacobian:
                        e0, e1 = d00 + (d10 - d00) * fy, d01 + (d11 - d01) * fy
                        along_x[i] = (e0 + (e1 - e0) * fz) * scale
                        along_y[i] = (s0 + (s1 - s0) * fz) * scale
                        along_z[i] = (b1 - b0) * scale


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _scatter(  # type: ignore[no-untyped-def]
    first_level, last_level, x, resolutions, entries, hashed, offsets, by_feature, by_jacobian, along, kind, table
):
    points, width = x.shape[1], table.shape[1]
    entry = np.empty(11 * BLOCK, np.int32)
    fraction = np.empty(3 * BLOCK, np.float32)
    slope = np.zeros(3 * BLOCK, np.float32)
    share = np.empty(BLOCK * 8 * 2, np.float32)  # (point, corner, feature of a pair)
    flat = table.reshape(-1)
    for level in range(first_level, last_level):
        n = resolutions[level]
        scale = np.float32(n)
        for first in range(0, points, BLOCK):
            count = min(BLOCK, points - first)
            block, at = (first // BLOCK, 0) if by_feature.shape[2] == BLOCK else (0, first)
            _locate(x, first, count, n, entries[level], hashed[level], np.int32(offsets[level]), entry, fraction)
            for k in range(width):
                c = level * width + k
                for axis in range(3):
                    if kind == FULL:
                        row = by_jacobian[block, c, axis, at : at + count]
                        for i in range(count):
                            slope[axis * BLOCK + i] = row[i] * scale
                    elif kind == PRODUCT:
                        row, factor = along[axis, first : first + count], by_jacobian[block, c, 0, at : at + count]
                        for i in range(count):
                            slope[axis * BLOCK + i] = row[i] * factor[i] * scale
                given = by_feature[block, c, at : at + count]
                odd = k % 2 if width % 2 == 0 else 0
                for i in range(count):
                    fx, fy, fz = fraction[i], fraction[BLOCK + i], fraction[2 * BLOCK + i]
                    gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                    g = given[i]
                    jx, jy, jz = slope[i], slope[BLOCK + i], slope[2 * BLOCK + i]
                    # gradient by corner: (value and slope along x) times (those along y and z)
                    v0, v1 = g * gx - jx, g * fx + jx
                    y00, y01, y10, y11 = v0 * gy - jy * gx, v0 * fy + jy * gx, v1 * gy - jy * fx, v1 * fy + jy * fx
                    z00, z01, z10, z11 = jz * gx * gy, jz * gx * fy, jz * fx * gy, jz * fx * fy
                    j = 16 * i + odd
                    share[j], share[j + 8] = y00 * gz - z00, y00 * fz + z00
                    share[j + 2], share[j + 10] = y10 * gz - z10, y10 * fz + z10
                    share[j + 4], share[j + 12] = y01 * gz - z01, y01 * fz + z01
                    share[j + 6], share[j + 14] = y11 * gz - z11, y11 * fz + z11
                if width % 2 == 1:
                    for i in range(count):
                        for corner in range(8):
                            table[entry[corner * BLOCK + i], k] += share[16 * i + 2 * corner]
                elif odd:
                    for i in range(count):
                        for corner in range(8):
                            j = np.int64(entry[corner * BLOCK + i]) * (width // 2) + k // 2
                            simd.add_pair(flat, j, share, np.int64(8 * i + corner))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _scatter_to_points(  # type: ignore[no-untyped-def]
    first_chunk, last_chunk, x, table, resolutions, entries, hashed, offsets, by_feature, by_jacobian, along, kind, out
):
    """Gradient of the points: that of the features times the Jacobian, that of the Jacobian times mixed derivatives."""
    points, width = x.shape[1], table.shape[1]
    entry = np.empty(11 * BLOCK, np.int32)
    fraction = np.empty(3 * BLOCK, np.float32)
    for first in range(first_chunk * _CHUNK, min(points, last_chunk * _CHUNK), BLOCK):
        count = min(BLOCK, points - first)
        for level in range(resolutions.shape[0]):
            n = resolutions[level]
            s = np.float32(n)
            block, at = (first // BLOCK, 0) if by_feature.shape[2] == BLOCK else (0, first)
            _locate(x, first, count, n, entries[level], hashed[level], np.int32(offsets[level]), entry, fraction)
            for k in range(width):
                c = level * width + k
                for i in range(count):
                    fx, fy, fz = fraction[i], fraction[BLOCK + i], fraction[2 * BLOCK + i]
                    gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                    v0, v1 = table[entry[i], k], table[entry[BLOCK + i], k]
                    v2, v3 = table[entry[2 * BLOCK + i], k], table[entry[3 * BLOCK + i], k]
                    v4, v5 = table[entry[4 * BLOCK + i], k], table[entry[5 * BLOCK + i], k]
                    v6, v7 = table[entry[6 * BLOCK + i], k], table[entry[7 * BLOCK + i], k]
                    dx00, dx10, dx01, dx11 = v1 - v0, v3 - v2, v5 - v4, v7 - v6  # by (y, z)
                    dy00, dy10, dy01, dy11 = v2 - v0, v3 - v1, v6 - v4, v7 - v5  # by (x, z)
                    dz00, dz10, dz01, dz11 = v4 - v0, v5 - v1, v6 - v2, v7 - v3  # by (x, y)
                    g = by_feature[block, c, at + i]
                    px = g * ((dx00 * gy + dx10 * fy) * gz + (dx01 * gy + dx11 * fy) * fz)
                    py = g * ((dy00 * gx + dy10 * fx) * gz + (dy01 * gx + dy11 * fx) * fz)
                    pz = g * ((dz00 * gx + dz10 * fx) * gy + (dz01 * gx + dz11 * fx) * fy)
                    if kind != NONE:
                        if kind == FULL:
                            jx, jy, jz = (
                                by_jacobian[block, c, 0, at + i],
                                by_jacobian[block, c, 1, at + i],
                                by_jacobian[block, c, 2, at + i],
                            )
                        else:
                            u = by_jacobian[block, c, 0, at + i]
                            jx, jy, jz = along[0, first + i] * u, along[1, first + i] * u, along[2, first + i] * u
                        xy = ((dx10 - dx00) * gz + (dx11 - dx01) * fz) * s
                        xz = ((dx01 - dx00) * gy + (dx11 - dx10) * fy) * s
                        yz = ((dy01 - dy00) * gx + (dy11 - dy10) * fx) * s
                        px += jy * xy + jz * xz
                        py += jx * xy + jz * yz
                        pz += jx * xz + jy * yz
                    out[0, first + i] += px * s
                    out[1, first + i] += py * s
                    out[2, first + i] += pz * s
        for axis in range(3):
            for i in range(first, first + count):
                if x[axis, i] < np.float32(0) or x[axis, i] > np.float32(1):
                    out[axis, i] = np.float32(0)  # a clamped point has no gradient


@functools.cache
def _arrays(layout: GridLayout) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    return layout.resolutions.astype(np.int32), layout.entries, layout.hashed, layout.offsets


_NOTHING = np.zeros((0, 1, 1, 0), np.float32)
_NOWHERE = np.zeros((3, 0), np.float32)


def as_rows(points: Tensor) -> NDArray[np.float32]:
    """Points (P, 3) as an array of rows (3, P).

    Raises:
        ValueError: a point is NaN.
    """
    rows = points.detach().t().contiguous()
    if rows.sum().isnan() and rows.isnan().any():
        raise ValueError("points of the hash grid must not be NaN: compiled code would read outside the table")
    return rows.numpy()


def gather(
    x: NDArray[np.float32], table: Tensor, layout: GridLayout, jacobian: bool, blocked: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (N, C, B) and, with `jacobian`, their Jacobian (N, C, 3, B) at points (3, P) of the unit cube.

    Blocked, B is BLOCK and N * B >= P, with zeros after the last point; otherwise N is 1 and B is P.
    """
    points = x.shape[1]
    blocks = -(-points // BLOCK)
    n, b = (blocks, BLOCK) if blocked else (1, points)
    features = np.empty((n, layout.width, b), np.float32)
    jacobians = np.empty((n if jacobian else 0, layout.width, 3, b), np.float32)
    if blocked and points % BLOCK:
        features[-1], jacobians[-1:] = 0, 0
    values = table.detach().contiguous().numpy()
    items = layout.levels * (-(-points // _CHUNK))
    parallel(_gather, items, x, values, *_arrays(layout), features, jacobians, jacobian)
    return features, jacobians


def scatter(
    x: NDArray[np.float32],
    table: Tensor,
    layout: GridLayout,
    by_feature: NDArray[np.float32],
    by_jacobian: NDArray[np.float32] = _NOTHING,
    along: NDArray[np.float32] = _NOWHERE,
    kind: int = NONE,
) -> Tensor:
    """Gradient of the table of `gather`, by those of features (N, C, B) and Jacobian (see NONE, FULL, PRODUCT)."""
    gradient = torch.zeros_like(table)
    parallel(_scatter, layout.levels, x, *_arrays(layout), by_feature, by_jacobian, along, kind, gradient.numpy())
    return gradient


def scatter_to_points(
    x: NDArray[np.float32],
    table: Tensor,
    layout: GridLayout,
    by_feature: NDArray[np.float32],
    by_jacobian: NDArray[np.float32] = _NOTHING,
    along: NDArray[np.float32] = _NOWHERE,
    kind: int = NONE,
) -> Tensor:
    """Gradient (P, 3) of the points; arguments as for `scatter`."""
    result = np.zeros_like(x)
    chunks = (x.shape[1] + _CHUNK - 1) // _CHUNK
    values = table.detach().contiguous().numpy()
    parallel(_scatter_to_points, chunks, x, values, *_arrays(layout), by_feature, by_jacobian, along, kind, result)
    return torch.from_numpy(result).t()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: GridLayout, jacobian: bool) -> Any:
        x = as_rows(points)
        features, jacobians = gather(x, table, layout, jacobian, blocked=False)
        ctx.save_for_backward(table)
        ctx.x, ctx.layout, ctx.jacobian = x, layout, jacobian
        slopes = torch.from_numpy(jacobians).permute(0, 3, 1, 2).flatten(0, 1)
        return torch.from_numpy(features[0]).t(), slopes

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (table,) = ctx.saved_tensors
        by_feature = grads[0].t().contiguous().numpy()[None]
        by_jacobian = grads[1].permute(1, 2, 0).contiguous().numpy()[None]
        given = (ctx.x, table, ctx.layout, by_feature, by_jacobian, _NOWHERE, FULL if ctx.jacobian else NONE)
        to_points = scatter_to_points(*given) if ctx.needs_input_grad[0] else None
        return to_points, scatter(*given) if ctx.needs_input_grad[1] else None, None, None


def encode(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
    """See `ops.hash_grid.encode`.

    Raises:
        ValueError: a point is NaN.
    """
    features, jacobians = _Encode.apply(x, table, layout, jacobian)
    return features, (jacobians if jacobian else None)
