"""What differs between photos of one scene: exposure and white balance, and the light."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

EXPOSURE_WIDTH = 6
"""Numbers of an exposure: the logarithm of a gain, and an offset, per colour channel."""


class ViewAppearance(NamedTuple):
    """Appearance of R rays, or of all alike (1)."""

    gain: Tensor  # (R, 3) or (1, 3)
    offset: Tensor  # (R, 3) or (1, 3)
    light: Tensor | None  # (R, L) or (1, L) code that goes into the colour nets; None where there is none


class Appearance(nn.Module):
    """Codes of the training views: an exposure each, and where the light changes a latent code (NeRF-W).

    An exposure is applied to rendered colours. It cannot represent light from another direction, nor another sky behind
    an object. The latent code can, since it is an input of the colour nets of both layers.

    Args:
        views: number of training views.
        light: length L of the latent code; 0 for none.
    """

    def __init__(self, views: int, light: int = 0):
        super().__init__()
        self.exposure = nn.Parameter(torch.zeros(max(views, 1), EXPOSURE_WIDTH))
        self.light = nn.Parameter(torch.zeros(max(views, 1), light)) if light else None

    @property
    def width(self) -> int:
        """Length of a whole code."""
        return EXPOSURE_WIDTH + (0 if self.light is None else self.light.shape[1])

    def forward(self, view: Tensor | None, code: Tensor | None = None) -> ViewAppearance:
        """The appearance of training views, of given codes, or the mean appearance.

        The mean of the codes is subtracted: the fields then have the mean appearance of the photos, and a common
        offset cannot tint what the support map corrects.

        Args:
            view: (R,) int64, training views.
            code: (R, width) or (1, width), taken in place of the views' codes, relative to their mean: an exposure,
                then the latent code. The mean appearance where both are None.
        """
        if code is None:
            code = self.exposure.new_zeros(1, EXPOSURE_WIDTH)
            light = None if self.light is None else self.light.new_zeros(1, self.light.shape[1])
            if view is not None:
                code = code + self.exposure[view] - self.exposure.mean(0)
                light = None if self.light is None else self.light[view] - self.light.mean(0)
        else:
            code, light = code[:, :EXPOSURE_WIDTH], None if self.light is None else code[:, EXPOSURE_WIDTH:]
        return ViewAppearance(torch.exp(code[:, :3]), code[:, 3:], light)

    def regulariser(self) -> Tensor:
        """() mean square of exposures, plus that of latent codes."""
        exposure = self.exposure.square().mean()
        return exposure if self.light is None else exposure + self.light.square().mean()
