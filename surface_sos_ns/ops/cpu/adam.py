"""Adam over a hash table in one pass, which leaves out what has no gradient."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from surface_sos_ns.ops.cpu.threads import parallel

_BLOCK = 1 << 12  # entries; a loop's rest that fills no vector is rounded otherwise, so pieces end where vectors do


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(first_block, last_block, value, gradient, mean, square, rate, beta1, beta2, epsilon, scale):  # type: ignore[no-untyped-def]
    zero, one = np.float32(0), np.float32(1)
    # Slices, so that indices begin at 0: one that may be negative counts from the end, and asking that of each of them
    # keeps LLVM from making vectors of the loop. The same goes for branches.
    first, last = first_block * _BLOCK, last_block * _BLOCK  # a slice ends where the array does
    value, gradient = value[first:last], gradient[first:last]
    mean, square = mean[first:last], square[first:last]
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
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    step: int,
) -> None:
    """Update value, mean and square in place where the gradient is not 0; elsewhere nothing moves or decays.

    Args:
        value, gradient, mean, square: contiguous, of one shape.
        rate, betas, epsilon: of Adam (Kingma & Ba 2015, algorithm 1).
        step: counted from 1, for the correction of the averages' bias.
    """
    arrays = [t.detach().view(-1).numpy() for t in (value, gradient, mean, square)]
    numbers = (rate / (1 - betas[0] ** step), *betas, epsilon, 1 / (1 - betas[1] ** step) ** 0.5)
    blocks = -(-value.numel() // _BLOCK)
    parallel(_step, blocks, *arrays, *(np.float32(n) for n in numbers), grain=16)
