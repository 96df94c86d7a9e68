"""The SDF network with its exact normal (eq. 1), forward and backward, over blocks of points.

With z = W1 [p; h] + b1, s = sigmoid(beta z), g = s * w2 (w2 the row of W2 that gives the SDF) and u = W1^T g, the
normal is u_p + c J^T u_h, where J is the hash grid's Jacobian and c the scale from points to its unit cube. No
second-order graph is needed, and the backward is written out here. The gradient of J is the outer product of c u_h and
the gradient of the normal; it is passed on as these two factors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from surface_sos_ns.ops.cpu import dense, grid, simd
from surface_sos_ns.ops.cpu.grid import BLOCK
from surface_sos_ns.ops.cpu.threads import parallel
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.utils.errors import UserError


@njit(inline="always")
def _softplus(z, beta, a, s):  # type: ignore[no-untyped-def]
    """Softplus `a` of z and its derivative `s`, from one exponential."""
    one = np.float32(1)
    for n in range(z.shape[0]):
        for i in range(BLOCK):
            v = z[n, i] * beta
            e = simd.exp(-abs(v))
            a[n, i] = (max(v, np.float32(0)) + simd.log1p(e)) / beta
            r = one / (one + e)
            s[n, i] = r if v >= np.float32(0) else e * r


@njit(inline="always")
def _copy_features(h, x):  # type: ignore[no-untyped-def]
    """Copy features h (C, B) to the network's input x, after the three rows of the position."""
    for k in range(x.shape[0] - 3):
        for i in range(BLOCK):
            x[3 + k, i] = h[k, i] if k < h.shape[0] else np.float32(0)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _forward(  # type: ignore[no-untyped-def]
    first_block, last_block, p, h, jac, w1, w1t, b1, w2, b2, beta, c, value, normal, zs, us,
):  # fmt: skip
    points, width, hidden = p.shape[1], h.shape[1], w1.shape[0]
    inputs, outputs = w1.shape[1], w2.shape[0]
    x, u = np.empty((inputs, BLOCK), np.float32), np.empty((inputs, BLOCK), np.float32)
    z, a = np.empty((hidden, BLOCK), np.float32), np.empty((hidden, BLOCK), np.float32)
    s, out = np.empty((hidden, BLOCK), np.float32), np.empty((outputs, BLOCK), np.float32)
    nothing = np.zeros(inputs, np.float32)
    keep, slopes = zs.shape[0] > 0, normal.shape[1] > 0
    for block in range(first_block, last_block):
        first = block * BLOCK
        count = min(BLOCK, points - first)
        dense.load(p, first, count, x[:3])
        _copy_features(h[block], x)
        dense.apply(w1, b1, x, z)
        if keep:
            zs[block] = z
        _softplus(z, beta, a, s)
        dense.apply(w2, b2, a, out)
        dense.store(out, first, count, value)
        if slopes:
            for n in range(hidden):
                for i in range(BLOCK):
                    s[n, i] *= w2[0, n]
            dense.apply(w1t, nothing, s, u)
            for axis in range(3):
                for k in range(width):
                    for i in range(BLOCK):
                        u[axis, i] += c * jac[block, k, axis, i] * u[3 + k, i]
            dense.store(u[:3], first, count, normal)
            if keep:
                for k in range(width):
                    for i in range(BLOCK):
                        us[block, k, 0, i] = c * u[3 + k, i]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _backward(  # type: ignore[no-untyped-def]
    first_group, last_group, p, h, jac, w1, w1t, w2, w2t, beta, c, zs, by_value, by_normal, dp, dh, dw1, db1, dw2, db2
):
    points, width, hidden = p.shape[1], h.shape[1], w1.shape[0]
    inputs, outputs, groups = w1.shape[1], w2.shape[0], dw1.shape[0]
    blocks = (points + BLOCK - 1) // BLOCK
    x, dx = np.empty((inputs, BLOCK), np.float32), np.empty((inputs, BLOCK), np.float32)
    a, s = np.empty((hidden, BLOCK), np.float32), np.empty((hidden, BLOCK), np.float32)
    da, dg = np.empty((hidden, BLOCK), np.float32), np.empty((hidden, BLOCK), np.float32)
    out = np.empty((outputs, BLOCK), np.float32)
    du, n3 = np.zeros((inputs, BLOCK), np.float32), np.empty((3, BLOCK), np.float32)
    no_bias, unused = np.zeros(max(hidden, inputs), np.float32), np.zeros(hidden, np.float32)
    slopes = by_normal.shape[1] > 0
    for group in range(first_group, last_group):
        for block in range(blocks * group // groups, blocks * (group + 1) // groups):
            first = block * BLOCK
            count = min(BLOCK, points - first)
            dense.load(p, first, count, x[:3])
            _copy_features(h[block], x)
            dense.load(by_value, first, count, out)
            _softplus(zs[block], beta, a, s)
            dense.add_outer(out, a, dw2[group], db2[group])
            dense.apply(w2t, no_bias, out, da)
            if slopes:
                dense.load(by_normal, first, count, n3)
                for axis in range(3):
                    for i in range(BLOCK):
                        du[axis, i] = n3[axis, i]
                for k in range(width):
                    for i in range(BLOCK):
                        dot = jac[block, k, 0, i] * n3[0, i] + jac[block, k, 1, i] * n3[1, i]
                        du[3 + k, i] = c * (dot + jac[block, k, 2, i] * n3[2, i])
                dense.apply(w1, no_bias, du, dg)
                for n in range(hidden):
                    w = w2[0, n]
                    total = np.float32(0)
                    for i in range(BLOCK):  # separate: next to writes, the order of a sum may vary
                        total += s[n, i] * dg[n, i]
                    for i in range(BLOCK):
                        slope = beta * s[n, i] * (np.float32(1) - s[n, i])
                        da[n, i] = da[n, i] * s[n, i] + w * dg[n, i] * slope
                        s[n, i] *= w
                    dw2[group, 0, n] += total
                dense.add_outer(s, du, dw1[group], unused)
            else:
                for n in range(hidden):
                    for i in range(BLOCK):
                        da[n, i] *= s[n, i]
            dense.add_outer(da, x, dw1[group], db1[group])
            dense.apply(w1t, no_bias, da, dx)
            dense.store(dx[:3], first, count, dp)
            for k in range(width):
                for i in range(BLOCK):
                    dh[block, k, i] = dx[3 + k, i]


class _SDF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        table: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        layout: GridLayout,
        extent: float,
        beta: float,
        normals: bool,
    ) -> Any:
        p = grid.as_rows(points)
        count, hidden, outputs = p.shape[1], w1.shape[0], w2.shape[0]
        if hidden % 4:
            raise UserError(
                f"The compiled networks need a hidden width that is a multiple of 4; got {hidden}. Choose such a "
                "width, or scene.backend torch."
            )
        c = np.float32(0.5 / extent)
        x = p * c + np.float32(0.5)
        h, jac = grid.gather(x, table, layout, normals, blocked=True)
        blocks, _ = dense.block_and_group_counts(count)
        keep = any(ctx.needs_input_grad[:6])
        weights = (dense.pad(w1), dense.pad(w1.t()), dense.pad(b1), dense.pad(w2), dense.pad(b2))
        value = np.empty((outputs, count), np.float32)
        normal = np.empty((3, count if normals else 0), np.float32)
        zs = np.empty((blocks if keep else 0, hidden, BLOCK), np.float32)
        us = np.empty((blocks if keep and normals else 0, layout.width, 1, BLOCK), np.float32)
        parallel(_forward, blocks, p, h, jac, *weights, np.float32(beta), c, value, normal, zs, us, grain=4)
        ctx.save_for_backward(table, w1, b1, w2, b2)
        ctx.arrays, ctx.layout, ctx.numbers = (p, x, h, jac, zs, us), layout, (np.float32(beta), c)
        return torch.from_numpy(value).t(), torch.from_numpy(normal).t()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        table, w1, b1, w2, b2 = ctx.saved_tensors
        p, x, h, jac, zs, us = ctx.arrays
        layout, (beta, c) = ctx.layout, ctx.numbers
        _, groups = dense.block_and_group_counts(p.shape[1])
        by_value, by_normal = (g.t().contiguous().numpy() for g in grads)
        pw1, pw2 = dense.pad(w1), dense.pad(w2)
        dp, dh = np.empty_like(p), np.empty_like(h)
        dw1, dw2 = (np.zeros((groups, *w.shape), np.float32) for w in (pw1, pw2))
        db1, db2 = (np.zeros((groups, w.shape[0]), np.float32) for w in (pw1, pw2))
        parallel(
            _backward, groups, p, h, jac, pw1, dense.pad(w1.t()), pw2, dense.pad(w2.t()), beta, c, zs, by_value,
            by_normal, dp, dh, dw1, db1, dw2, db2,
        )  # fmt: skip
        given = (x, table, layout, dh, us, by_normal, grid.PRODUCT if by_normal.shape[1] else grid.NONE)
        to_table = grid.scatter(*given) if ctx.needs_input_grad[1] else None
        to_points = None
        if ctx.needs_input_grad[0]:
            to_points = torch.from_numpy(dp).t() + grid.scatter_to_points(*given) * float(c)
        parameters = dense.unpadded((dw1, db1, dw2, db2), (w1, b1, w2, b2))
        return to_points, to_table, *parameters, None, None, None, None


def sdf_and_normal(
    points: Tensor,
    table: Tensor,
    layout: GridLayout,
    extent: float,
    beta: float,
    normals: bool,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """See `TorchOps.sdf_network`; `beta` is that of the softplus.

    Raises:
        ValueError: a point is NaN.
        UserError: the hidden width is not a multiple of 4.
    """
    value, normal = _SDF.apply(points, table, *parameters, layout, extent, beta, normals)
    return value, (normal if normals else None)
