"""Adam over a hash table in one pass; see `ops.adam`."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from surface_sos_ns.ops.cpu.threads import parallel

_BLOCK = 1 << 12  # elements


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(first_block, last_block, value, gradient, mean, square, rate, beta1, beta2, epsilon, scale):  # type: ignore[no-untyped-def]
    # Block by block: a loop's remainder beyond full SIMD vectors rounds differently, and which elements are in it must
    # not depend on how the work is divided.
    for block in range(first_block, last_block):
        first, last = block * _BLOCK, (block + 1) * _BLOCK  # a slice ends where the array does
        _step_block(
            value[first:last], gradient[first:last], mean[first:last], square[first:last],
            rate, beta1, beta2, epsilon, scale,
        )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step_block(value, gradient, mean, square, rate, beta1, beta2, epsilon, scale):  # type: ignore[no-untyped-def]
    zero, one = np.float32(0), np.float32(1)
    # On slices, so that indices start at 0: numba checks an index that may be negative (it would count from the end),
    # and LLVM does not vectorise loops with such a check. The same goes for branches.
    for i in range(value.shape[0]):
        g = gradient[i]
        m = beta1 * mean[i] + (one - beta1) * g
        v = beta2 * square[i] + (one - beta2) * g * g
        moved = value[i] - rate * m / (np.sqrt(v) * scale + epsilon)
        mean[i] = m if g != zero else mean[i]
        square[i] = v if g != zero else square[i]
        value[i] = moved if g != zero else value[i]


def sparse_adam_step(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rate: float | Tensor,
    betas: tuple[float, float],
    epsilon: float,
    step: int | Tensor,
) -> None:
    """See `ops.adam.sparse_adam_step`.

    Args:
        value, gradient, mean, square: contiguous, float32, of one shape.
        rate, betas, epsilon, step: as there.
    """
    arrays = [t.detach().view(-1).numpy() for t in (value, gradient, mean, square)]
    rate, step = float(rate), int(step)
    numbers = (rate / (1 - betas[0] ** step), *betas, epsilon, 1 / (1 - betas[1] ** step) ** 0.5)
    blocks = -(-value.numel() // _BLOCK)
    parallel(_step, blocks, *arrays, *(np.float32(n) for n in numbers), grain=16)
