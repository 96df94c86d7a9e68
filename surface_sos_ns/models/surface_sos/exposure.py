"""Exposure and white balance of the training photos."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Exposure(nn.Module):
    """A gain and an offset a colour channel for each training view.

    Args:
        views: their number.
    """

    def __init__(self, views: int):
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(max(views, 1), 6))

    def forward(self, view: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and offset (R, 3) of views (R,); for no view in particular (1, 3), 1 and 0.

        Codes count relative to their mean, so that the fields hold what photos show in the mean: could all drift
        together, an offset would tint what is lit anew.
        """
        code = self.codes.new_zeros(1, 6)
        if view is not None:
            code = code + self.codes[view] - self.codes.mean(0)
        return torch.exp(code[:, :3]), code[:, 3:]
