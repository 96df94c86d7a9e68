"""A step of Adam that skips elements without gradient, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Update value and both moments in place where the gradient is not 0; elsewhere nothing changes.

    Args:
        value, gradient: of one shape.
        mean, square: first and second moment, of the same shape.
        rate, betas, epsilon: of Adam (Kingma & Ba 2015, algorithm 1). The rate may be a tensor () on the device.
        step: counted from 1, for bias correction. May be a tensor () on the device; then nothing is read on the host.
    """
    beta1, beta2 = betas
    if isinstance(step, Tensor):
        step = step.double()  # in float32, 1 - beta**step loses digits where beta**step is near 1
    touched = gradient != 0
    mean.copy_(torch.where(touched, mean.lerp(gradient, 1 - beta1), mean))
    square.copy_(torch.where(touched, square.lerp(gradient.square(), 1 - beta2), square))
    deviation = (square / (1 - beta2**step)).sqrt() + epsilon
    value.sub_(torch.where(touched, rate / (1 - beta1**step) * mean / deviation, 0.0))
