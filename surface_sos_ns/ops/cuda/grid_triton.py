"""The hash grid as Triton kernels for CUDA: one gather for features and Jacobian, one scatter for the backward of both.

A program handles a block of points on one level. The level is the slower axis of the launch grid, so that concurrent
programs read one level, whose table stays in the L2 cache. Nothing synchronises with the host, and launches depend on
shapes only, so steps can be captured in CUDA graphs (after one step outside the graph, which compiles the kernels and
uploads the level sizes). The scatter adds atomically: the order of its sums, and so the last bits of gradients, varies.

Features are multilinear in the position within a cell, so all derivatives are differences of the cell's eight values.
These are named v000 .. v111 by corner, as v<x><y><z>. f is the fraction of the way to the upper face, g = 1 - f.

`grid_operator.encode` calls them, and tells torch their shapes and gradients.

Kernels also run on the CPU through Triton's interpreter (environment variable TRITON_INTERPRET=1); the tests do that.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from surface_sos_ns.ops import hash_grid
from surface_sos_ns.ops.cuda.grid_operator import encode, table_entries
from surface_sos_ns.ops.cuda.triton_support import OPTIONS, THREADS, compare, on_device_of
from surface_sos_ns.ops.layout import PRIMES, GridLayout

_RUN = 4  # consecutive points per thread of the scatter; they tend to share coarse cells

_PRIME_Y = tl.constexpr(PRIMES[1])
_PRIME_Z = tl.constexpr(PRIMES[2])
_PARAMETERS = tl.constexpr(6)  # numbers per level, see `_Plan`


# ------------------------------------------------------------------ on the device


@triton.jit
def _level_parameters(levels, level):  # type: ignore[no-untyped-def]
    row = levels + level * _PARAMETERS
    return tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)


@triton.jit
def _locate(points, rows, valid, axis: tl.constexpr, cells):  # type: ignore[no-untyped-def]
    """Cell, and fraction of the way through it, along one axis. NaN points get cell 0 and a NaN fraction."""
    p = tl.load(points + rows * 3 + axis, mask=valid, other=0.5)
    kept = tl.where(p > 0.0, p, 0.0)  # NaN becomes 0: converting it to an integer would be undefined
    kept = tl.where(kept < 1.0, kept, 1.0)
    scaled = kept * cells.to(tl.float32)
    cell = tl.minimum(scaled.to(tl.int32), cells - 1)
    return cell, tl.where(p == p, scaled - cell.to(tl.float32), p)


@triton.jit
def _face(x, y, z, stride_x, stride_y, stride_z, mask):  # type: ignore[no-untyped-def]
    """Entries, within their level, of a cell's four corners at one z, named by x and y.

    Dense levels have mask 0, hashed ones strides 0. Computed in 64 bits, of which the lower half is kept: the uint32
    wrap-around of the published hash.
    """
    x, y, z = x.to(tl.int64), y.to(tl.int64), z.to(tl.int64)
    dense = x * stride_x + y * stride_y + z * stride_z
    hash_z = z * _PRIME_Z
    hash_0, hash_1 = (y * _PRIME_Y) ^ hash_z, ((y + 1) * _PRIME_Y) ^ hash_z
    e00 = dense + ((x ^ hash_0) & mask)
    e10 = dense + stride_x + (((x + 1) ^ hash_0) & mask)
    e01 = dense + stride_y + ((x ^ hash_1) & mask)
    e11 = dense + stride_x + stride_y + (((x + 1) ^ hash_1) & mask)
    return e00.to(tl.int32), e10.to(tl.int32), e01.to(tl.int32), e11.to(tl.int32)


@triton.jit
def _value(table, entry, F: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Features (BLOCK, COLUMNS) of entries, float32."""
    k = tl.arange(0, COLUMNS)[None, :]
    places = table + (entry * F)[:, None] + k
    value = tl.load(places) if F == COLUMNS else tl.load(places, mask=k < F, other=0.0)
    return value.to(tl.float32)


