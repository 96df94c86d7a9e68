"""Exposure and white balance of the training photos (appearance codes)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Exposure(nn.Module):
    """A gain and an offset per colour channel and training view.

    Args:
        views: number of training views.
    """

    def __init__(self, views: int):
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(max(views, 1), 6))

    def forward(self, view: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and offset, (R, 3) each, of views (R,); for None (1, 3) each, 1 and 0.

        The mean of the codes is subtracted: the fields then have the mean appearance of the photos, and a common
        offset cannot tint what the support map corrects.
        """
        code = self.codes.new_zeros(1, 6)
        if view is not None:
            code = code + self.codes[view] - self.codes.mean(0)
        return torch.exp(code[:, :3]), code[:, 3:]
