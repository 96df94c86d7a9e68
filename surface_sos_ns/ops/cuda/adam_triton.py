"""Adam over a hash table as a Triton kernel, in one pass; see `ops.adam`. Most entries have no gradient in a step."""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from surface_sos_ns.ops.cuda.triton_support import OPTIONS, on_device_of

_BLOCK = 1024  # elements of a program


@triton.jit
def _bias_correction(step, log_beta):  # type: ignore[no-untyped-def]
    """1 - beta**step. Where that is close to 0 the series of the exponential keeps the digits that would cancel."""
    power = step * log_beta
    series = 1.0 + power * (1 / 2 + power * (1 / 6 + power * (1 / 24 + power * (1 / 120 + power * (1 / 720)))))
    return tl.where(power > -0.1, -power * series, 1.0 - tl.exp(power))


@triton.jit
def adam_kernel(  # type: ignore[no-untyped-def]
    value,
    gradient,
    mean,
    square,
    rate,
    step,
    log_beta1,
    log_beta2,
    share1,
    share2,
    epsilon,
    count,
    BLOCK: tl.constexpr,
):
    """A step for BLOCK elements, of which those without gradient are neither read nor written.

    `rate` and `step` point at numbers; `share` is 1 - beta.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    exists = at < tl.minimum(count - first, BLOCK).to(tl.int32)
    g = tl.load(gradient + first + at, mask=exists, other=0.0)
    touched = g != 0.0
    m = tl.load(mean + first + at, mask=touched, other=0.0)
    v = tl.load(square + first + at, mask=touched, other=0.0)
    x = tl.load(value + first + at, mask=touched, other=0.0)
    steps = tl.load(step).to(tl.float32)
    scale = tl.load(rate) / _bias_correction(steps, log_beta1)
    m += share1 * (g - m)
    v += share2 * (g * g - v)
    x -= scale * m / (tl.sqrt_rn(v / _bias_correction(steps, log_beta2)) + epsilon)
    tl.store(mean + first + at, m, mask=touched)
    tl.store(square + first + at, v, mask=touched)
    tl.store(value + first + at, x, mask=touched)


def launch(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rate: Tensor,
    betas: tuple[float, float],
    epsilon: float,
    step: Tensor,
) -> None:
    """Run the kernel on contiguous float32 tensors; `rate` and `step` are () on the same device."""
    count = value.numel()
    if count == 0:
        return
    logs, shares = [math.log(beta) for beta in betas], [1 - beta for beta in betas]
    with on_device_of(value):
        adam_kernel[(triton.cdiv(count, _BLOCK),)](
            value, gradient, mean, square, rate, step, *logs, *shares, epsilon, count, BLOCK=_BLOCK, **OPTIONS
        )
