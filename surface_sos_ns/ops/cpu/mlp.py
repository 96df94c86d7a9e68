"""Networks of dense layers with ReLUs, with one or two hidden layers, forward and backward over blocks of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from surface_sos_ns.ops.cpu import dense, simd
from surface_sos_ns.ops.cpu.grid import BLOCK
from surface_sos_ns.ops.cpu.threads import parallel
from surface_sos_ns.utils.errors import UserError


@njit(inline="always")
def _harmonics(directions, first, count, out):  # type: ignore[no-untyped-def]
    """Real spherical harmonics of degree 0 to 3 of unit directions (3, P) to 16 rows; see `ops.networks`."""
    f = np.float32
    last = first + count
    xs, ys, zs = directions[0, first:last], directions[1, first:last], directions[2, first:last]
    for i in range(count):
        x, y, z = xs[i], ys[i], zs[i]
        xx, yy, zz = x * x, y * y, z * z
        out[0, i] = f(0.28209479177387814)
        out[1, i] = f(-0.4886025119029199) * y
        out[2, i] = f(0.4886025119029199) * z
        out[3, i] = f(-0.4886025119029199) * x
        out[4, i] = f(1.0925484305920792) * x * y
        out[5, i] = f(-1.0925484305920792) * y * z
        out[6, i] = f(0.31539156525252005) * (f(3) * zz - f(1))
        out[7, i] = f(-1.0925484305920792) * x * z
        out[8, i] = f(0.5462742152960396) * (xx - yy)
        out[9, i] = f(-0.5900435899266435) * y * (f(3) * xx - yy)
        out[10, i] = f(2.890611442640554) * x * y * z
        out[11, i] = f(-0.4570457994644658) * y * (f(5) * zz - f(1))
        out[12, i] = f(0.3731763325901154) * z * (f(5) * zz - f(3))
        out[13, i] = f(-0.4570457994644658) * x * (f(5) * zz - f(1))
        out[14, i] = f(1.445305721320277) * z * (xx - yy)
        out[15, i] = f(-0.5900435899266435) * x * (xx - f(3) * yy)
    for k in range(16):
        for i in range(count, BLOCK):
            out[k, i] = f(0)


@njit(inline="always")
def _load_inputs(rows, directions, block, count, x):  # type: ignore[no-untyped-def]
    """A block of inputs: rows, blocked (N, C, B) or not (1, C, P); harmonics if there are directions; zero padding."""
    first, channels = block * BLOCK, rows.shape[1]
    part, at = (block, 0) if rows.shape[2] == BLOCK else (0, first)
    for k in range(channels):
        row = rows[part, k, at : at + count]
        for i in range(count):
            x[k, i] = row[i]
        for i in range(count, BLOCK):
            x[k, i] = np.float32(0)
    used = channels
    if directions.shape[1] > 0:
        _harmonics(directions, first, count, x[channels:])
        used += 16
    for k in range(used, x.shape[0]):
        for i in range(BLOCK):
            x[k, i] = np.float32(0)


@njit(inline="always")
def _relu(a):  # type: ignore[no-untyped-def]
    for n in range(a.shape[0]):
        for i in range(BLOCK):
            a[n, i] = max(a[n, i], np.float32(0))


@njit(inline="always")
def _relu_backward(gradient, a):  # type: ignore[no-untyped-def]
    """Set the gradient to 0 where the activation `a` is."""
    for n in range(a.shape[0]):
        for i in range(BLOCK):
            gradient[n, i] = gradient[n, i] if a[n, i] > np.float32(0) else np.float32(0)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _forward(  # type: ignore[no-untyped-def]
    first_block, last_block, points, rows, directions, w1, b1, w2, b2, w3, b3, squash, kept, out,
):  # fmt: skip
    hidden, deep, keep = w1.shape[0], w2.shape[0] > 0, kept.shape[0] > 0
    x = np.empty((w1.shape[1], BLOCK), np.float32)
    a, b = np.empty((hidden, BLOCK), np.float32), np.empty((hidden, BLOCK), np.float32)
    y = np.empty((w3.shape[0], BLOCK), np.float32)
    for block in range(first_block, last_block):
        count = min(BLOCK, points - block * BLOCK)
        _load_inputs(rows, directions, block, count, x)
        dense.apply(w1, b1, x, a)
        _relu(a)
        if keep:
            kept[block, :hidden] = a
        if deep:
            dense.apply(w2, b2, a, b)
            _relu(b)
            if keep:
                kept[block, hidden:] = b
            dense.apply(w3, b3, b, y)
        else:
            dense.apply(w3, b3, a, y)
        if squash:
            for n in range(out.shape[0]):
                for i in range(BLOCK):
                    y[n, i] = simd.sigmoid(y[n, i])
        dense.store(y, block * BLOCK, count, out)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _backward(  # type: ignore[no-untyped-def]
    first_group,
    last_group,
    points,
    rows,
    directions,
    w1t,
    w2t,
    w3t,
    kept,
    out,
    by_out,
    squash,
    by_rows,
    dw1,
    db1,
    dw2,
    db2,
    dw3,
    db3,
):
    hidden, deep, groups = w1t.shape[1], w2t.shape[0] > 0, dw1.shape[0]
    blocks = (points + BLOCK - 1) // BLOCK
    x, dx = np.empty((w1t.shape[0], BLOCK), np.float32), np.empty((w1t.shape[0], BLOCK), np.float32)
    da, db = np.empty((hidden, BLOCK), np.float32), np.empty((hidden, BLOCK), np.float32)
    dy, y = np.empty((w3t.shape[1], BLOCK), np.float32), np.empty((w3t.shape[1], BLOCK), np.float32)
    no_bias = np.zeros(max(hidden, dx.shape[0]), np.float32)
    for group in range(first_group, last_group):
        for block in range(blocks * group // groups, blocks * (group + 1) // groups):
            first = block * BLOCK
            count = min(BLOCK, points - first)
            _load_inputs(rows, directions, block, count, x)
            dense.load(by_out, first, count, dy)
            if squash:
                dense.load(out, first, count, y)
                for n in range(dy.shape[0]):
                    for i in range(BLOCK):
                        dy[n, i] *= y[n, i] * (np.float32(1) - y[n, i])
            a = kept[block, :hidden]
            if deep:
                b = kept[block, hidden:]
                dense.add_outer(dy, b, dw3[group], db3[group])
                dense.apply(w3t, no_bias, dy, db)
                _relu_backward(db, b)
                dense.add_outer(db, a, dw2[group], db2[group])
                dense.apply(w2t, no_bias, db, da)
            else:
                dense.add_outer(dy, a, dw3[group], db3[group])
                dense.apply(w3t, no_bias, dy, da)
            _relu_backward(da, a)
            dense.add_outer(da, x, dw1[group], db1[group])
            if by_rows.shape[1] > 0:
                dense.apply(w1t, no_bias, da, dx)
                part, at = (block, 0) if by_rows.shape[2] == BLOCK else (0, first)
                for k in range(by_rows.shape[1]):
                    row = by_rows[part, k, at : at + count]
                    for i in range(count):
                        row[i] = dx[k, i]


class Layers:
    """The two or three layers of a network as padded arrays.

    Args:
        parameters: weight (N, K) and bias (N,) of each layer in turn.

    Raises:
        UserError: hidden widths are unequal or no multiple of 4.
    """

    def __init__(self, parameters: tuple[Tensor, ...]):
        weights, biases = list(parameters[0::2]), list(parameters[1::2])
        hidden = weights[0].shape[0]
        if hidden % 4 or any(w.shape[0] != hidden for w in weights[:-1]):
            raise UserError(
                f"The compiled networks need hidden layers of equal width, a multiple of 4; got {hidden}. Choose such "
                "a width, or scene.backend torch."
            )
        if len(weights) == 2:
            weights.insert(1, weights[0].new_zeros(0, hidden))
            biases.insert(1, biases[0].new_zeros(0))
        self.weights = [dense.pad(w) for w in weights]
        self.biases = [dense.pad(b) for b in biases]
        self.transposed = [np.ascontiguousarray(w.T) for w in self.weights]
        if not self.weights[1].size:
            self.transposed[1] = self.weights[1]  # no rows tell the backward that there is no middle layer
        self.hidden, self.depth = hidden, len(parameters) // 2 - 1

    def forward(
        self,
        rows: NDArray[np.float32],
        directions: NDArray[np.float32],
        points: int,
        outputs: int,
        squash: bool,
        keep: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Outputs (O, P), and with `keep` the hidden activations (blocks, hidden * depth, B) for the backward."""
        blocks, _ = dense.block_and_group_counts(points)
        out = np.empty((outputs, points), np.float32)
        kept = np.empty((blocks if keep else 0, self.hidden * self.depth, BLOCK), np.float32)
        (w1, w2, w3), (b1, b2, b3) = self.weights, self.biases
        parallel(
            _forward, blocks, points, rows, directions, w1, b1, w2, b2, w3, b3, squash, kept, out, grain=4
        )  # fmt: skip
        return out, kept

    def backward(
        self,
        rows: NDArray[np.float32],
        directions: NDArray[np.float32],
        kept: NDArray[np.float32],
        out: NDArray[np.float32],
        by_out: NDArray[np.float32],
        squash: bool,
        to_rows: bool,
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Gradients of the rows (empty unless `to_rows`), and of weights and biases in turn, for `dense.unpadded`."""
        points = out.shape[1]
        _, groups = dense.block_and_group_counts(points)
        by_rows = np.zeros(rows.shape if to_rows else (1, 0, 1), np.float32)
        totals = [np.zeros((groups, *a.shape), np.float32) for a in (*self.weights, *self.biases)]
        dw1, dw2, dw3, db1, db2, db3 = totals
        parallel(
            _backward, groups, points, rows, directions, *self.transposed, kept, out, by_out, squash, by_rows,
            dw1, db1, dw2, db2, dw3, db3,
        )  # fmt: skip
        order = (dw1, db1, dw2, db2, dw3, db3) if self.depth == 2 else (dw1, db1, dw3, db3)
        return by_rows, list(order)


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, directions: Tensor, squash: bool, *parameters: Tensor) -> Tensor:
        rows, directions_array = inputs.detach().contiguous().numpy()[None], directions.detach().contiguous().numpy()
        layers = Layers(parameters)
        out, kept = layers.forward(
            rows, directions_array, inputs.shape[1], parameters[-1].shape[0], squash, any(ctx.needs_input_grad)
        )
        ctx.save_for_backward(*parameters)
        ctx.state, ctx.squash = (layers, rows, directions_array, kept, out), squash
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        layers, rows, directions_array, kept, out = ctx.state
        by_out = grads[0].contiguous().numpy()
        by_rows, totals = layers.backward(
            rows, directions_array, kept, out, by_out, ctx.squash, ctx.needs_input_grad[0]
        )
        to_inputs = torch.from_numpy(by_rows[0]) if ctx.needs_input_grad[0] else None
        return to_inputs, None, None, *dense.unpadded(totals, ctx.saved_tensors)


def network(inputs: Tensor, directions: Tensor, squash: bool, *parameters: Tensor) -> Tensor:
    """Dense layers with ReLUs between them, on rows: one row per feature.

    Args:
        inputs: (I, P).
        directions: (3, P) unit vectors whose 16 spherical harmonics are appended to the inputs; (3, 0) for none.
        squash: apply a sigmoid to the outputs.
        parameters: weight (N, K) and bias (N,) of each of the two or three layers in turn.

    Returns:
        (O, P).

    Raises:
        UserError: hidden widths are unequal or no multiple of 4.
    """
    result: Tensor = _Network.apply(inputs, directions, squash, *parameters)
    return result
