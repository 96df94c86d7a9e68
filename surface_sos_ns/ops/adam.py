"""One step of Adam that leaves alone what has no gradient, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


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
        value, gradient, mean, square: of one shape.
        rate, betas, epsilon: of Adam (Kingma & Ba 2015, algorithm 1).
        step: counted from 1, for the correction of the averages' bias.
    """
    beta1, beta2 = betas
    touched = gradient != 0
    mean.copy_(torch.where(touched, mean.lerp(gradient, 1 - beta1), mean))
    square.copy_(torch.where(touched, square.lerp(gradient.square(), 1 - beta2), square))
    spread = (square / (1 - beta2**step)).sqrt() + epsilon
    value.sub_(torch.where(touched, rate / (1 - beta1**step) * mean / spread, 0.0))
