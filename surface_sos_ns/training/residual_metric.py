"""A metric for differences of colours: the Mahalanobis distance under the running covariance of the residuals.

Residuals are far larger in brightness (grain of wood, exposure, highlights) than in hue. MSE weights both equally, so
that a green rim on brown wood of the same brightness hardly counts. Under the covariance of the residuals (Mahalanobis
1936) it counts more, because it is rare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

AVERAGED_STEPS = 100.0
"""Time constant, in training steps, of the running mean of the covariance."""
VARIANCE_FLOOR = 0.1
"""Share of the mean variance that is added in all directions: JPEG files store hue less accurately than brightness."""


class ResidualMetric(nn.Module):
    """Covariance of the differences between rendered and photographed colours, and the metric that follows from it.

    Attributes:
        covariance: (3, 3) running mean; zero before the first step.
        precision: (3, 3) metric `d^T precision d` of colour differences d; the identity before the first update. It is
            1 in the direction of the largest variance and larger in all others, so that no difference loses weight
            against the other losses.
    """

    covariance: Tensor
    precision: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("covariance", torch.zeros(3, 3))
        self.register_buffer("precision", torch.eye(3))

    @torch.no_grad()
    def observe(self, difference: Tensor) -> None:
        """Update the running covariance with the differences (R, 3) of one step."""
        difference = difference.float()  # and no matrix product, which autocast would compute in half precision
        covariance = (difference[:, :, None] * difference[:, None, :]).mean(0)
        first = (self.covariance.diagonal().sum() == 0).to(covariance)  # no branch, which would wait for a GPU
        self.covariance.lerp_(covariance, torch.clamp(first, min=1.0 / AVERAGED_STEPS))

    @torch.no_grad()
    def update(self) -> None:
        """Recompute the metric from the present covariance."""
        covariance = self.covariance.cpu()  # not all devices have eigh
        size = covariance.diagonal().mean()
        if size > 0:
            variance, directions = torch.linalg.eigh(covariance / size + VARIANCE_FLOOR * torch.eye(3))
            self.precision.copy_(directions @ torch.diag(variance[-1] / variance) @ directions.T)
