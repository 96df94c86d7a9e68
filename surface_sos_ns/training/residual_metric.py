"""A metric for differences of colours: the Mahalanobis distance under the running covariance of the residuals.

Residuals are far larger in brightness (grain of wood, exposure, highlights) than in hue. MSE weights both equally, so
that a green rim on brown wood of the same brightness hardly counts. Under the covariance of the residuals (Mahalanobis
1936) it counts for what it is: rare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

AVERAGED_STEPS = 100.0
"""Steps over which the covariance is averaged."""
VARIANCE_FLOOR = 0.1
"""Share of the mean variance that is added along all directions: JPEG files store less hue than brightness."""


class ResidualMetric(nn.Module):
    """Covariance of the differences between rendered and photographed colours, and the metric that follows from it.

    Attributes:
        covariance: (3, 3) running mean; zero before the first step.
        precision: (3, 3) metric for differences d of colours, d^T precision d. The identity before anything is known.
            Along the direction in which colours are wrong most it is 1, so that nothing loses weight against the other
            losses; along all others it is larger.
    """

    covariance: Tensor
    precision: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("covariance", torch.zeros(3, 3))
        self.register_buffer("precision", torch.eye(3))

    @torch.no_grad()
    def observe(self, difference: Tensor) -> None:
        """Take the differences (R, 3) of one step into the covariance."""
        difference = difference.float()  # and no matrix product, which mixed precision would take as half
        here = (difference[:, :, None] * difference[:, None, :]).mean(0)
        first = (self.covariance.diagonal().sum() == 0).to(here)  # no branch: on a GPU that would wait for it
        self.covariance.lerp_(here, torch.clamp(first, min=1.0 / AVERAGED_STEPS))

    @torch.no_grad()
    def update(self) -> None:
        """Make the metric anew of the covariance as it is by now."""
        covariance = self.covariance.cpu()  # so small, and not all devices can
        size = covariance.diagonal().mean()
        if size > 0:
            variance, directions = torch.linalg.eigh(covariance / size + VARIANCE_FLOOR * torch.eye(3))
            self.precision.copy_(directions @ torch.diag(variance[-1] / variance) @ directions.T)