@triton.jit
def _values(table, x, y, z, sx, sy, sz, mask, F: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Features of a cell's four corners at one z, as of `_face`."""
    e00, e10, e01, e11 = _face(x, y, z, sx, sy, sz, mask)
    v00, v10 = _value(table, e00, F, COLUMNS), _value(table, e10, F, COLUMNS)
    v01, v11 = _value(table, e01, F, COLUMNS), _value(table, e11, F, COLUMNS)
    return v00, v10, v01, v11


@triton.jit(do_not_specialize=["count"])
def _gather(  # type: ignore[no-untyped-def]
    points,
    table,
    levels,
    features,
    jacobians,
    count,
    F: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    JACOBIAN: tl.constexpr,
):
    """Features (count, WIDTH) and Jacobian (count, WIDTH, 3) of one level for BLOCK points."""
    level = tl.program_id(1)
    # 64 bits for the block's start only; other indices are relative to it
    first = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    valid = rows < tl.minimum(count - first, BLOCK).to(tl.int32)
    k = tl.arange(0, COLUMNS)
    cells, offset, sx, sy, sz, mask = _level_parameters(levels, level)
    points += first * 3
    x, fx = _locate(points, rows, valid, 0, cells)
    y, fy = _locate(points, rows, valid, 1, cells)
    z, fz = _locate(points, rows, valid, 2, cells)
    table += offset.to(tl.int64) * F
    v000, v100, v010, v110 = _values(table, x, y, z, sx, sy, sz, mask, F, COLUMNS)
    v001, v101, v011, v111 = _values(table, x, y, z + 1, sx, sy, sz, mask, F, COLUMNS)
    fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
    gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
    a00, a10 = v000 * gx + v100 * fx, v010 * gx + v110 * fx
    a01, a11 = v001 * gx + v101 * fx, v011 * gx + v111 * fx
    b0, b1 = a00 * gy + a10 * fy, a01 * gy + a11 * fy
    column = first * WIDTH + level * F
    tl.store(
        features + column + (rows * WIDTH)[:, None] + k[None, :],
        b0 * gz + b1 * fz,
        mask=valid[:, None] & (k < F)[None, :],
    )
    if JACOBIAN:
        s = cells.to(tl.float32)
        d0 = (v100 - v000) * gy + (v110 - v010) * fy
        d1 = (v101 - v001) * gy + (v111 - v011) * fy
        slope_x = (d0 * gz + d1 * fz) * s
        slope_y = ((a10 - a00) * gz + (a11 - a01) * fz) * s
        slope_z = (b1 - b0) * s
        # interleaved, with a fourth axis as padding, so that stores are coalesced
        axis = tl.arange(0, 4)[None, None, :]
        slopes = tl.where(axis == 0, slope_x[:, :, None], tl.where(axis == 1, slope_y[:, :, None], slope_z[:, :, None]))
        slopes = tl.reshape(slopes, (BLOCK, COLUMNS * 4))
        place = tl.arange(0, COLUMNS * 4)
        feature, direction = place // 4, place % 4
        tl.store(
            jacobians + column * 3 + (rows * (WIDTH * 3))[:, None] + (feature * 3 + direction)[None, :],
            slopes,
            mask=valid[:, None] & ((direction < 3) & (feature < F))[None, :],
        )


@triton.jit
def _add(table, entry, value, live, F: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add atomically to entries, for live rows."""
    k = tl.arange(0, COLUMNS)[None, :]
    tl.atomic_add(table + (entry * F)[:, None] + k, value, mask=live[:, None] & (k < F), sem="relaxed")


@triton.jit
def _add_to_face(table, x, y, z, sx, sy, sz, mask, live, c00, c10, c01, c11, F: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add atomically to a cell's four corners at one z, named by x and y, for live rows."""
    e00, e10, e01, e11 = _face(x, y, z, sx, sy, sz, mask)
    _add(table, e00, c00, live, F, COLUMNS)
    _add(table, e10, c10, live, F, COLUMNS)
    _add(table, e01, c01, live, F, COLUMNS)
    _add(table, e11, c11, live, F, COLUMNS)


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    grad_features,
    grad_jacobians,
    rows,
    keep,
    k,
    feature_row,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    FEATURES: tl.constexpr,
    JACOBIAN: tl.constexpr,
):
    """Gradients of a level's features, and of the three columns of their Jacobian; zeros for those that have none."""
    g = tl.zeros((BLOCK, COLUMNS), tl.float32)
    jx = tl.zeros((BLOCK, COLUMNS), tl.float32)
    jy = tl.zeros((BLOCK, COLUMNS), tl.float32)
    jz = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if FEATURES:
        g = tl.load(grad_features + (rows * feature_row)[:, None] + k, mask=keep, other=0.0)
    if JACOBIAN:
        places = grad_jacobians + (rows * (WIDTH * 3))[:, None] + k * 3
        jx = tl.load(places, mask=keep, other=0.0)
        jy = tl.load(places + 1, mask=keep, other=0.0)
        jz = tl.load(places + 2, mask=keep, other=0.0)
    return g, jx, jy, jz


@triton.jit(do_not_specialize=["count"])
def _scatter(  # type: ignore[no-untyped-def]
    points,
    levels,
    grad_features,
    grad_jacobians,
    grad_table,
    count,
    feature_row,
    F: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    FEATURES: tl.constexpr,
    JACOBIAN: tl.constexpr,
):
    """Add one level's part of the table's gradient, for BLOCK runs of RUN consecutive points each.

    A row of the program follows its run and sums in registers as long as the cell stays the same. Samples on a ray
    share coarse cells, so this avoids most of the atomics that would contend for few entries.
    """
    level = tl.program_id(1)
    first = tl.program_id(0).to(tl.int64) * (BLOCK * RUN)
    left = tl.minimum(count - first, BLOCK * RUN).to(tl.int32)
    runs = tl.arange(0, BLOCK) * RUN
    k = tl.arange(0, COLUMNS)[None, :]
    cells, offset, sx, sy, sz, mask = _level_parameters(levels, level)
    s = cells.to(tl.float32)
    points += first * 3
    grad_features += first * feature_row + level * F
    grad_jacobians += (first * WIDTH + level * F) * 3
    grad_table += offset.to(tl.int64) * F
    for step in tl.static_range(RUN):
        rows = runs + step
        valid = rows < left
        keep = valid[:, None] & (k < F)
        x, fx = _locate(points, rows, valid, 0, cells)
        y, fy = _locate(points, rows, valid, 1, cells)
        z, fz = _locate(points, rows, valid, 2, cells)
        fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
        gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
        g, jx, jy, jz = _gradients(
            grad_features, grad_jacobians, rows, keep, k, feature_row, WIDTH, BLOCK, COLUMNS, FEATURES, JACOBIAN
        )
        # points that are masked out downstream have no gradient; NaN is not 0, so it is propagated
        some = tl.sum(tl.abs(g) + tl.abs(jx) + tl.abs(jy) + tl.abs(jz), 1) != 0.0
        jx, jy, jz = jx * s, jy * s, jz * s
        # the factors of x and y first, then those of the lower and upper z
        along_x0, along_x1 = g * gx - jx, g * fx + jx
        p00, p10 = along_x0 * gy - jy * gx, along_x1 * gy - jy * fx
        p01, p11 = along_x0 * fy + jy * gx, along_x1 * fy + jy * fx
        q00, q10, q01, q11 = jz * gx * gy, jz * fx * gy, jz * gx * fy, jz * fx * fy
        n000, n100, n010, n110 = p00 * gz - q00, p10 * gz - q10, p01 * gz - q01, p11 * gz - q11
        n001, n101, n011, n111 = p00 * fz + q00, p10 * fz + q10, p01 * fz + q01, p11 * fz + q11
        if step == 0:
            u, v, w = x, y, z  # the cell that is being summed
            c000, c100, c010, c110, c001, c101, c011, c111 = n000, n100, n010, n110, n001, n101, n011, n111
            live = some
        else:
            moved = (x != u) | (y != v) | (z != w)
            done = live & moved
            _add_to_face(grad_table, u, v, w, sx, sy, sz, mask, done, c000, c100, c010, c110, F, COLUMNS)
            _add_to_face(grad_table, u, v, w + 1, sx, sy, sz, mask, done, c001, c101, c011, c111, F, COLUMNS)
            fresh = moved[:, None]
            c000, c100 = tl.where(fresh, n000, c000 + n000), tl.where(fresh, n100, c100 + n100)
            c010, c110 = tl.where(fresh, n010, c010 + n010), tl.where(fresh, n110, c110 + n110)
            c001, c101 = tl.where(fresh, n001, c001 + n001), tl.where(fresh, n101, c101 + n101)
            c011, c111 = tl.where(fresh, n011, c011 + n011), tl.where(fresh, n111, c111 + n111)
            live = some | (live & ~moved)
            u, v, w = x, y, z
    _add_to_face(grad_table, u, v, w, sx, sy, sz, mask, live, c000, c100, c010, c110, F, COLUMNS)
    _add_to_face(grad_table, u, v, w + 1, sx, sy, sz, mask, live, c001, c101, c011, c111, F, COLUMNS)


@triton.jit(do_not_specialize=["count"])
def _scatter_to_points(  # type: ignore[no-untyped-def]
    points,
    table,
    levels,
    grad_features,
    grad_jacobians,
    grad_points,
    count,
    feature_row,
    F: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    FEATURES: tl.constexpr,
    JACOBIAN: tl.constexpr,
):
    """Gradient to BLOCK points, as if none were clamped; see `encode`.

    The gradient of the features is multiplied by the Jacobian, that of the Jacobian by the mixed second derivatives.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    valid = rows < tl.minimum(count - first, BLOCK).to(tl.int32)
    k = tl.arange(0, COLUMNS)[None, :]
    keep = valid[:, None] & (k < F)
    points += first * 3
    grad_features += first * feature_row
    grad_jacobians += first * (WIDTH * 3)
    sum_x = tl.zeros((BLOCK, COLUMNS), tl.float32)
    sum_y = tl.zeros((BLOCK, COLUMNS), tl.float32)
    sum_z = tl.zeros((BLOCK, COLUMNS), tl.float32)
    for level in range(WIDTH // F):
        cells, offset, sx, sy, sz, mask = _level_parameters(levels, level)
        x, fx = _locate(points, rows, valid, 0, cells)
        y, fy = _locate(points, rows, valid, 1, cells)
        z, fz = _locate(points, rows, valid, 2, cells)
        level_table = table + offset.to(tl.int64) * F
        v000, v100, v010, v110 = _values(level_table, x, y, z, sx, sy, sz, mask, F, COLUMNS)
        v001, v101, v011, v111 = _values(level_table, x, y, z + 1, sx, sy, sz, mask, F, COLUMNS)
        fx, fy, fz = fx[:, None], fy[:, None], fz[:, None]
        gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
        g, jx, jy, jz = _gradients(
            grad_features + level * F,
            grad_jacobians + level * (F * 3),
            rows,
            keep,
            k,
            feature_row,
            WIDTH,
            BLOCK,
            COLUMNS,
            FEATURES,
            JACOBIAN,
        )
        s = cells.to(tl.float32)
        # differences along x at the four (y, z); along y at the two z, after interpolation in x; and so on
        x00, x10, x01, x11 = v100 - v000, v110 - v010, v101 - v001, v111 - v011
        if FEATURES:
            a00, a10, a01, a11 = v000 + x00 * fx, v010 + x10 * fx, v001 + x01 * fx, v011 + x11 * fx
            b0, b1 = a00 * gy + a10 * fy, a01 * gy + a11 * fy
            sum_x += g * s * ((x00 * gy + x10 * fy) * gz + (x01 * gy + x11 * fy) * fz)
            sum_y += g * s * ((a10 - a00) * gz + (a11 - a01) * fz)
            sum_z += g * s * (b1 - b0)
        if JACOBIAN:
            y0, y1 = v010 - v000, v011 - v001  # along y at x = 0
            mixed_xy = s * s * ((x10 - x00) * gz + (x11 - x01) * fz)
            mixed_xz = s * s * ((x01 - x00) * gy + (x11 - x10) * fy)
            mixed_yz = s * s * ((y1 - y0) * gx + ((y1 + x11 - x01) - (y0 + x10 - x00)) * fx)
            sum_x += jy * mixed_xy + jz * mixed_xz
            sum_y += jx * mixed_xy + jz * mixed_yz
            sum_z += jx * mixed_xz + jy * mixed_yz
    grad_points += first * 3
    tl.store(grad_points + rows * 3, tl.sum(sum_x, 1), mask=valid)
    tl.store(grad_points + rows * 3 + 1, tl.sum(sum_y, 1), mask=valid)
    tl.store(grad_points + rows * 3 + 2, tl.sum(sum_z, 1), mask=valid)


# ------------------------------------------------------------------ on the host


class _Plan(NamedTuple):
    """A layout as the kernels need it."""

    levels: Tensor  # (L, 6) int32 on the device: cells, first entry, strides of x, y, z if dense, mask if hashed
    entries: int  # of all levels
    columns: int  # features per level, rounded up to a power of two
    block: int  # rows of a program


@functools.cache
def _plan(layout: GridLayout, device: torch.device) -> _Plan:
    """The plan of a layout, cached: an upload at each call would wait for the GPU, and no graph could capture it."""
    rows = []
    for cells, entries, hashed, offset in zip(
        layout.resolutions.tolist(),
        layout.entries.tolist(),
        layout.hashed.tolist(),
        layout.offsets.tolist(),
        strict=True,
    ):
        strides = (0, 0, 0) if hashed else (1, cells + 1, (cells + 1) ** 2)
        rows.append((cells, offset, *strides, entries - 1 if hashed else 0))
    levels = torch.tensor(rows, dtype=torch.int32).to(device)
    columns = triton.next_power_of_2(layout.features)
    # a thread loads up to four numbers at once
    return _Plan(levels, table_entries(layout), columns, max(16, THREADS // max(1, columns // 4)))


def _refuse_cpu(x: Tensor) -> None:
    interpreted = not isinstance(_gather, triton.JITFunction)
    if not (x.is_cuda or interpreted):
        raise ValueError(f"the Triton hash grid needs points and table on a CUDA device, not on {x.device}")


def _rows_of(gradient: Tensor | None, unused: Tensor) -> tuple[Tensor, int]:
    """A gradient of features and its row stride; copied only if its rows are not contiguous."""
    if gradient is None:
        return unused, 0
    if gradient.stride(1) != 1:
        gradient = gradient.contiguous()
    return gradient, gradient.stride(0)


def gather(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool) -> tuple[Tensor, Tensor | None]:
    """Features and their Jacobian, as `grid_operator.encode`, from contiguous tensors.

    Raises:
        ValueError: tensors on a CPU, without Triton's interpreter.
    """
    _refuse_cpu(x)
    count, width, plan = x.shape[0], layout.width, _plan(layout, x.device)
    features = x.new_empty(count, width)
    jacobians = x.new_empty(count, width, 3) if jacobian else None
    if count:
        with on_device_of(x):
            _gather[(triton.cdiv(count, plan.block), layout.levels)](
                x,
                table,
                plan.levels,
                features,
                features if jacobians is None else jacobians,
                count,
                F=layout.features,
                WIDTH=width,
                COLUMNS=plan.columns,
                BLOCK=plan.block,
                JACOBIAN=jacobian,
                **OPTIONS,
            )
    return features, jacobians


def scatter(x: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, layout: GridLayout) -> Tensor:
    """Gradient (entries, F), float32, to the table, from those of `gather`'s results; None where there is none."""
    count, plan = x.shape[0], _plan(layout, x.device)
    to_features, feature_row = _rows_of(grad_features, unused=x)
    to_jacobians = x if grad_jacobians is None else grad_jacobians.contiguous()
    grad_table = x.new_zeros(plan.entries, layout.features)
    if count:
        with on_device_of(x):
            _scatter[(triton.cdiv(count, plan.block * _RUN), layout.levels)](
                x,
                plan.levels,
                to_features,
                to_jacobians,
                grad_table,
                count,
                feature_row,
                RUN=_RUN,
                **_backward_options(layout, plan, grad_features, grad_jacobians),
            )
    return grad_table


def scatter_to_points(
    x: Tensor, table: Tensor, grad_features: Tensor | None, grad_jacobians: Tensor | None, layout: GridLayout
) -> Tensor:
    """Gradient (P, 3) to the points, from those of `gather`'s results; None where there is none."""
    count, plan = x.shape[0], _plan(layout, x.device)
    to_features, feature_row = _rows_of(grad_features, unused=x)
    to_jacobians = x if grad_jacobians is None else grad_jacobians.contiguous()
    grad_x = torch.empty_like(x)
    if count:
        with on_device_of(x):
            _scatter_to_points[(triton.cdiv(count, plan.block),)](
                x,
                table,
                plan.levels,
                to_features,
                to_jacobians,
                grad_x,
                count,
                feature_row,
                **_backward_options(layout, plan, grad_features, grad_jacobians),
            )
    return grad_x


def _backward_options(
    layout: GridLayout, plan: _Plan, grad_features: Tensor | None, grad_jacobians: Tensor | None
) -> dict[str, Any]:
    return {
        **OPTIONS,
        "F": layout.features,
        "WIDTH": layout.width,
        "COLUMNS": plan.columns,
        "BLOCK": plan.block,
        "FEATURES": grad_features is not None,
        "JACOBIAN": grad_jacobians is not None,
    }


def probe(device: torch.device) -> None:
    """Run every kernel once on a CUDA device and compare with torch. The first time on a machine takes seconds.

    Raises:
        Exception: Triton does not work here (no C compiler, an old GPU, ...); its own error, of any type.
    """
    layout = GridLayout(levels=2, features=2, log2_entries=6, base_resolution=3, max_resolution=5)
    results = []
    with torch.inference_mode(False), torch.enable_grad():
        numbers = torch.arange(int(layout.entries.sum()) * layout.features)
        # torch on the CPU, where no setting lowers the precision of its products
        for function, where in ((hash_grid.encode, torch.device("cpu")), (encode, device)):
            table = (numbers * 0.7).sin().reshape(-1, layout.features).to(where).requires_grad_()
            x = (numbers[:60] * 0.9).cos().abs().reshape(-1, 3).to(where).requires_grad_()
            features, jacobians = function(x, table, layout, True)
            assert jacobians is not None
            gradients = torch.autograd.grad(features.square().sum() + jacobians.square().sum(), (table, x))
            results.append((features, jacobians, *gradients))
    compare(*results)
