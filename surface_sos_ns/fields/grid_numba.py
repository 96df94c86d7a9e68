"""The hash grid compiled for CPUs: one gather for features and Jacobian, one scatter for the backward of both.

Points go in blocks and levels in the outer loop of a block, so that one level's table stays in the cache. The scatter
runs one level a thread: levels own disjoint parts of the table, so no atomics are needed and results do not depend on
the number of threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from surface_sos_ns.fields.hash_grid import GridLayout

# numba's fallback threading layer aborts the process when two threads enter it at once (training and viewer do);
# the OpenMP layer does not, and the lock covers machines that have only the fallback.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]
_LOCK = threading.Lock()
_BLOCK = 256


@njit(inline="always")
def _entry(x: int, y: int, z: int, resolution: int, entries: int, hashed: bool) -> int:
    if hashed:
        return (x ^ (y * 2654435761) ^ (z * 805459861)) & (entries - 1)
    return x + (resolution + 1) * (y + (resolution + 1) * z)


@njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _gather(x, table, resolutions, entries, hashed, offsets, features, jacobians, with_jacobian):  # type: ignore[no-untyped-def]
    points, width = x.shape[0], table.shape[1]
    blocks = (points + _BLOCK - 1) // _BLOCK
    for block in prange(blocks):
        first, last = block * _BLOCK, min(points, (block + 1) * _BLOCK)
        for level in range(resolutions.shape[0]):
            n = resolutions[level]
            for i in range(first, last):
                sx = min(max(x[i, 0], np.float32(0)), np.float32(1)) * np.float32(n)
                sy = min(max(x[i, 1], np.float32(0)), np.float32(1)) * np.float32(n)
                sz = min(max(x[i, 2], np.float32(0)), np.float32(1)) * np.float32(n)
                cx, cy, cz = min(int(sx), n - 1), min(int(sy), n - 1), min(int(sz), n - 1)
                fx, fy, fz = sx - np.float32(cx), sy - np.float32(cy), sz - np.float32(cz)
                gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                e, h, o = entries[level], hashed[level], offsets[level]
                e000 = o + _entry(cx, cy, cz, n, e, h)
                e100 = o + _entry(cx + 1, cy, cz, n, e, h)
                e010 = o + _entry(cx, cy + 1, cz, n, e, h)
                e110 = o + _entry(cx + 1, cy + 1, cz, n, e, h)
                e001 = o + _entry(cx, cy, cz + 1, n, e, h)
                e101 = o + _entry(cx + 1, cy, cz + 1, n, e, h)
                e011 = o + _entry(cx, cy + 1, cz + 1, n, e, h)
                e111 = o + _entry(cx + 1, cy + 1, cz + 1, n, e, h)
                for k in range(width):
                    v000, v100, v010, v110 = table[e000, k], table[e100, k], table[e010, k], table[e110, k]
                    v001, v101, v011, v111 = table[e001, k], table[e101, k], table[e011, k], table[e111, k]
                    a00, a10 = v000 * gx + v100 * fx, v010 * gx + v110 * fx
                    a01, a11 = v001 * gx + v101 * fx, v011 * gx + v111 * fx
                    b0, b1 = a00 * gy + a10 * fy, a01 * gy + a11 * fy
                    c = level * width + k
                    features[i, c] = b0 * gz + b1 * fz
                    if with_jacobian:
                        s = np.float32(n)
                        d0 = (v100 - v000) * gy + (v110 - v010) * fy
                        d1 = (v101 - v001) * gy + (v111 - v011) * fy
                        jacobians[i, c, 0] = (d0 * gz + d1 * fz) * s
                        jacobians[i, c, 1] = ((a10 - a00) * gz + (a11 - a01) * fz) * s
                        jacobians[i, c, 2] = (b1 - b0) * s


@njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _scatter(x, resolutions, entries, hashed, offsets, grad_features, grad_jacobians, grad_table, with_jacobian):  # type: ignore[no-untyped-def]
    points, width = x.shape[0], grad_table.shape[1]
    for level in prange(resolutions.shape[0]):
        n = resolutions[level]
        e, h, o = entries[level], hashed[level], offsets[level]
        s = np.float32(n)
        for i in range(points):
            sx = min(max(x[i, 0], np.float32(0)), np.float32(1)) * s
            sy = min(max(x[i, 1], np.float32(0)), np.float32(1)) * s
            sz = min(max(x[i, 2], np.float32(0)), np.float32(1)) * s
            cx, cy, cz = min(int(sx), n - 1), min(int(sy), n - 1), min(int(sz), n - 1)
            fx, fy, fz = sx - np.float32(cx), sy - np.float32(cy), sz - np.float32(cz)
            for bits in range(8):
                bx, by, bz = bits & 1, (bits >> 1) & 1, (bits >> 2) & 1
                wx = fx if bx else np.float32(1) - fx
                wy = fy if by else np.float32(1) - fy
                wz = fz if bz else np.float32(1) - fz
                dx = s if bx else -s
                dy = s if by else -s
                dz = s if bz else -s
                entry = o + _entry(cx + bx, cy + by, cz + bz, n, e, h)
                for k in range(width):
                    c = level * width + k
                    g = grad_features[i, c] * wx * wy * wz
                    if with_jacobian:
                        g += grad_jacobians[i, c, 0] * dx * wy * wz
                        g += grad_jacobians[i, c, 1] * dy * wx * wz
                        g += grad_jacobians[i, c, 2] * dz * wx * wy
                    grad_table[entry, k] += g


def _layout_arrays(layout: GridLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return layout.resolutions, layout.entries.astype(np.int64), layout.hashed, layout.offsets


def _follow_torch_threads() -> None:
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(torch.get_num_threads(), most))


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool) -> Any:
        if ctx.needs_input_grad[0]:
            raise ValueError("the numba hash grid has no gradient to points yet; use backend='torch' for that")
        x = x.detach().contiguous()
        if x.sum().isnan() and x.isnan().any():
            raise ValueError("points of the hash grid must not be NaN: compiled code would read outside the table")
        points = x.shape[0]
        features = torch.empty(points, layout.width)
        jacobians = torch.empty(points if jacobian else 0, layout.width, 3)
        arrays = _layout_arrays(layout)
        with _LOCK:
            _follow_torch_threads()
            _gather(x.numpy(), table.detach().numpy(), *arrays, features.numpy(), jacobians.numpy(), jacobian)
        ctx.save_for_backward(x, table)
        ctx.layout, ctx.jacobian = layout, jacobian
        return features, jacobians

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, table = ctx.saved_tensors
        grad_features, grad_jacobians = (g.contiguous() for g in grads)
        grad_table = torch.zeros_like(table)
        arrays = _layout_arrays(ctx.layout)
        with _LOCK:
            _follow_torch_threads()
            _scatter(
                x.numpy(), *arrays, grad_features.numpy(), grad_jacobians.numpy(), grad_table.numpy(), ctx.jacobian
            )
        return None, grad_table, None, None


def encode(x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
    """See `HashGrid.forward`.

    Raises:
        ValueError: gradients with respect to the points are asked for, or points are NaN.
    """
    features, jacobians = _Encode.apply(x, table, layout, jacobian)
    return features, (jacobians if jacobian else None)
