"""Dense layers over a block of points: the inner loops of all networks.

A block is a matrix with one row per feature, BLOCK points long. Tiles of four outputs by four inputs are computed at
once, so that arithmetic and not loads and stores is the limit. Numbers of rows are padded to multiples of four for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from surface_sos_ns.ops.cpu.grid import BLOCK

GROUPS = 16  # of blocks, each with its own sum of weight gradients; fixed, so that threads do not change the sums


def padded(rows: int) -> int:
    """The next multiple of four."""
    return (rows + 3) // 4 * 4


def pad(matrix: Tensor) -> NDArray[np.float32]:
    """A weight matrix (N, K) or bias (N,) with zeros up to multiples of four, as a new array."""
    sizes = [padded(size) for size in matrix.shape]
    result = torch.zeros(sizes)
    result[tuple(slice(size) for size in matrix.shape)] = matrix.detach()
    return result.numpy()


def unpadded(totals: Sequence[NDArray[np.float32]], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of parameters: padded ones, summed over their groups (first axis) and cut to the parameters' shapes."""
    pairs = zip(totals, parameters, strict=True)
    return [torch.from_numpy(t.sum(0))[tuple(slice(size) for size in p.shape)] for t, p in pairs]


def block_and_group_counts(points: int) -> tuple[int, int]:
    """Numbers of blocks of the points, and of groups of these blocks."""
    blocks = (points + BLOCK - 1) // BLOCK
    return blocks, min(GROUPS, blocks)


@njit(fastmath=True, error_model="numpy", forceinline=True)
def apply(weight, bias, x, out):  # type: ignore[no-untyped-def]
    """`out = weight x + bias`: (N, K) (K, B) -> (N, B)."""
    for n in range(0, weight.shape[0], 4):
        for i in range(BLOCK):
            out[n, i], out[n + 1, i], out[n + 2, i], out[n + 3, i] = bias[n], bias[n + 1], bias[n + 2], bias[n + 3]
        for k in range(0, weight.shape[1], 4):
            a0, a1, a2, a3 = weight[n, k], weight[n, k + 1], weight[n, k + 2], weight[n, k + 3]
            b0, b1, b2, b3 = weight[n + 1, k], weight[n + 1, k + 1], weight[n + 1, k + 2], weight[n + 1, k + 3]
            c0, c1, c2, c3 = weight[n + 2, k], weight[n + 2, k + 1], weight[n + 2, k + 2], weight[n + 2, k + 3]
            d0, d1, d2, d3 = weight[n + 3, k], weight[n + 3, k + 1], weight[n + 3, k + 2], weight[n + 3, k + 3]
            for i in range(BLOCK):
                x0, x1, x2, x3 = x[k, i], x[k + 1, i], x[k + 2, i], x[k + 3, i]
                out[n, i] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[n + 1, i] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                out[n + 2, i] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                out[n + 3, i] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@njit(fastmath=True, error_model="numpy", forceinline=True)
def add_outer(out, x, weight, bias):  # type: ignore[no-untyped-def]
    """Gradients of a layer's parameters: `weight += out x^T`, `bias += out 1`."""
    for n in range(weight.shape[0]):
        total = np.float32(0)
        for i in range(BLOCK):
            total += out[n, i]
        bias[n] += total
        for k in range(0, weight.shape[1], 4):
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(BLOCK):
                g = out[n, i]
                s0 += g * x[k, i]
                s1 += g * x[k + 1, i]
                s2 += g * x[k + 2, i]
                s3 += g * x[k + 3, i]
            weight[n, k] += s0
            weight[n, k + 1] += s1
            weight[n, k + 2] += s2
            weight[n, k + 3] += s3


@njit(fastmath=True, error_model="numpy", forceinline=True)
def load(rows, first, count, out):  # type: ignore[no-untyped-def]
    """Copy `count` points of rows (K, P), from `first` on, to the start of a block, and fill the rest with zeros."""
    for k in range(out.shape[0]):
        if k < rows.shape[0]:
            row = rows[k, first : first + count]
            for i in range(count):
                out[k, i] = row[i]
            for i in range(count, BLOCK):
                out[k, i] = np.float32(0)
        else:
            for i in range(BLOCK):
                out[k, i] = np.float32(0)


@njit(fastmath=True, error_model="numpy", forceinline=True)
def store(block, first, count, rows):  # type: ignore[no-untyped-def]
    """Copy the first `count` points of a block (K, B) to rows (K, P), from `first` on."""
    for k in range(rows.shape[0]):
        row = rows[k, first : first + count]
        for i in range(count):
            row[i] = block[k, i]
